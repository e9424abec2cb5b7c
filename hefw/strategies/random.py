"""`random`: a share of the entries, at places that have nothing to do with the picture. A control."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hefw.strategies import share
from hefw.strategies.latent import checked
from hefw.strategies.plugin import RandomOptions


class Random:
    """The same places for every latent of a shape; with the same seed, a larger fraction adds places to a smaller one.

    The seed fixes places that the server is told anyway. It is no secret, and has nothing to do with keys.
    """

    packed = False

    def __init__(self, options: RandomOptions) -> None:
        self.options = options

    def select(self, latent: NDArray[np.float64]) -> NDArray[np.bool_]:
        """The selection of a latent (channels, height, width): True at `fraction` of its entries, rounded up.

        Raises:
            EncodingError: a value is not finite, or the latent has another number of axes.
        """
        values = checked(latent)
        order = np.random.default_rng(self.options.seed).permutation(values.size)
        mask = np.zeros(values.shape, dtype=np.bool_)
        mask.flat[order[: share.ceil(self.options.fraction, values.size)]] = True
        return mask
