"""Files in MNIST's format, of blobs that a network can tell apart."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

from hefw.models.mnist.data import IMAGES, LABELS


def idx(values: np.ndarray) -> bytes:
    """A file of unsigned bytes as Y. LeCun's page on MNIST describes it."""
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_mnist(folder: Path, images: np.ndarray, labels: np.ndarray, *, zipped: bool = True) -> None:
    """Images (count, height, width) and labels (count,) as the two files of MNIST's test part."""
    for name, values in ((IMAGES, images), (LABELS, labels)):
        content = idx(values.astype(np.uint8))
        path = folder / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(content) if zipped else content)


def blobs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, 28, 28) with a bright square, whose place is their label (count,)."""
    labels = np.arange(count) % 10
    images = np.random.default_rng(0).integers(0, 30, (count, 28, 28))
    for image, label in zip(images, labels, strict=True):
        row, column = 4 + 12 * (label // 5), 2 + 5 * (label % 5)
        image[row : row + 8, column : column + 5] = 255
    return images, labels
