"""A picture to start from, and a mask of what of it is drawn anew: read, checked, and put into a run's latents.

All of it stays with the key holder: a server sees latents of an edit as it sees those of any run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hefw.config import Config
from hefw.core.errors import ConfigError, PluginError
from hefw.models.base import Editable
from hefw.record import EditRecord

if TYPE_CHECKING:
    from PIL import Image

    from hefw.models.noising import Noising

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Size = tuple[int, int]

#: What diffusers' image-to-image and inpainting pipelines take where no strength is given.
STRENGTH, MASKED_STRENGTH = 0.8, 1.0
WITHOUT_ROUND_TRIPS = (
    "a mask needs the key holder after every step, where it puts the kept part of the picture back; use "
    "refresh: client without every, or leave the mask out"
)


@dataclass(frozen=True)
class Edit:
    """A picture that a run starts from.

    `image` is (channels, height, width), `latent` its (channels, height, width); True in `mask` (height, width), and in
    `latent_mask` of a latent's height and width, is drawn anew. Without a mask everything is.
    """

    image: Array
    latent: Array
    noising: Noising
    strength: float
    size: Size
    mask: Mask | None = None
    latent_mask: Mask | None = None

    def start(self, noise: Array, initial: float) -> Array:
        """Latents to begin with, from noise (images, *latent shape) of deviation 1; `initial` is that of x_T.

        As in diffusers' inpainting, a mask at strength 1 begins with noise alone.
        """
        if self.mask is not None and self.strength == 1:
            return noise * initial
        return self.noising.at(0, self.latent, noise)

    def keep(self, step: int, latents: Array, noise: Array) -> Array:
        """Latents after a step (from 0), with what the mask keeps replaced by the picture, as noisy as they are."""
        if self.latent_mask is None:
            return latents
        return np.where(self.latent_mask, latents, self.noising.at(step + 1, self.latent, noise))

    def paste(self, images: Array) -> Array:
        """Final images, with the picture's own pixels where the mask keeps them."""
        return images if self.mask is None else np.where(self.mask, images, self.image)

    @property
    def record(self) -> EditRecord:
        """For the run's record."""
        return EditRecord(
            picture=self.size,
            resized=self.size != (self.image.shape[2], self.image.shape[1]),
            strength=self.strength,
            begin=self.noising.begin,
            drawn=1.0 if self.mask is None else float(self.mask.mean()),
        )


def check(config: Config, model: Any, update_only: bool) -> None:
    """ConfigError for what of an edit does not go together, before anything is loaded or drawn."""
    for key in ("strength", "mask"):
        if getattr(config, key) is not None and config.init_image is None:
            raise ConfigError(
                f"{key} {getattr(config, key)!s} is given without init_image; give the picture with --init-image FILE"
            )
    if config.init_image is None:
        return
    if not isinstance(model, Editable):
        raise ConfigError(
            f"model {model.name!r} cannot start from a picture: it has no encoder; leave init_image out, or use "
            "another model, such as digits"
        )
    if config.mask is not None and not update_only and (config.refresh.name != "client" or config.refresh.every > 1):
        asked = config.refresh.name if config.refresh.every == 1 else f"every {config.refresh.every}"
        raise ConfigError(f"mask with refresh: {asked} is not allowed: {WITHOUT_ROUND_TRIPS}")


def prepare(config: Config, model: Any, make_scheduler: Callable[[], Any], steps: int) -> Edit | None:
    """The edit that a configuration asks for, or None. ConfigError for files that are none or do not fit."""
    if config.init_image is None:
        return None
    from hefw.models.noising import check_changes, noising

    shape = model.decode(np.zeros((1, *model.latent_shape))).shape[1:]
    picture, size = read_picture(Path(config.init_image).expanduser(), shape)
    default = STRENGTH if config.mask is None else MASKED_STRENGTH
    strength = default if config.strength is None else float(config.strength)
    schedule = noising(make_scheduler(), steps, strength)
    latent = np.asarray(model.encode(picture[None])[0], dtype=np.float64)
    if config.mask is None:
        return Edit(picture, latent, schedule, strength, size)
    check_changes(make_scheduler(), steps, schedule.begin)
    mask = read_mask(Path(config.mask).expanduser(), shape[1:], size)
    return Edit(picture, latent, schedule, strength, size, mask, cover(mask, latent.shape[1:]))


def read_picture(path: Path, shape: tuple[int, int, int]) -> tuple[Array, Size]:
    """A picture file as (channels, height, width), black -1 and white 1, and its (width, height) in the file.

    One channel is grey, three are red, green and blue. The right way up, on black where it is transparent, and scaled
    to the height and width wanted.
    """
    channels, height, width = shape
    picture = _open("init_image", path)
    scaled = _scaled(picture.convert("L" if channels == 1 else "RGB"), (width, height))
    grey = np.asarray(scaled, dtype=np.float64) / 127.5 - 1
    return np.moveaxis(grey.reshape(height, width, channels), 2, 0), picture.size


def read_mask(path: Path, shape: tuple[int, int], size: Size) -> Mask:
    """A mask file as (height, width): True where it is white, brighter than half, which is drawn anew.

    ConfigError unless it has the picture's `size` (width, height) in the file, and something white.
    """
    picture = _open("mask", path)
    if picture.size != size:
        raise ConfigError(
            f"mask {str(path)!r} is {_pixels(picture.size)}, the picture {_pixels(size)}; give a mask of the picture's "
            "size"
        )
    grey = np.asarray(_scaled(picture.convert("L"), (shape[1], shape[0])))
    mask = grey > 127
    if not mask.any():
        raise ConfigError(
            f"mask {str(path)!r} is black everywhere, so that nothing would be drawn; paint white what is "
            "to be drawn anew"
        )
    return mask


def cover(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """A mask (height, width) of pixels as one of a latent's places: True where any of a place's pixels is.

    Where pixels do not divide into places, the picture is padded evenly to the next size that does, as encoders do.
    """
    rows, columns = shape
    down, right = -(-mask.shape[0] // rows), -(-mask.shape[1] // columns)
    above, left = (rows * down - mask.shape[0]) // 2, (columns * right - mask.shape[1]) // 2
    padded = np.zeros((rows * down, columns * right), dtype=np.bool_)
    padded[above : above + mask.shape[0], left : left + mask.shape[1]] = mask
    return np.asarray(padded.reshape(rows, down, columns, right).any(axis=(1, 3)))


def difference(images: Array, plain: Array, edit: Edit | None) -> Array:
    """What two results differ by, of all drawn pixels: those that are kept differ nowhere, and would flatter a mean."""
    off = images - plain
    return off if edit is None or edit.mask is None else off[:, :, edit.mask]


def _open(key: str, path: Path) -> Image.Image:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise PluginError("reading pictures needs Pillow; run: pip install 'hefw[models]'") from error
    try:
        with Image.open(path) as picture:
            return _on_black(ImageOps.exif_transpose(picture))
    except FileNotFoundError:
        raise ConfigError(f"{key} {str(path)!r} does not exist; give the path of a picture") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{key} {str(path)!r} is no picture: {reason}; give a PNG or JPEG file") from None


def _on_black(picture: Image.Image) -> Image.Image:
    from PIL import Image

    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture
    whole = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", whole.size, (0, 0, 0, 255)), whole)


def _scaled(picture: Image.Image, size: Size) -> Image.Image:
    from PIL import Image

    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def _pixels(size: Size) -> str:
    return f"{size[0]}x{size[1]} pixels"
