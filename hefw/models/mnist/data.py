"""MNIST from its own files: the 10,000 images of the test part, of which the first 8,000 train and the rest judge."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hefw.core.errors import ConfigError

IMAGES = "t10k-images-idx3-ubyte"
LABELS = "t10k-labels-idx1-ubyte"
SIZE = 28
CLASSES = 10
#: The share of the images that trains; the rest is kept out and judges.
TRAINING_SHARE = 0.8
UNSIGNED_BYTE = 0x08
WHERE = "give the folder of MNIST's t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz"


@dataclass(frozen=True)
class Pictures:
    """Images (count, 1, 28, 28), float32, black -1 and white 1; labels (count,), int64."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Mnist:
    """What trains, and what is kept out of all training."""

    training: Pictures
    held_out: Pictures


def load_for(model: str, folder: Path | None) -> Mnist:
    """`load` for the training of a model, which is not given the data by hefw; ConfigError without a folder."""
    if folder is None:
        raise ConfigError(f"model {model!r} is trained on data that hefw does not have; --data DIR: {WHERE}")
    return load(folder)


def load(folder: str | Path) -> Mnist:
    """The two IDX files of a folder, gzipped or not.

    Raises:
        ConfigError: a file is missing, is no such file, or the two do not belong together.
    """
    images, labels = read_idx(_find(folder, IMAGES), 3), read_idx(_find(folder, LABELS), 1)
    if images.shape[1:] != (SIZE, SIZE) or len(images) != len(labels) or labels.max(initial=0) >= CLASSES:
        raise ConfigError(
            f"data {str(folder)!r} has images of shape {images.shape} and {len(labels)} labels up to "
            f"{labels.max(initial=0)}; allowed: as many labels 0 to {CLASSES - 1} as images of {SIZE}x{SIZE}; {WHERE}"
        )
    count = int(TRAINING_SHARE * len(images))
    if not 0 < count < len(images):
        raise ConfigError(f"data {str(folder)!r} has {len(images)} images; allowed: at least 2; {WHERE}")
    pixels = torch.from_numpy(images.astype(np.float32))[:, None] / 127.5 - 1
    classes = torch.from_numpy(labels.astype(np.int64))
    return Mnist(Pictures(pixels[:count], classes[:count]), Pictures(pixels[count:], classes[count:]))


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """An array of unsigned bytes from a file in the IDX format of MNIST, gzipped if its name ends in .gz."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"data {str(path)!r} cannot be read: {error}; {WHERE}") from None
    start = 4 + 4 * dimensions
    shape = struct.unpack_from(f">{dimensions}I", content, 4) if len(content) >= start else ()
    if content[:4] != bytes((0, 0, UNSIGNED_BYTE, dimensions)) or len(content) - start != int(np.prod(shape)):
        raise ConfigError(
            f"data {str(path)!r} is no IDX file of {dimensions} dimensions of unsigned bytes, or is cut short; {WHERE}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _find(folder: str | Path, name: str) -> Path:
    for path in (Path(folder) / f"{name}.gz", Path(folder) / name):
        if path.is_file():
            return path
    raise ConfigError(f"data {str(folder)!r} has no file {name}.gz; {WHERE}")
