"""Metrics by values that are known, and intervals by their coverage."""

from __future__ import annotations

import numpy as np
import pytest

from hefw.audit.metrics import as_picture, gradient_distance, psnr, ssim
from hefw.audit.statistics import Bootstrap

RNG = np.random.default_rng(0)
PICTURES = np.tanh(2 * RNG.normal(size=(6, 1, 16, 16)).cumsum(axis=2).cumsum(axis=3) / 8)


def test_psnr_of_known_errors() -> None:
    truth = np.zeros((2, 1, 4, 4))
    found = truth + np.array([0.2, 0.02]).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(psnr(found, truth), [20.0, 40.0])


def test_a_picture_as_it_is_written_is_the_closest_guess() -> None:
    written = as_picture(PICTURES)
    assert np.abs(written - PICTURES).max() <= 1 / 255
    assert (psnr(PICTURES, PICTURES) == psnr(PICTURES, PICTURES).max()).all()
    assert psnr(written, PICTURES).mean() == pytest.approx(58.9, abs=0.5)
    assert as_picture(np.array([np.nan, -7.0, 7.0])).tolist() == [pytest.approx(1 / 255), -1.0, 1.0]


@pytest.mark.parametrize(("metric", "alike", "sign"), [(ssim, 1.0, 1), (gradient_distance, 0.0, -1), (psnr, 70.0, 1)])
def test_metrics_fall_with_noise(metric: object, alike: float, sign: int) -> None:
    assert callable(metric)
    noise = np.random.default_rng(1).normal(size=PICTURES.shape)
    found = [sign * float(metric(PICTURES + size * noise, PICTURES).mean()) for size in (0.0, 0.05, 0.2, 0.8)]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 4
    if metric is not psnr:
        assert found[0] == pytest.approx(sign * alike)


def test_wrong_everywhere_is_farther_than_wrong_in_one_place() -> None:
    """Which the deviation of gradient similarity has the other way round."""
    flat = np.zeros_like(PICTURES)
    half = PICTURES.copy()
    half[:, :, :, 8:] = 0
    assert (gradient_distance(flat, PICTURES) > gradient_distance(half, PICTURES)).all()


def test_small_and_coloured_pictures() -> None:
    small = np.random.default_rng(2).uniform(-1, 1, size=(3, 3, 4, 5))
    np.testing.assert_allclose(ssim(small, small), 1.0)
    np.testing.assert_allclose(gradient_distance(small, small), 0.0, atol=1e-12)
    assert np.isnan(ssim(small[:, :, :2, :2], small[:, :, :2, :2])).all()


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    held, bootstrap = 0, Bootstrap(80, 0)
    for seed in range(200):
        values = np.random.default_rng(seed).normal(1.0, 2.0, size=80)
        mean, low, high = bootstrap.mean(values)
        assert low < mean < high
        held += low <= 1.0 <= high
    assert 176 <= held < 200


def test_differences_are_found_where_there_are_some_and_not_where_chance_is() -> None:
    bootstrap = Bootstrap(100, 0)
    draws = [np.random.default_rng(seed).normal(size=100) for seed in range(60)]
    assert sum(bootstrap.beyond(values, 20) for values in draws) <= 2
    assert sum(bootstrap.beyond(values + 0.6, 20) for values in draws) >= 58


def test_leak_is_0_and_1_at_its_ends() -> None:
    bootstrap = Bootstrap(50, 0)
    nothing, everything = np.random.default_rng(0).normal(10, 1, 50), np.full(50, 60.0)
    assert bootstrap.leak(nothing, nothing, everything) == (0.0, 0.0, 0.0)
    assert bootstrap.leak(everything, nothing, everything) == (1.0, 1.0, 1.0)
    found = bootstrap.leak((nothing + everything) / 2, nothing, everything)
    assert found is not None
    np.testing.assert_allclose(found, 0.5)
    assert bootstrap.leak(nothing - 5, nothing, everything) == (0.0, 0.0, 0.0)
    assert bootstrap.leak(nothing, everything, nothing) is None
