"""Arrays and matrices in few bytes, and back to the bit; what is read was written by anybody.

Whole numbers are kept as themselves or as differences, in the smallest type, deflated: the rows of a convolution's
matrix follow each other regularly, so that little is left of them. Weights are kept as the distinct ones among them and
which of these each is, where that is shorter. Every size is checked before anything of that size is made.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.core.errors import GraphError
from hefw.core.rows import Distinct, distinct, starts
from hefw.core.sparse import SparseMatrix

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Bytes = NDArray[np.uint8]

#: Whether the numbers are differences, bytes a number, how many there are, and bytes that follow.
_HEADER = struct.Struct("<?BQQ")
_SIZES = (1, 2, 4, 8)
#: Numbers that a file may unpack to in all: more would not fit a computer's memory.
MAX_NUMBERS = 1 << 28


def pack(arrays: Sequence[Indices]) -> Bytes:
    """Arrays of whole numbers, one after the other, as bytes."""
    return np.frombuffer(b"".join(min((_packed(a, d) for d in (False, True)), key=len) for a in arrays), np.uint8)


class Budget:
    """How many numbers a file may still unpack to."""

    def __init__(self, numbers: int = MAX_NUMBERS) -> None:
        self.left = numbers

    def spend(self, numbers: int) -> None:
        """GraphError if there are not so many left."""
        self.left -= numbers
        if self.left < 0:
            raise GraphError(f"a file of more than {MAX_NUMBERS} numbers")


class Unpacker:
    """Reads what `pack` wrote, array by array; GraphError for anything else."""

    def __init__(self, data: NDArray[Any], budget: Budget) -> None:
        if data.dtype != np.uint8 or data.ndim != 1:
            raise GraphError(f"packed numbers must be bytes, these are {data.dtype} {data.shape}")
        self.data = data.tobytes()
        self.budget = budget
        self.at = 0

    @property
    def done(self) -> bool:
        """Nothing is left."""
        return self.at == len(self.data)

    def take(self, count: int | None = None) -> Indices:
        """The next array, of `count` numbers if given."""
        if len(self.data) - self.at < _HEADER.size:
            raise GraphError("packed numbers end early")
        differences, size, found, length = _HEADER.unpack_from(self.data, self.at)
        begin = self.at + _HEADER.size
        if size not in _SIZES or length > len(self.data) - begin:
            raise GraphError(f"packed numbers of {size} bytes each do not fit their {len(self.data)} bytes")
        if count not in (None, found):
            raise GraphError(f"{found} packed numbers where {count} belong")
        self.budget.spend(found)
        inflater = zlib.decompressobj()
        try:
            raw = inflater.decompress(self.data[begin : begin + length], found * size + 1)
        except zlib.error as error:
            raise GraphError(f"packed numbers are damaged: {error}") from None
        if len(raw) != found * size or not inflater.eof or inflater.unused_data:
            raise GraphError(f"packed numbers are {len(raw)} bytes or more, not {found * size}")
        self.at = begin + length
        numbers = np.frombuffer(raw, f"<i{size}").astype(np.int64)
        return np.cumsum(numbers) if differences else numbers


def pack_weights(values: Array) -> tuple[Array, Bytes]:
    """(numbers, which of them each value is, packed): the distinct ones where that is shorter, or all and no bytes."""
    found = distinct(values[:, None])
    which = pack([found.kind])
    size = narrow(values).itemsize
    if len(found.first) * size + len(which) < len(values) * size:
        return values[found.first], which
    return values, np.zeros(0, np.uint8)


def unpack_weights(numbers: Array, which: Unpacker) -> Array:
    """The inverse of `pack_weights`."""
    if which.done:
        return numbers
    index = which.take()
    _check_index(index, len(numbers))
    return numbers[index]


def pack_matrix(matrix: SparseMatrix) -> tuple[Array, Bytes]:
    """(weights, everything else)."""
    lengths = [np.diff(start) for start in (matrix.pattern_start, matrix.vector_start)]
    weights, which = pack_weights(matrix.weights)
    rows = pack([matrix.first, matrix.pattern, matrix.vector, lengths[0], matrix.offsets, lengths[1]])
    return weights, np.concatenate([rows, which])


def unpack_matrix(shape: tuple[int, int], weights: Array, packed: NDArray[Any], budget: Budget) -> SparseMatrix:
    """The inverse of `pack_matrix`, for a shape that is known otherwise."""
    data = Unpacker(packed, budget)
    first, pattern, vector = (data.take(shape[0]) for _ in range(3))
    pattern_lengths, offsets, vector_lengths = (data.take() for _ in range(3))
    values = unpack_weights(weights, data)
    if not data.done:
        raise GraphError("packed numbers go on after a matrix")
    for lengths, entries in ((pattern_lengths, offsets), (vector_lengths, values)):
        if len(lengths) and (lengths.min() < 0 or lengths.max() > len(entries)):
            raise GraphError("a matrix has rows of lengths that do not fit")
    return SparseMatrix(shape, first, pattern, vector, starts(pattern_lengths), offsets, starts(vector_lengths), values)


def pack_columns(values: Array) -> tuple[Array, Bytes]:
    """(columns, which of them each is, packed) of an array (rows, columns); no bytes where all columns differ."""
    found: Distinct = distinct(np.ascontiguousarray(values.T))
    if len(found.first) == values.shape[1]:
        return values, np.zeros(0, np.uint8)
    return values[:, found.first], pack([found.kind])


def unpack_columns(columns: Array, packed: NDArray[Any], count: int, budget: Budget) -> Array:
    """The inverse of `pack_columns`, for so many columns."""
    which = Unpacker(packed, budget)
    if which.done:
        return columns
    if columns.ndim != 2:
        raise GraphError(f"columns must be (rows, columns), these are {columns.shape}")
    budget.spend(len(columns) * count)
    index = which.take(count)
    if not which.done:
        raise GraphError("packed numbers go on after the last column")
    _check_index(index, columns.shape[1])
    return np.ascontiguousarray(columns[:, index])


def narrow(array: Array) -> NDArray[np.float32] | Array:
    """As float32 where nothing is lost, the sign of a zero included."""
    with np.errstate(over="ignore"):
        narrowed = array.astype(np.float32)
    return narrowed if (narrowed == array).all() else array


def _packed(array: Indices, differences: bool) -> bytes:
    numbers = np.diff(array, prepend=0) if differences else array
    limits = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, 0)
    size = next(s for s in _SIZES if -(1 << (8 * s - 1)) <= limits[0] and limits[1] < 1 << (8 * s - 1))
    body = zlib.compress(numbers.astype(f"<i{size}").tobytes())
    return _HEADER.pack(differences, size, len(array), len(body)) + body


def _check_index(index: Indices, count: int) -> None:
    if len(index) and (index.min() < 0 or index.max() >= count):
        raise GraphError(f"packed numbers up to {int(index.max())} where {count} things are numbered")
