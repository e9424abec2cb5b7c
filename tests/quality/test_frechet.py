"""The Fréchet distance where it is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hefw.models.frechet import frechet_distance

ROWS = np.random.default_rng(0).normal(size=(500, 6))


def test_equal_rows_are_at_no_distance() -> None:
    assert frechet_distance(ROWS, ROWS) == pytest.approx(0, abs=1e-6)


@given(shift=st.floats(-3, 3), scale=st.floats(0.2, 4))
def test_gaussians_in_closed_form(shift: float, scale: float) -> None:
    """Shifted rows: the squared distance of means. Scaled ones: (scale - 1)^2 times the trace of the covariance."""
    moved = ROWS.mean(0) + scale * (ROWS - ROWS.mean(0)) + shift
    expected = 6 * shift**2 + (scale - 1) ** 2 * np.trace(np.cov(ROWS.T))
    assert frechet_distance(ROWS, moved) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert frechet_distance(moved, ROWS) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_constant_features_are_harmless() -> None:
    padded = np.pad(ROWS, ((0, 0), (0, 3)))
    assert frechet_distance(padded, padded + 1) == pytest.approx(9, abs=1e-3)


def test_unlike_features_are_refused() -> None:
    with pytest.raises(ValueError, match="equal features"):
        frechet_distance(np.zeros((3, 4)), np.zeros((3, 5)))
