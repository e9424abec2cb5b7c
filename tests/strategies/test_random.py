"""`random` encrypts a stated share, at places that do not depend on the picture."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from hefw.core.errors import EncodingError
from hefw.strategies.base import Strategy
from hefw.strategies.plugin import RandomOptions
from hefw.strategies.random import Random
from hefw.testing import StrategyConformance

SHAPES = [(1, 1, 1), (3, 5, 7), (4, 64, 64)]


def selection(latent: NDArray[np.float64], fraction: float = 0.5, seed: int = 0) -> NDArray[np.bool_]:
    return Random(RandomOptions(fraction=fraction, seed=seed)).select(latent)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_places_are_those_of_the_seed_and_the_shape(shape: tuple[int, int, int]) -> None:
    noise = np.random.default_rng(1).normal(size=shape)
    assert np.array_equal(selection(noise), selection(np.zeros(shape)))


def test_another_seed_has_other_places() -> None:
    latent = np.zeros((4, 16, 16))
    assert not np.array_equal(selection(latent, seed=0), selection(latent, seed=1))


@pytest.mark.parametrize(("fraction", "count"), [(0, 0), (0.001, 1), (0.29, 29), (0.5, 50), (0.505, 51), (1, 100)])
def test_the_share_is_exact_and_rounded_up(fraction: float, count: int) -> None:
    assert np.count_nonzero(selection(np.zeros((4, 5, 5)), fraction)) == count


def test_a_larger_share_adds_places() -> None:
    latent = np.zeros((3, 12, 8))
    assert not (selection(latent, 0.2) & ~selection(latent, 0.6)).any()


def test_places_are_spread_evenly() -> None:
    """A half of each channel and of each quarter of the picture, within five standard deviations (0.011 at most)."""
    found = selection(np.zeros((4, 64, 64)))
    assert np.abs(found.mean(axis=(1, 2)) - 0.5).max() < 0.04
    assert np.abs(found.reshape(4, 2, 32, 2, 32).mean(axis=(0, 2, 4)) - 0.5).max() < 0.04


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(EncodingError, match=r"^1 of 8 entries of a latent are not finite; allowed: finite numbers"):
        selection(np.array([[[0, 1, 2, np.nan], [0, 0, 0, 0]]]))


class TestRandom(StrategyConformance):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return Random(RandomOptions())
