"""Figures of sets of pictures and their intervals, on rows of features (pictures, features). numpy and scipy only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hefw.models.frechet import between, moments

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

RESAMPLES = 200
LEVEL = 0.95
#: Standard deviations that a 95 % interval of a normal distribution reaches.
Z = 1.959963984540054
#: Rows whose distances to all others are held at once.
CHUNK = 500
DATA_RANGE = 2.0  # of pictures, black -1 and white 1


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """Of many distances the smallest, the 5 % quantile and the median."""

    smallest: float
    low: float
    median: float


def share(hits: int, count: int) -> Interval:
    """A share of `count` with Wilson's score interval (Wilson 1927)."""
    value = hits / count
    scale = 1 + Z**2 / count
    middle = (value + Z**2 / (2 * count)) / scale
    half = Z / scale * math.sqrt(value * (1 - value) / count + Z**2 / (4 * count**2))
    return Interval(value, max(0.0, min(value, middle - half)), min(1.0, max(value, middle + half)))


def fewest(features: int) -> int:
    """The rows that it takes for a covariance of full rank."""
    return features + 1


def frechet(rows: Array, real: Array, seed: int) -> Interval:
    """The Fréchet distance of `rows` to `real`, with a bootstrap interval over `rows`; `real` is kept as it is.

    Resampled rows repeat, which biases the distance upwards once more than few rows do: the resampled distances are
    moved so that their mean is the figure. The interval is for as many rows as there are, not for infinitely many.
    """
    mean, covariance = moments(real)
    value = between(*moments(rows), mean, covariance)
    rng = np.random.default_rng([seed, len(rows)])
    picks = (rng.integers(len(rows), size=len(rows)) for _ in range(RESAMPLES))
    found = np.array([between(*moments(rows[pick]), mean, covariance) for pick in picks])
    low, high = value + np.quantile(found - found.mean(), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, max(0.0, float(low)), float(high))


def diversity(rows: Array, labels: Labels) -> float | None:
    """The mean distance of two rows of one label, over pairs, then over the labels that have two rows or more.

    None where no label has. 0 where all pictures of a label are the same (mode collapse).
    """
    means = []
    for label in np.unique(labels):
        own = rows[labels == label]
        if (count := len(own)) > 1:
            total = sum(float(np.sqrt(part).sum()) for part in _squares(own, own))
            means.append(total / (count * (count - 1)))
    return float(np.mean(means)) if means else None


def nearest(rows: Array, training: Array, *, others: bool = False) -> tuple[Array, NDArray[np.intp]]:
    """Of each row the distance to the nearest training row, and which that is.

    `others`: rows are the training rows themselves, in order, and the nearest other one is meant.
    """
    distances, indices, start = [], [], 0
    for squares in _squares(rows, training):
        if others:
            squares[np.arange(len(squares)), start + np.arange(len(squares))] = np.inf
        start += len(squares)
        index = squares.argmin(1)
        distances.append(np.sqrt(squares[np.arange(len(squares)), index]))
        indices.append(index)
    return np.concatenate(distances), np.concatenate(indices)


def spread(distances: Array) -> Spread:
    """Of distances (pictures,)."""
    smallest, low, median = np.quantile(distances, [0, 0.05, 0.5])
    return Spread(float(smallest), float(low), float(median))


def psnr(images: Array, twins: Array) -> Array:
    """PSNR in dB of each image (images, ...) against its twin, data range 2; infinite where they are equal."""
    errors = np.mean((images - twins).reshape(len(images), -1) ** 2, axis=1)
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(DATA_RANGE**2 / errors))


def _squares(rows: Array, others: Array) -> Iterator[Array]:
    """Squared distances of rows to others, in parts of `CHUNK` rows."""
    norms = np.square(others).sum(1)
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        yield np.maximum(np.square(some).sum(1)[:, None] + norms - 2 * some @ others.T, 0)
