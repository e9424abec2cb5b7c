"""The Fréchet distance of two sets of features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Added to every variance, so that a feature that never varies is harmless.
RIDGE = 1e-6


def frechet_distance(a: Array, b: Array) -> float:
    """Fréchet distance of the Gaussians fitted to rows (pictures, features), as in Heusel et al. 2017, equation 6.

    In squared units of the features. Few rows bias it upwards: compare equal numbers only.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"rows of shapes {a.shape} and {b.shape}: expected (pictures, features) with equal features")
    return between(*moments(a), *moments(b))


def moments(rows: Array) -> tuple[Array, Array]:
    """The mean (features,) and the covariance (features, features), ridge included, of rows (pictures, features)."""
    return rows.mean(0), np.atleast_2d(np.cov(rows.T)) + RIDGE * np.eye(rows.shape[1])


def between(mean_a: Array, covariance_a: Array, mean_b: Array, covariance_b: Array) -> float:
    """The distance of two Gaussians; 0 where roundings would take it below."""
    from scipy.linalg import sqrtm

    root = np.real(sqrtm(covariance_a @ covariance_b))
    return max(0.0, float(np.square(mean_a - mean_b).sum() + np.trace(covariance_a + covariance_b - 2 * root)))
