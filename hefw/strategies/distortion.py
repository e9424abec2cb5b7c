"""HILL distortion of a latent: how much a picture suffers where an entry is lost, as HE-Diffusion counts it.

Li, Wang, Huang and Li, "A new cost function for spatial image steganography" (ICIP 2014), as used by Chen et al.,
"Privacy-Preserving Diffusion Model Using Homomorphic Encryption" (arXiv 2403.05794, Min-distortion).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Along both axes: the high-pass kernel [[-1, 2, -1], [2, -4, 2], [-1, 2, -1]], but for its sign.
HIGH_PASS = (-1.0, 2.0, -1.0)
#: A high-pass response up to this, a channel, is rounding where the largest magnitude is in [1/2, 1): it counts as 0.
ROUNDING = 2.0**-40


def distortion(latent: Array) -> Array:
    """|x_i| * cost_i of every entry of a finite latent (channels, height, width); it does not depend on x's unit.

    The cost is one picture (height, width) for all channels: their sum through the high-pass kernel, its magnitude, the
    3x3 mean, the reciprocal (0 where that mean is 0), the 15x15 mean. That each of the published kernels sums over all
    channels multiplies the first mean and divides the second by their number, so that it comes to the same.

    Mirror padding is that of numpy's and torch's `reflect`: the outermost entries are the mirror and are not repeated,
    c b [a b c] b a. A picture smaller than a kernel is reflected as often as needed.

    The selection follows from comparisons of these numbers, so rounding is fixed: x is divided by a power of two so
    that its largest magnitude is in [1/2, 1); sums run over channels, then along rows, then along columns, from low
    index to high, in float64; and a high-pass response of at most 2^-40 a channel is 0.
    """
    magnitude = np.abs(latent)
    _, exponent = np.frexp(magnitude.max())
    image = np.zeros(latent.shape[1:])
    for channel in np.ldexp(latent, -exponent):
        image += channel
    response = np.abs(_filtered(image, HIGH_PASS))
    response[response <= ROUNDING * len(latent)] = 0.0
    smooth = _filtered(response, (1.0,) * 3) / 9
    reciprocal = np.divide(1.0, smooth, out=np.zeros_like(smooth), where=smooth != 0)
    cost = _filtered(reciprocal, (1.0,) * 15) / 225
    return np.asarray(np.ldexp(magnitude, -exponent) * cost)


def _filtered(image: Array, weights: tuple[float, ...]) -> Array:
    """Correlation of an image (height, width) with one odd filter along rows, then along columns, mirror-padded."""
    reach = len(weights) // 2
    for _ in range(2):
        padded = np.pad(image, ((0, 0), (reach, reach)), mode="reflect")
        total = np.zeros_like(image)
        for k, weight in enumerate(weights):
            total += weight * padded[:, k : k + image.shape[1]]
        image = total.T
    return image
