"""How a handwritten digit is drawn, measured: the width of its strokes and its slant."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]

#: Pixels are divided in so many before distances to the background are taken, along each side.
FINER = 4


def widths(images: Array) -> Array:
    """Mean width of the strokes in pixels, (images,), of pictures (images, 1, height, width), black -1 and white 1.

    In a stroke of width w the distances to the background are 0 to w / 2, w / 4 on average.
    """
    return np.array([_width(image[0]) for image in images])


def slants(images: Array) -> Array:
    """How far strokes lean to the right, (images,): columns a row upward, 0 upright, 1 at 45 degrees.

    It is the shear that makes rows and columns of the grey values uncorrelated, as digits are deslanted (LeCun et al.
    1998).
    """
    return np.array([_slant(image[0]) for image in images])


def _width(image: Array) -> float:
    finer = ndimage.zoom(image, FINER, order=1)
    inside = finer > 0
    if not inside.any():
        return 0.0
    return float(4 * ndimage.distance_transform_edt(inside)[inside].mean() / FINER)


def _slant(image: Array) -> float:
    weight = np.clip((image + 1) / 2, 0, 1)
    total = weight.sum()
    if not total:
        return 0.0
    rows, columns = np.indices(image.shape)
    down, right = rows - (weight * rows).sum() / total, columns - (weight * columns).sum() / total
    spread = (weight * down**2).sum()
    return float(-(weight * down * right).sum() / spread) if spread else 0.0
