"""`roi`: a region of interest is encrypted, in all channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hefw.core.errors import ConfigError
from hefw.strategies import share
from hefw.strategies.latent import checked
from hefw.strategies.mask import read_mask
from hefw.strategies.plugin import RoiOptions

Mask = NDArray[np.bool_]


class Roi:
    """The region is a mask, an image whose white pixels are encrypted, or a box in shares of height and width.

    A place of the latent that lies partly in the region is encrypted whole.

    Raises:
        ConfigError: the mask's file is missing, is no image, or has no white pixel.
        PluginError: the mask cannot be read because pillow is not installed.
    """

    packed = False

    def __init__(self, options: RoiOptions) -> None:
        self.options = options
        self._mask = None if options.mask is None else read_mask(options.mask)

    def select(self, latent: NDArray[np.float64]) -> Mask:
        """The selection of a latent (channels, height, width): True in the region.

        Raises:
            ConfigError: the mask is neither of the latent's height and width nor of an integer multiple of both.
            EncodingError: a value is not finite, or the latent has another number of axes.
        """
        values = checked(latent)
        height, width = values.shape[1:]
        region = self._box(height, width) if self._mask is None else self._reduced(self._mask, height, width)
        return np.repeat(region[None], len(values), axis=0)

    def _box(self, height: int, width: int) -> Mask:
        assert self.options.box is not None
        top, left, bottom, right = self.options.box
        region = np.zeros((height, width), dtype=np.bool_)
        rows = slice(share.floor(top, height), share.ceil(bottom, height))
        region[rows, share.floor(left, width) : share.ceil(right, width)] = True
        return region

    def _reduced(self, mask: Mask, height: int, width: int) -> Mask:
        down, across = mask.shape[0] // height, mask.shape[1] // width
        if mask.shape != (down * height, across * width):
            raise ConfigError(
                f"mask {self.options.mask!r} is {mask.shape[0]}x{mask.shape[1]} (height x width), the latent "
                f"{height}x{width}; allowed: the latent's size, or an integer multiple of each side; resize the mask, "
                "or use a box"
            )
        return np.asarray(mask.reshape(height, down, width, across).any(axis=(1, 3)))
