"""Sparse matrices by their distinct rows: dense arithmetic, one form for equal matrices, and sizes of layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hefw.core import rows
from hefw.core.errors import GraphError
from hefw.core.sparse import SparseMatrix

seeds = st.integers(0, 2**32 - 1)


def structured(rng: np.random.Generator, channels: int, places: int) -> np.ndarray:
    """Blocks of shifted rows, as convolutions have, with some zeros and repeated values."""
    width = int(rng.integers(1, places + 1))
    kernel = rng.integers(-2, 3, size=(channels, channels, width)).astype(float)
    dense = np.zeros((channels * places, channels * places))
    for place in range(places):
        for tap in range(width):
            read = place + tap - width // 2
            if 0 <= read < places:
                dense[place::places, read::places] = kernel[:, :, tap]
    return dense


def any_matrix(rng: np.random.Generator, shape: tuple[int, int] | None = None) -> np.ndarray:
    if shape is None and rng.random() < 0.7:
        return structured(rng, int(rng.integers(1, 4)), int(rng.integers(1, 7)))
    size = shape or (int(rng.integers(1, 12)), int(rng.integers(1, 12)))
    return rng.normal(size=size) * (rng.random(size) < rng.choice([0.0, 0.1, 0.5, 1.0]))


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_arithmetic_is_dense_arithmetic(seed) -> None:
    rng = np.random.default_rng(seed)
    a = any_matrix(rng)
    b = any_matrix(rng, (a.shape[1], int(rng.integers(1, 12))))
    c = any_matrix(rng, a.shape) if rng.random() < 0.5 else -a * (rng.random(a.shape) < 0.5)
    factors = rng.choice([0.0, 1.0, -2.5], size=a.shape[1]) if rng.random() < 0.5 else rng.normal(size=a.shape[1])
    x, many = rng.normal(size=a.shape[1]), rng.normal(size=(a.shape[1], 3))
    left, right, other = (SparseMatrix.from_dense(m) for m in (a, b, c))
    assert np.array_equal(left.dense(), a)
    assert np.allclose(left @ x, a @ x)
    assert np.allclose(left @ many, a @ many)
    assert np.allclose(left.compose(right).dense(), a @ b)
    assert np.allclose(left.plus(other).dense(), a + c)
    assert np.allclose(left.scale_columns(factors).dense(), a * factors)
    assert np.allclose(left.times(0.5).dense(), a / 2)
    assert left.times(0).count == 0
    for found, expected in ((left.plus(other), a + c), (left.scale_columns(factors), a * factors)):
        assert found.fingerprint == SparseMatrix.from_dense(expected).fingerprint  # one form, however it was made


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_entries_are_kept_in_order_and_to_the_bit(seed) -> None:
    rng = np.random.default_rng(seed)
    dense = any_matrix(rng)
    row, column = np.nonzero(dense)
    order = rng.permutation(len(row))
    made = SparseMatrix.from_entries(dense.shape, row[order], column[order], dense[row, column][order])
    assert np.array_equal(made.row, row)
    assert np.array_equal(made.column, column)
    assert np.array_equal(made.values.view(np.uint64), dense[row, column].view(np.uint64))
    assert made.count == len(row)
    assert made.fingerprint == SparseMatrix.from_dense(dense).fingerprint


def test_signs_of_zero_and_given_zeros_are_kept() -> None:
    made = SparseMatrix.from_entries((1, 3), np.zeros(3, int), np.arange(3), np.array([0.0, -0.0, 1.0]))
    assert made.count == 3
    assert np.signbit(made.values).tolist() == [False, True, False]


def test_a_layer_takes_its_kernel_and_not_its_places() -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 4, 3))
    dense = np.zeros((4 * 100, 4 * 100))
    for place in range(100):
        for tap in range(max(0, 1 - place), min(3, 101 - place)):
            dense[place::100, place + tap - 1 :: 100] = kernel[:, :, tap]
    matrix = SparseMatrix.from_dense(dense)
    assert len(matrix.weights) == 4 * 4 * (3 + 2 + 2)  # inside, and the two ends
    assert len(matrix.offsets) == 4 * (3 + 2)  # both ends read alike
    twice = matrix.compose(matrix)
    assert len(twice.weights) <= 4 * 4 * (3 + 4 + 5 + 4 + 3)
    assert len(matrix.scale_columns(np.repeat(rng.normal(size=4), 100)).weights) == len(matrix.weights)


def test_products_of_more_numbers_than_are_gathered_at_once(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    monkeypatch.setattr("hefw.core.sparse.CHUNK", 7)
    for dense in (structured(rng, 3, 6), rng.normal(size=(9, 5))):
        x = rng.normal(size=(dense.shape[1], 4))
        assert np.allclose(SparseMatrix.from_dense(dense) @ x, dense @ x)


def test_rows_of_one_key_are_told_apart(monkeypatch) -> None:
    monkeypatch.setattr(rows, "_multipliers", lambda length: np.zeros(length, dtype=np.uint64))
    dense = np.random.default_rng(0).integers(0, 2, size=(30, 6)).astype(float)
    assert np.array_equal(SparseMatrix.from_dense(dense).dense(), dense)
    found = rows.distinct(dense)
    assert np.array_equal(dense[found.first][found.kind], dense)
    assert len(found.first) == len(np.unique(dense, axis=0))
    assert (np.diff(found.first) > 0).all()


@pytest.mark.parametrize(
    ("row", "column", "values", "expected"),
    [
        ([4], [0], [1], r"indices outside \(4, 4\)"),
        ([0], [-1], [1], r"indices outside \(4, 4\)"),
        ([0], [1], [np.inf], "not finite"),
        ([0, 0], [1, 1], [1, 2], "gives a place twice"),
        ([0, 1], [1], [1], "as many rows and columns as values"),
    ],
)
def test_entries_that_are_no_matrix_are_refused(row, column, values, expected) -> None:
    with pytest.raises(GraphError, match=expected):
        SparseMatrix.from_entries((4, 4), np.array(row), np.array(column), np.array(values, dtype=float))


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("pattern", [0, 0, 5], "pattern that does not exist"),
        ("pattern", [0, 0], "do not fit: its patterns"),
        ("vector", [0, -1, 0], "vector that does not exist"),
        ("vector_start", [0, 3], "do not fit: its vectors"),
        ("pattern_start", [0, 1, 2], "more columns than values"),
        ("offsets", [0, 0], "place twice"),
        ("offsets", [1, 2], "place twice"),
        ("offsets", [0, 3], "indices outside"),
        ("first", [0, 1, 2], "indices outside"),
        ("first", [-1, 0, 0], "indices outside"),
        ("weights", [np.nan, 1.0], "not finite"),
    ],
)
def test_parts_that_do_not_fit_are_refused(field, value, expected) -> None:
    matrix = SparseMatrix.from_dense(np.array([[1.0, 2, 0], [0, 1, 2], [1, 2, 0]]))
    kind = np.float64 if field == "weights" else np.int64
    with pytest.raises(GraphError, match=expected):
        replace(matrix, **{field: np.array(value, dtype=kind)})


def test_more_entries_than_memory_holds_are_refused(monkeypatch) -> None:
    monkeypatch.setattr("hefw.core.sparse.MAX_ENTRIES", 8)
    with pytest.raises(GraphError, match="more than 8 entries"):
        SparseMatrix.from_dense(np.ones((3, 3)))


def test_shapes_that_do_not_meet_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be composed"):
        SparseMatrix.identity(2).compose(SparseMatrix.identity(3))
    with pytest.raises(ValueError, match="cannot be added"):
        SparseMatrix.identity(2).plus(SparseMatrix.identity(3))
