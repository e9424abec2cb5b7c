"""Figures of sets of pictures, where they are known otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hefw.models.frechet import frechet_distance
from hefw.quality import statistics

RNG = np.random.default_rng(0)


def test_the_interval_of_a_distance_holds_its_figure() -> None:
    real, rows = RNG.normal(size=(2000, 5)), RNG.normal(size=(120, 5)) + 0.3
    found = statistics.frechet(rows, real, 0)
    assert found.value == pytest.approx(frechet_distance(rows, real))
    assert found.low < found.value < found.high
    assert statistics.frechet(rows, real, 0) == found
    assert statistics.frechet(rows, real, 1) != found


def test_intervals_of_distances_cover_what_as_many_rows_give_on_average() -> None:
    """Of 60 sets, about 57 should; bootstrap intervals of so few rows are a little narrow."""
    rng = np.random.default_rng(1)
    real = rng.normal(size=(4000, 3))
    sets = [rng.normal(size=(80, 3)) * 1.2 + 0.4 for _ in range(60)]
    found = [statistics.frechet(rows, real, k) for k, rows in enumerate(sets)]
    expected = np.mean([frechet_distance(rng.normal(size=(80, 3)) * 1.2 + 0.4, real) for _ in range(400)])
    covered = sum(interval.low <= expected <= interval.high for interval in found)
    assert covered >= 50


@given(st.integers(1, 2000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_shares_lie_in_their_intervals(hits_of: tuple[int, int]) -> None:
    hits, count = hits_of
    found = statistics.share(hits, count)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low < 4 / np.sqrt(count)


def test_a_share_as_tabulated() -> None:
    """Newcombe 1998, table I, method 3: 81 of 263, and 0 of 20."""
    found = statistics.share(81, 263)
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert statistics.share(0, 20).high == pytest.approx(0.1611, abs=5e-5)


def test_diversity_is_the_mean_distance_within_a_label() -> None:
    rows, labels = RNG.normal(size=(40, 4)), np.arange(40) % 3
    pairs = [
        [np.linalg.norm(rows[i] - rows[j]) for i in range(40) for j in range(i) if labels[i] == labels[j] == label]
        for label in range(3)
    ]
    assert statistics.diversity(rows, labels) == pytest.approx(np.mean([np.mean(own) for own in pairs]))
    assert statistics.diversity(np.ones((6, 4)), np.arange(6) % 2) == pytest.approx(0, abs=1e-6)
    assert statistics.diversity(rows[:3], np.arange(3)) is None


def test_nearest_rows_are_those_of_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "CHUNK", 7)
    rows, training = RNG.normal(size=(20, 3)), RNG.normal(size=(50, 3))
    table = np.linalg.norm(rows[:, None] - training, axis=2)
    distances, indices = statistics.nearest(rows, training)
    assert distances == pytest.approx(table.min(1))
    assert indices.tolist() == table.argmin(1).tolist()


def test_a_row_is_not_its_own_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "CHUNK", 7)
    rows = RNG.normal(size=(20, 3))
    table = np.linalg.norm(rows[:, None] - rows, axis=2) + np.diag(np.full(20, np.inf))
    distances, indices = statistics.nearest(rows, rows, others=True)
    assert distances == pytest.approx(table.min(1))
    assert indices.tolist() == table.argmin(1).tolist()


def test_psnr_is_that_of_each_image() -> None:
    twins = np.zeros((3, 1, 2, 2))
    images = twins + np.array([0.2, 0.02, 0]).reshape(3, 1, 1, 1)
    assert statistics.psnr(images, twins).tolist() == pytest.approx([20, 40, np.inf])
