"""Polynomials by squares: the identities behind the passes hold to rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hefw.core.errors import GraphError
from hefw.core.polynomial import complete_square, evaluate, square_root, trim

X = np.linspace(-1.5, 1.5, 7)[:, None] * np.ones(3)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_completed_square_is_the_quadratic(seed) -> None:
    rng = np.random.default_rng(seed)
    c = rng.normal(size=(3, 3))
    c[2] = rng.choice([-1, 1], size=3) * rng.uniform(0.1, 2, size=3)
    scale, shift, constant = complete_square(c)
    assert np.allclose(scale * (X + shift) ** 2 + constant, evaluate(c, X))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4, 6, 8, 16]))
def test_lead_times_squared_root_plus_rest_is_the_polynomial(seed, degree) -> None:
    rng = np.random.default_rng(seed)
    c = rng.normal(size=(degree + 1, 3))
    c[-1] = rng.choice([-1, 1], size=3) * rng.uniform(0.5, 2, size=3)
    lead, q, rest = square_root(c)
    assert (q[-1] == 1).all()
    assert len(q) == degree // 2 + 1
    assert len(rest) == degree // 2
    found = lead * evaluate(q, X) ** 2 + evaluate(rest, X)
    expected = evaluate(c, X)
    assert np.abs(found - expected).max() <= 1e-6 * max(1, np.abs(evaluate(q, X)).max() ** 2)


def test_evaluate_agrees_with_numpy() -> None:
    c = np.array([[1.0], [-2], [0.5], [3]])
    assert np.allclose(evaluate(c, X[:, :1])[:, 0], np.polynomial.polynomial.polyval(X[:, 0], c[:, 0]))


def test_trim_keeps_a_degree_that_any_channel_has() -> None:
    assert len(trim(np.array([[1.0, 1], [0, 2], [0, 0]]))) == 2
    assert trim(np.zeros((4, 2))).tolist() == [[0, 0]]


def test_a_missing_leading_coefficient_is_named() -> None:
    with pytest.raises(GraphError, match="degree 4 is zero for some channels only"):
        square_root(np.array([[1.0, 1]] * 4 + [[1, 0]]))
    with pytest.raises(GraphError, match="must be even"):
        square_root(np.ones((4, 2)))
    with pytest.raises(GraphError, match="not zero"):
        complete_square(np.array([[1.0, 1], [1, 1], [0, 1]]))
