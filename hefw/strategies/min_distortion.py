"""`min_distortion`: what can be shown at little distortion is plaintext, the rest is encrypted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hefw.strategies import share
from hefw.strategies.distortion import distortion
from hefw.strategies.latent import checked
from hefw.strategies.plugin import DEFAULT_THRESHOLD, MinDistortionOptions

Array = NDArray[np.float64]


class MinDistortion:
    """HE-Diffusion's Min-distortion (arXiv 2403.05794): `hefw.strategies.distortion` counts what an entry is worth.

    With `threshold`, entries are moved to plaintext in ascending order of distortion while the sum of those moved is
    less than threshold * total; the last one may go beyond it. The other entries are encrypted. Of equal entries the
    one with the lower flat index is moved first. Sums run in that order, in float64, the total too. So

    - threshold 0 encrypts everything, and threshold 1 nothing, whatever the latent;
    - entries that are 0 are the first to be moved;
    - where no entry has any distortion (one value in all places, a single pixel), everything is encrypted below 1.

    With `fraction`, that share of the entries is encrypted, rounded up: those of the highest distortion.
    """

    packed = False

    def __init__(self, options: MinDistortionOptions) -> None:
        self.fraction = options.fraction
        self.threshold = DEFAULT_THRESHOLD if options.threshold is None else options.threshold

    def select(self, latent: Array) -> NDArray[np.bool_]:
        """The selection of a latent (channels, height, width): True where an entry must be encrypted.

        Raises:
            EncodingError: a value is not finite, or the latent has another number of axes.
        """
        values = distortion(checked(latent))
        ascending = np.sort(values, axis=None)
        return ~_lowest(values, ascending, self._shown(ascending))

    def _shown(self, ascending: Array) -> int:
        """How many entries become plaintext, from their distortions in ascending order."""
        if self.fraction is not None:
            return ascending.size - share.ceil(self.fraction, ascending.size)
        if self.threshold == 1:
            return ascending.size
        sums = np.concatenate([[0.0], np.cumsum(ascending)])
        return int(np.searchsorted(sums, self.threshold * sums[-1]))


def _lowest(values: Array, ascending: Array, count: int) -> NDArray[np.bool_]:
    """A mask of the `count` lowest values; of equal ones those with the lowest flat index. Sorts no indices: faster."""
    if not count:
        return np.zeros(values.shape, dtype=np.bool_)
    last = ascending[count - 1]
    mask: NDArray[np.bool_] = values < last
    equal = np.flatnonzero(values == last)
    mask.flat[equal[: count - np.count_nonzero(mask)]] = True
    return mask
