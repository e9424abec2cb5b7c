"""Medians of few runs, and intervals that hold whatever the runs' distribution is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from pydantic import Field

from hefw.bench.measurement import Part

LEVEL = 0.95


class Interval(Part):
    """A median with an interval between two of the runs, which covers the true median at `coverage` at least.

    The narrowest such interval of 95 % where there are enough runs (6), else from the least to the most.
    """

    median: float
    low: float
    high: float
    coverage: float = Field(ge=0, le=1, description="probability, for independent runs; 0 for a single one")
    runs: int = Field(ge=1)


def interval(values: Sequence[float]) -> Interval:
    """Of one value a run, by order statistics: no distribution is assumed (David and Nagaraja 2003, section 7.1)."""
    ordered = sorted(values)
    count = len(ordered)
    best, coverage = 0, _coverage(count, 0)
    for inner in range(1, count // 2):
        if (covers := _coverage(count, inner)) < LEVEL:
            break
        best, coverage = inner, covers
    return Interval(
        median=statistics.median(ordered),
        low=ordered[best],
        high=ordered[count - 1 - best],
        coverage=coverage,
        runs=count,
    )


def _coverage(count: int, inner: int) -> float:
    """Of the interval from the (inner + 1)-th least to the (inner + 1)-th most of `count` values."""
    outside = sum(math.comb(count, k) for k in range(inner + 1)) / 2**count
    return float(max(0.0, 1 - 2 * outside))
