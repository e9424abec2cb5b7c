"""HILL distortion is the published one: the same as by convolutions with kernels over all channels, as in the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hefw.strategies.distortion import distortion

Array = NDArray[np.float64]


def published(latent: Array) -> Array:
    """By torch, with the published kernels: one for each pair of channels."""
    x = torch.from_numpy(latent)[None]
    pairs = (len(latent), len(latent), 1, 1)

    def convolved(image: torch.Tensor, kernel: list[list[float]]) -> torch.Tensor:
        weights = torch.tensor(kernel, dtype=torch.float64).repeat(*pairs)
        padded = torch.nn.functional.pad(image, [len(kernel) // 2] * 4, mode="reflect")
        return torch.nn.functional.conv2d(padded, weights)

    high = convolved(x, [[-1, 2, -1], [2, -4, 2], [-1, 2, -1]]).abs()
    mean = convolved(high, [[1 / 9] * 3] * 3)
    reciprocal = torch.where(mean == 0, 0.0, 1 / mean)
    return (x.abs() * convolved(reciprocal, [[1 / 225] * 15] * 15))[0].numpy()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 17), (4, 64, 64), (16, 12, 8)])
def test_it_is_the_published_one(shape: tuple[int, int, int]) -> None:
    latent = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_allclose(distortion(latent), published(latent), rtol=1e-10)


def test_pictures_smaller_than_a_kernel_are_reflected_again_and_again() -> None:
    """As a picture made large enough by hand, of which the middle is read."""
    small = np.random.default_rng(1).normal(size=(2, 3, 5))
    large = np.pad(small, ((0, 0), (16, 16), (16, 16)), mode="reflect")
    np.testing.assert_allclose(distortion(small), published(large)[:, 16:19, 16:21], rtol=1e-10)


def test_it_does_not_depend_on_the_unit() -> None:
    latent = np.random.default_rng(2).normal(size=(4, 8, 8))
    for exponent in (-1040, -3, 1000):
        assert np.isfinite(distortion(np.ldexp(latent, exponent))).all()
    for exponent in (-900, -3, 1000):
        assert np.array_equal(distortion(np.ldexp(latent, exponent)), distortion(latent))


def test_entries_next_to_nothing_do_not_overflow() -> None:
    latent = np.full((1, 40, 40), 1e-310)
    latent[0, 0, 0] = 1.0
    latent[0, 20:, 20:] *= np.random.default_rng(3).normal(size=(20, 20))
    assert np.isfinite(distortion(latent)).all()


@pytest.mark.parametrize("value", [0.0, -1.0, 0.1, 1e300])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (4, 16, 16)])
def test_one_value_everywhere_costs_nothing(value: float, shape: tuple[int, int, int]) -> None:
    assert not distortion(np.full(shape, value)).any()


def test_what_only_rounding_makes_rough_costs_nothing() -> None:
    """A slope has no high-pass response, but for the rounding of its values: their reciprocals would rule all."""
    down, across = np.indices((12, 20))
    slope = 0.1 * down + 0.7 / 3 * across
    assert not distortion(np.stack([slope, -3 * slope, slope / 7])).any()
