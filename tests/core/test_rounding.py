"""Rounding of real vectors: half as much in the real parts, and imaginary parts that do not add up."""

from __future__ import annotations

import numpy as np
import pytest

from hefw.core.noise import NoiseModel
from hefw.core.rounding import RealRounding

N = 1024
SLOTS = N // 2
SCALE = 2.0**14


def places(generator: int) -> np.ndarray:
    return np.array([pow(generator, j, 2 * N) for j in range(SLOTS)])


def encoded(values: np.ndarray, generator: int) -> np.ndarray:
    """The whole coefficients that a library makes of slots, by the definition."""
    roots = np.exp(1j * np.pi * np.outer(places(generator), np.arange(N)) / N)
    return np.round(2 / N * (np.conj(roots).T @ values).real * SCALE)


def decoded(coefficients: np.ndarray, generator: int) -> np.ndarray:
    return np.exp(1j * np.pi * np.outer(places(generator), np.arange(N)) / N) @ coefficients / SCALE


@pytest.mark.parametrize(("generator", "alternating"), [(3, True), (5, False)])
def test_differences_of_coefficients_are_rounded_by_themselves(generator, alternating) -> None:
    values = np.random.default_rng(1).uniform(-1, 1, SLOTS)
    rounding = RealRounding(SLOTS, alternating=alternating)
    whole = encoded(rounding.prepare(values, SCALE), generator)
    exact = 2 / N * (np.exp(-1j * np.pi * np.outer(np.arange(N), places(generator)) / N) @ values).real * SCALE
    assert np.abs(whole[1:] - whole[:0:-1] - 2 * exact[1:]).max() <= 0.5 + 1e-6
    model, error = NoiseModel(N), (decoded(whole, generator) - values) * SCALE
    plain = (decoded(encoded(values, generator), generator) - values) * SCALE
    assert np.std(plain.real) == pytest.approx(model.encode, rel=0.2)
    assert np.abs(plain.imag).max() < 1e-6
    assert np.std(error.real) == pytest.approx(model.encode_real, rel=0.2)
    assert np.std(error.imag) == pytest.approx(model.encode_real_imaginary, rel=0.2)


def test_what_is_exact_stays_exact() -> None:
    rounding = RealRounding(SLOTS, alternating=True)
    for values in (np.zeros(SLOTS), np.full(SLOTS, 0.5)):
        whole = encoded(rounding.prepare(values, SCALE), 3)
        assert np.array_equal(whole, encoded(values, 3))


def test_the_same_values_are_prepared_alike_and_others_with_other_signs() -> None:
    rounding = RealRounding(SLOTS, alternating=True)
    a, b = np.random.default_rng(2).normal(size=(2, SLOTS))
    assert np.array_equal(rounding.prepare(a, SCALE), rounding.prepare(a.copy(), SCALE))
    one, other = rounding.prepare(a, SCALE).imag, rounding.prepare(b, SCALE).imag
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.2
    assert np.array_equal(rounding.prepare(a, SCALE).real, a)
