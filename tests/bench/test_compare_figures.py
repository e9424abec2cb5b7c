"""What comparisons count with: intervals of medians, Pareto fronts, the order of runs, the time left."""

from __future__ import annotations

import datetime
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hefw.bench import schedule
from hefw.bench.charts import CYCLE, CYCLE_DARK, MARKERS, _look
from hefw.bench.expansion import Cell
from hefw.bench.front import front
from hefw.bench.intervals import interval
from hefw.bench.measurement import Measurement, Outcome
from hefw.config import Config


@pytest.mark.parametrize(
    ("runs", "low", "high", "coverage"),
    [
        (1, 0, 0, 0.0),
        (2, 0, 1, 0.5),
        (3, 0, 2, 0.75),
        (5, 0, 4, 0.9375),
        (6, 0, 5, 0.96875),  # the first with 95 %
        (8, 0, 7, 0.9921875),
        (9, 1, 7, 0.9609375),  # the outermost can be left out
        (20, 5, 14, 0.9586105),  # as in tables of the sign test
    ],
)
def test_intervals_are_the_narrowest_of_95_percent(runs: int, low: float, high: float, coverage: float) -> None:
    shuffled = np.random.default_rng(runs).permutation(runs).astype(float)
    found = interval(shuffled.tolist())
    assert (found.low, found.high, found.runs) == (low, high, runs)
    assert found.coverage == pytest.approx(coverage, abs=1e-6)
    assert found.median == (runs - 1) / 2


def test_intervals_cover_the_median_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    drawn = [interval(rng.exponential(size=7).tolist()) for _ in range(4000)]
    share = np.mean([found.low <= np.log(2) <= found.high for found in drawn])
    assert share == pytest.approx(drawn[0].coverage, abs=0.01)


costs = st.dictionaries(st.integers(0, 30), st.tuples(*[st.integers(0, 4)] * 3), min_size=1)


@given(costs)
def test_a_front_has_what_nothing_dominates_and_nothing_else(points: dict[int, tuple[int, ...]]) -> None:
    def dominates(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))

    chosen = front(points)
    assert chosen
    for name, own in points.items():
        assert (name in chosen) == (not any(dominates(other, own) for other in points.values()))
    for a, b in itertools.combinations(chosen, 2):
        assert not dominates(points[a], points[b])


def run(job: schedule.Job, seconds: float, outcome: Outcome = "measured") -> Measurement:
    return Measurement(
        digest=job.cell.digest,
        key={},
        seed=job.seed,
        repeat=job.repeat,
        outcome=outcome,
        reason=None,
        started=datetime.datetime.now(datetime.timezone.utc),
        seconds=seconds,
        peak_memory_bytes=1,
        measured=None,
    )


def test_the_time_left_is_that_of_the_same_cells_and_what_failed_is_not_tried_again() -> None:
    slow, fast = Cell(Config(steps=50)), Cell(Config(steps=1))
    every = list(schedule.jobs([slow, fast], 3, [0]))
    assert schedule.seconds_left(every, {}) is None
    kept = {every[0].name: run(every[0], 30.0)}
    left = schedule.todo(every, kept)
    assert len(left) == 5
    assert schedule.seconds_left(left, kept) == 5 * 30.0  # of the other nothing is known
    kept[every[1].name] = run(every[1], 2.0)
    assert schedule.seconds_left(schedule.todo(every, kept), kept) == 2 * 30.0 + 2 * 2.0
    kept[every[2].name] = run(every[2], 5.0, "over time")
    assert {job.cell.digest for job in schedule.todo(every, kept)} == {slow.digest}


@pytest.mark.parametrize("cycle", [CYCLE, CYCLE_DARK])
def test_more_values_than_colours_look_different(cycle) -> None:
    looks = [_look(place, cycle) for place in range(len(cycle) * len(MARKERS))]
    assert len(set(looks)) == len(looks)
    assert [marker for _, marker in looks[: len(cycle)]] == [MARKERS[0]] * len(cycle)
