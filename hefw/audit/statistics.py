"""Means over images with bootstrap intervals, paired differences, and leaks between two ends."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
#: (mean, lower end, upper end) of an interval.
Interval = tuple[float, float, float]

RESAMPLES = 10_000
LEVEL = 0.95


class Bootstrap:
    """Resamples of the images, drawn once, so that all figures of an audit are compared on the same ones.

    Percentile intervals (Efron and Tibshirani 1993, chapter 13). With `comparisons` in a family, those of `beyond` are
    wider (Bonferroni), so that a strategy that leaks nothing is found to leak in 2.5 % of audits, not in half of them.
    """

    def __init__(self, images: int, seed: int) -> None:
        rng = np.random.default_rng([seed, images])
        self._weights = rng.multinomial(images, np.full(images, 1 / images), RESAMPLES) / images

    def mean(self, values: Array) -> Interval:
        """Of one figure an image, (images,)."""
        return _interval(float(values.mean()), self._weights @ values)

    def beyond(self, differences: Array, comparisons: int) -> bool:
        """Whether the mean of paired differences, (images,), is above 0 by more than chance."""
        tail = (1 - LEVEL) / 2 / comparisons
        return bool(np.quantile(self._weights @ differences, tail) > 0)

    def leak(self, found: Array, nothing: Array, everything: Array) -> Interval | None:
        """Where a figure stands between its two ends, 0 to 1; None where these cannot be told apart."""
        span = float(everything.mean() - nothing.mean())
        if span <= 0:
            return None
        samples = [self._weights @ values for values in (found, nothing, everything)]
        spans = np.maximum(samples[2] - samples[1], 1e-9)
        shares = np.clip((samples[0] - samples[1]) / spans, 0, 1)
        return _interval(float(np.clip((found.mean() - nothing.mean()) / span, 0, 1)), shares)


def _interval(mean: float, samples: Array) -> Interval:
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return mean, float(low), float(high)
