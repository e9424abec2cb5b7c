"""Arrays and matrices as bytes: back to the bit, small where there is structure, and damage is refused."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hefw.core.errors import GraphError
from hefw.core.sparse import SparseMatrix
from hefw.core.storage import (
    Budget,
    Unpacker,
    narrow,
    pack,
    pack_columns,
    pack_matrix,
    pack_weights,
    unpack_columns,
    unpack_matrix,
    unpack_weights,
)

seeds = st.integers(0, 2**32 - 1)
numbers = arrays.arrays(np.int64, st.integers(0, 20), elements=st.integers(-(2**62), 2**62))


@settings(max_examples=100, deadline=None)
@given(st.lists(numbers | numbers.map(lambda a: a % 100), max_size=4))
def test_whole_numbers_come_back(given_arrays) -> None:
    data = Unpacker(pack(given_arrays), Budget())
    for array in given_arrays:
        assert np.array_equal(data.take(len(array)), array)
    assert data.done


def random_matrix(rng: np.random.Generator) -> SparseMatrix:
    rows, columns = (int(n) for n in rng.integers(1, 15, 2))
    dense = rng.normal(size=(rows, columns)) if rng.random() < 0.5 else rng.integers(-1, 2, (rows, columns)) * 0.1
    if rng.random() < 0.5:
        dense = dense.astype(np.float32).astype(float)
    dense = dense * (rng.random(dense.shape) < rng.random())
    if rng.random() < 0.5:  # shifted rows
        dense = np.kron(np.eye(int(rng.integers(1, 4))), dense)
    return SparseMatrix.from_dense(dense)


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_a_matrix_comes_back_to_the_bit(seed) -> None:
    matrix = random_matrix(np.random.default_rng(seed))
    weights, rows = pack_matrix(matrix)
    back = unpack_matrix(matrix.shape, narrow(weights).astype(float), rows, Budget())
    assert back.fingerprint == matrix.fingerprint
    assert np.array_equal(back.values.view(np.uint64), matrix.values.view(np.uint64))


@settings(max_examples=300, deadline=None)
@given(seeds, st.data())
def test_damaged_bytes_are_refused_or_another_matrix(seed, data) -> None:
    matrix = random_matrix(np.random.default_rng(seed))
    weights, rows = pack_matrix(matrix)
    damaged = rows.copy()
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(rows) - 1))] ^= data.draw(st.integers(1, 255))
    damaged = damaged[: data.draw(st.integers(len(rows) // 2, len(rows)))]
    try:
        found = unpack_matrix(matrix.shape, weights, damaged, Budget())
    except GraphError:
        return
    assert found.dense().shape == matrix.shape


def convolution(rng: np.random.Generator, channels: int, size: int) -> SparseMatrix:
    """A 3x3 convolution with padding, as a matrix."""
    kernel = rng.normal(size=(channels, channels, 3, 3))
    dense = np.zeros((channels, size, size, channels, size, size))
    for y in range(size):
        for x in range(size):
            for dy in range(max(0, 1 - y), min(3, size + 1 - y)):
                for dx in range(max(0, 1 - x), min(3, size + 1 - x)):
                    dense[:, y, x, :, y + dy - 1, x + dx - 1] = kernel[:, :, dy, dx]
    return SparseMatrix.from_dense(dense.reshape(channels * size * size, -1))


@pytest.mark.parametrize("size", [2, 4, 8])
def test_a_convolution_takes_little_more_than_its_kernel(size) -> None:
    """On 2x2 pixels no row has the whole kernel, on larger ones few rows have less."""
    matrix = convolution(np.random.default_rng(0), 16, size)
    weights, rows = pack_matrix(matrix)
    kernel = 16 * 16 * 9
    assert len(weights) == kernel
    assert len(rows) < 0.3 * 8 * kernel


def test_weights_that_repeat_are_kept_once_where_that_is_shorter() -> None:
    rng = np.random.default_rng(0)
    repeated, random = np.repeat(rng.normal(size=50), 100), rng.normal(size=5000)
    for values, kept in ((repeated, 50), (random, 5000)):
        weights, which = pack_weights(values)
        assert len(weights) == kept
        assert np.array_equal(unpack_weights(weights, Unpacker(which, Budget())), values)


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_columns_come_back_to_the_bit(seed) -> None:
    rng = np.random.default_rng(seed)
    values = np.repeat(rng.normal(size=(int(rng.integers(0, 4)), 5)), int(rng.integers(1, 4)), axis=1)
    columns, which = pack_columns(values)
    assert np.array_equal(unpack_columns(columns, which, values.shape[1], Budget()), values)
    assert columns.shape[1] <= 5


def header(differences: int, size: int, count: int, body: bytes) -> np.ndarray:
    return np.frombuffer(struct.pack("<?BQQ", bool(differences), size, count, len(body)) + body, np.uint8)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (np.zeros(5, np.uint8), "end early"),
        (np.zeros(5), "must be bytes"),
        (np.zeros((3, 3), np.uint8), "must be bytes"),
        (header(0, 3, 1, zlib.compress(b"abc")), "3 bytes each do not fit"),
        (header(0, 1, 4, zlib.compress(b"abc")), "are 3 bytes or more, not 4"),
        (header(0, 1, 2, zlib.compress(b"abc")), "not 2"),
        (header(0, 1, 3, zlib.compress(b"abc") + b"x"), "not 3"),
        (header(0, 1, 3, zlib.compress(b"abc")[:-1]), "not 3"),
        (header(0, 1, 3, b"no stream"), "are damaged"),
        (header(0, 1, 3, zlib.compress(b"abc"))[:-1], "do not fit"),
        (header(0, 8, 2**60, zlib.compress(bytes(1000))), "a file of more than"),
    ],
)
def test_bytes_that_are_no_numbers_are_refused(data, expected) -> None:
    with pytest.raises(GraphError, match=expected):
        Unpacker(data, Budget()).take()


def test_a_small_file_of_many_numbers_is_refused_before_they_are_made() -> None:
    packed = pack([np.zeros(1000, np.int64)])
    budget = Budget(1500)
    Unpacker(packed, budget).take()
    with pytest.raises(GraphError, match="a file of more than"):
        Unpacker(packed, budget).take()
    with pytest.raises(GraphError, match="a file of more than"):
        unpack_columns(np.zeros((10, 2)), pack([np.zeros(100, np.int64)]), 100, Budget(999))


def test_numbers_of_things_that_are_not_there_are_refused() -> None:
    with pytest.raises(GraphError, match="up to 7 where 3 things"):
        unpack_weights(np.zeros(3), Unpacker(pack([np.array([0, 7])]), Budget()))
    with pytest.raises(GraphError, match="go on after the last column"):
        unpack_columns(np.zeros((1, 2)), pack([np.zeros(4, np.int64)] * 2), 4, Budget())
    weights, rows = pack_matrix(SparseMatrix.identity(3))
    with pytest.raises(GraphError, match="3 packed numbers where 4 belong"):
        unpack_matrix((4, 3), weights, rows, Budget())
    with pytest.raises(GraphError, match="go on after a matrix"):
        unpack_matrix((3, 3), weights, np.concatenate([rows, pack([np.zeros(1, np.int64)] * 2)]), Budget())
