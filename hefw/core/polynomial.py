"""Polynomials written with squares and linear combinations only: what CKKS does cheaply.

A polynomial of degree 2m is c q^2 + r with q monic of degree m and r of degree at most m - 1 (the polynomial part of
its square root). Applied again to q and r, any polynomial of degree d takes ceil(log2 d) squares in depth. An odd
degree, or a leading coefficient close to zero, is mended by a power that is added and subtracted again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hefw.core.errors import GraphError

Array = NDArray[np.float64]

#: Above this degree the coefficients of nested square roots lose too many digits.
MAX_DEGREE = 16
#: A leading coefficient below this share of the largest would make the square root's coefficients as much larger.
SMALL_LEAD = 1 / 64


def trim(coefficients: Array) -> Array:
    """Without leading coefficients that are zero for all entries; at least one row remains. (degree + 1, features)."""
    nonzero = np.flatnonzero(coefficients.any(axis=1))
    return coefficients[: nonzero[-1] + 1] if len(nonzero) else coefficients[:1]


def complete_square(coefficients: Array) -> tuple[Array, Array, Array]:
    """a x^2 + b x + c = scale (x + shift)^2 + constant, entry by entry: (scale, shift, constant), each (features,)."""
    c, b, a = coefficients
    if not a.all():
        raise GraphError("a square can only be completed where the quadratic coefficient is not zero")
    shift = b / (2 * a)
    return a, shift, c - a * shift**2


def without_small_lead(coefficients: Array) -> tuple[Array, Array] | None:
    """Two polynomials of even degree that add up to one of odd degree or of a small leading coefficient, else None.

    Neither has a small leading coefficient; the second is a power.
    """
    largest = np.abs(coefficients).max(axis=0)
    if len(coefficients) % 2 and (np.abs(coefficients[-1]) >= SMALL_LEAD * largest).all():
        return None
    if len(coefficients) % 2 == 0:
        coefficients = np.concatenate([coefficients, np.zeros((1, coefficients.shape[1]))])
    lead = np.where(largest > 0, largest, 1) * np.where(coefficients[-1] < 0, -1, 1)
    power = np.zeros_like(coefficients)
    power[-1] = lead
    return coefficients + power, -power


def square_root(coefficients: Array) -> tuple[Array, Array, Array]:
    """p = lead * q^2 + r of even degree 2m: (lead (features,), monic q (m + 1, features), r (m, features)).

    GraphError if the leading coefficient is zero for some entries but not for others.
    """
    degree = len(coefficients) - 1
    half = degree // 2
    lead = coefficients[-1]
    if degree % 2 or half < 1:
        raise GraphError(f"a polynomial of degree {degree} has no square root part; the degree must be even")
    if not lead.all():
        raise GraphError(
            f"the coefficient of degree {degree} is zero for some channels only; give all channels one degree"
        )
    monic = coefficients / lead
    q = np.zeros((half + 1, coefficients.shape[1]))
    q[half] = 1
    for k in range(1, half + 1):  # coefficient of x^(2m - k) of q^2 must be that of p
        known = sum(q[half - i] * q[half - k + i] for i in range(1, k))
        q[half - k] = (monic[degree - k] - known) / 2
    squared = np.zeros_like(monic)
    for i in range(half + 1):
        squared[i : i + half + 1] += q[i] * q
    return lead, q, (coefficients - lead * squared)[:half]


def evaluate(coefficients: Array, x: Array) -> Array:
    """The polynomial at x (images, features), by Horner's rule."""
    result = np.zeros_like(x)
    for coefficient in coefficients[::-1]:
        result = result * x + coefficient
    return result
