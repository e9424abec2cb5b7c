"""Sparse matrices by their distinct rows, with numpy alone.

The matrix of a convolution has a row for every channel and place of the picture, but few that differ in more than
where they stand: a row is one of few vectors of weights, laid out by one of few patterns of columns, from some first
column on. Kept so, a matrix is as small as its layer; its product with a vector is a few dense ones; and sums and
products of matrices are computed for one row of a kind. Matrices without such structure have as many patterns and
vectors as rows, and lose nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.core.errors import GraphError
from hefw.core.rows import Distinct, distinct, distinct_ragged, gather, positions, starts

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

#: Entries of a matrix, once they are written out; more would not fit a computer's memory.
MAX_ENTRIES = 1 << 28
#: Numbers that a product gathers at once.
CHUNK = 1 << 22
#: Products of a vector and a place that may be computed for each that is needed, so that they are one dense product.
WASTE = 2


@dataclass(frozen=True, eq=False)
class SparseMatrix:
    """Row r has the entries of vector `vector[r]` in the columns `first[r]` + offsets of pattern `pattern[r]`.

    Pattern p is `offsets[pattern_start[p] : pattern_start[p + 1]]`, ascending from 0; vector v is
    `weights[vector_start[v] : vector_start[v + 1]]`. Build one by `from_dense`, `from_entries`, `from_rows` or
    `diagonal`: equal matrices are then kept alike. GraphError if the parts do not fit.
    """

    shape: tuple[int, int]
    first: Indices  # (rows,)
    pattern: Indices  # (rows,)
    vector: Indices  # (rows,)
    pattern_start: Indices
    offsets: Indices
    vector_start: Indices
    weights: Array

    def __post_init__(self) -> None:
        _check(self)

    @staticmethod
    def from_dense(matrix: Array) -> SparseMatrix:
        """The nonzero entries of a dense matrix."""
        row, column = np.nonzero(matrix)
        counts = np.bincount(row, minlength=matrix.shape[0])
        values = np.asarray(matrix[row, column], np.float64)
        return SparseMatrix.from_rows((matrix.shape[0], matrix.shape[1]), starts(counts), column, values)

    @staticmethod
    def diagonal(values: Array) -> SparseMatrix:
        """A diagonal matrix; zeros are left out."""
        index = np.flatnonzero(values)
        shape = (len(values), len(values))
        return SparseMatrix.from_rows(shape, starts((values != 0).astype(np.int64)), index, values[index])

    @staticmethod
    def identity(size: int) -> SparseMatrix:
        """The identity of so many entries."""
        return SparseMatrix.diagonal(np.ones(size))

    @staticmethod
    def zero(shape: tuple[int, int]) -> SparseMatrix:
        """A matrix without entries."""
        nothing = np.zeros(0, np.int64)
        return SparseMatrix.from_rows(shape, np.zeros(shape[0] + 1, np.int64), nothing, np.zeros(0))

    @staticmethod
    def from_entries(shape: tuple[int, int], row: Indices, column: Indices, values: Array) -> SparseMatrix:
        """values[k] at (row[k], column[k]), in any order; GraphError for indices outside or a place given twice."""
        row, column, values = np.asarray(row), np.asarray(column), np.asarray(values, np.float64)
        if not row.shape == column.shape == values.shape == (len(values),):
            raise GraphError("a matrix needs as many rows and columns as values")
        if len(values) and (min(row.min(), column.min()) < 0 or row.max() >= shape[0] or column.max() >= shape[1]):
            raise GraphError(f"a matrix has indices outside {shape}")
        order = np.lexsort((column, row))
        row, column = row[order], column[order]
        if ((np.diff(row) == 0) & (np.diff(column) == 0)).any():
            raise GraphError("a matrix gives a place twice")
        return SparseMatrix.from_rows(shape, starts(np.bincount(row, minlength=shape[0])), column, values[order])

    @staticmethod
    def from_rows(shape: tuple[int, int], start: Indices, column: Indices, values: Array) -> SparseMatrix:
        """Row r is values[start[r] : start[r + 1]] in columns of the same range, which ascend."""
        every = np.arange(shape[0], dtype=np.int64)
        return SparseMatrix.from_kinds(shape, np.asarray(start, np.int64), column, values, every, np.zeros_like(every))

    @staticmethod
    def from_kinds(
        shape: tuple[int, int], start: Indices, column: Indices, values: Array, kind: Indices, shift: Indices
    ) -> SparseMatrix:
        """Row r is row kind[r] of (start, column, values), moved by shift[r] columns; see `from_rows`."""
        column, values = np.asarray(column, np.int64), np.asarray(values, np.float64)
        lengths = np.diff(start)
        filled = lengths > 0
        first = np.zeros(len(lengths), dtype=np.int64)
        first[filled] = column[start[:-1][filled]]
        offsets = column - np.repeat(first, lengths)
        # Kinds are numbered as their rows appear, so that equal matrices are kept alike however they were made.
        used = distinct(kind[:, None]).first
        order = kind[used]
        lengths = lengths[order]
        taken = gather(start, order)
        patterns, vectors = (distinct_ragged(starts(lengths), given[taken]) for given in (offsets, values))
        place = np.zeros(len(filled), dtype=np.int64)
        place[order] = np.arange(len(order))
        number = place[kind]
        return SparseMatrix(
            shape,
            np.where(filled[kind], first[kind] + shift, 0),
            patterns.kind[number],
            vectors.kind[number],
            starts(lengths[patterns.first]),
            offsets[gather(start, order[patterns.first])],
            starts(lengths[vectors.first]),
            values[gather(start, order[vectors.first])],
        )

    @property
    def count(self) -> int:
        """The number of entries."""
        return int(self.lengths.sum())

    @cached_property
    def lengths(self) -> Indices:
        """The number of entries of each row."""
        return np.diff(self.pattern_start)[self.pattern]

    @property
    def row(self) -> Indices:
        """The row of each entry, row by row."""
        return np.repeat(np.arange(self.shape[0], dtype=np.int64), self.lengths)

    @property
    def column(self) -> Indices:
        """The column of each entry, in the order of `row`."""
        return np.repeat(self.first, self.lengths) + self.offsets[gather(self.pattern_start, self.pattern)]

    @property
    def values(self) -> Array:
        """The value of each entry, in the order of `row`."""
        return self.weights[gather(self.vector_start, self.vector)]

    @property
    def identity_factor(self) -> float | None:
        """c if the matrix is c times the identity (c not 0), else None."""
        entries = self.diagonal_entries
        return None if entries is None or not entries[0] or (entries != entries[0]).any() else float(entries[0])

    @property
    def diagonal_entries(self) -> Array | None:
        """The diagonal (rows,) of a square matrix that has nothing else, else None."""
        rows, columns = self.shape
        filled = self.lengths > 0
        if rows != columns or (self.lengths > 1).any() or (self.first != np.arange(rows))[filled].any():
            return None
        entries = np.zeros(rows)
        entries[filled] = self.values
        return entries

    @cached_property
    def fingerprint(self) -> bytes:
        """The same for equal matrices, another for others."""
        state = hashlib.sha256(repr(self.shape).encode())
        for array in self.arrays:
            state.update(len(array).to_bytes(8, "little"))
            state.update(np.ascontiguousarray(array).tobytes())
        return state.digest()

    @property
    def arrays(self) -> tuple[NDArray[np.int64] | NDArray[np.float64], ...]:
        """Everything but the shape, in the order of the constructor."""
        return (
            self.first,
            self.pattern,
            self.vector,
            self.pattern_start,
            self.offsets,
            self.vector_start,
            self.weights,
        )

    def dense(self) -> Array:
        """The matrix as an array."""
        matrix = np.zeros(self.shape)
        matrix[self.row, self.column] = self.values
        return matrix

    def __matmul__(self, other: NDArray[Any]) -> NDArray[Any]:
        """Matrix times (columns,) or (columns, n), in the precision of that if it is float32, else in float64."""
        x = np.ascontiguousarray(other, np.float32 if other.dtype == np.float32 else np.float64)
        if x.ndim == 1:
            return (self @ x[:, None])[:, 0]
        result = np.zeros((self.shape[0], x.shape[1]), x.dtype)
        for block in self._blocks:
            block.multiply(self, x, result)
        return result

    def times(self, factor: float) -> SparseMatrix:
        """The matrix times a number; zero leaves no entries."""
        return replace(self, weights=self.weights * factor) if factor else SparseMatrix.zero(self.shape)

    def scale_columns(self, factors: Array) -> SparseMatrix:
        """The matrix times diag(factors)."""
        kinds = np.empty(self.shape[0], dtype=np.int64)  # rows of one pattern that meet the same factors
        count = 0
        for pattern, rows in self._by_pattern:
            found = distinct(factors[self.first[rows][:, None] + self._offsets(pattern)])
            kinds[rows] = count + found.kind
            count += len(found.first)
        found = distinct(np.stack([self.vector, kinds], axis=1))
        start, column, values = self._written(found.first)
        return self._changed(found, start, column, values * factors[column])

    def compose(self, other: SparseMatrix) -> SparseMatrix:
        """self @ other as a sparse matrix."""
        if self.shape[1] != other.shape[0]:
            raise ValueError(f"a matrix of {self.shape} cannot be composed with one of {other.shape}")
        for factor, matrix in ((self.identity_factor, other), (other.identity_factor, self)):
            if factor is not None:
                return matrix if factor == 1 else matrix.times(factor)
        kind = np.zeros(self.shape[0], dtype=np.int64)
        shift = np.zeros(self.shape[0], dtype=np.int64)
        made = _Rows()
        for pattern, rows in self._by_pattern:
            firsts, which = np.unique(self.first[rows], return_inverse=True)
            read = firsts[:, None] + self._offsets(pattern)  # (places, length): the rows of `other` that are summed
            base, moved = _relative(other, read)
            classes = distinct(np.concatenate([other.vector[read], other.pattern[read], moved], axis=1))
            place = classes.kind[which]
            shift[rows] = base[which] - base[classes.first][place]
            for number, example in enumerate(classes.first):
                members = rows[place == number]
                vectors, inverse = np.unique(self.vector[members], return_inverse=True)
                kind[members] = made.count + inverse
                columns, block = other._block(read[example])
                made.add(columns, self._vectors(vectors, read.shape[1]) @ block)
        return SparseMatrix.from_kinds((self.shape[0], other.shape[1]), *made.joined(), kind, shift)

    def plus(self, other: SparseMatrix) -> SparseMatrix:
        """The sum of two matrices of one shape."""
        if self.shape != other.shape:
            raise ValueError(f"a matrix of {self.shape} cannot be added to one of {other.shape}")
        base = np.where(self.lengths > 0, self.first, other.first)
        both = (self.lengths > 0) & (other.lengths > 0)
        apart = np.where(both, other.first - self.first, 0)
        found = distinct(np.stack([self.vector, self.pattern, other.vector, other.pattern, apart], axis=1))
        parts = [matrix._written(found.first) for matrix in (self, other)]
        row = np.concatenate([np.repeat(np.arange(len(found.first)), np.diff(start)) for start, _, _ in parts])
        column = np.concatenate([column for _, column, _ in parts])
        values = np.concatenate([values for _, _, values in parts])
        order = np.lexsort((column, row))
        row, column, values = row[order], column[order], values[order]
        new = np.ones(len(row), dtype=bool)
        new[1:] = (np.diff(row) != 0) | (np.diff(column) != 0)
        begins = np.flatnonzero(new)
        total = np.add.reduceat(values, begins) if len(begins) else values
        start = starts(np.bincount(row[begins], minlength=len(found.first)))
        return self._changed(found, start, column[begins], total, base)

    def _changed(
        self, found: Distinct, start: Indices, column: Indices, values: Array, base: Indices | None = None
    ) -> SparseMatrix:
        """A matrix whose rows are those of `found`, with new values; zeros are left out."""
        base = self.first if base is None else base
        kept = values != 0
        counts = np.add.reduceat(np.append(kept, False).astype(np.int64), start[:-1]) * (np.diff(start) > 0)
        shift = base - base[found.first][found.kind]
        return SparseMatrix.from_kinds(self.shape, starts(counts), column[kept], values[kept], found.kind, shift)

    @cached_property
    def _by_pattern(self) -> tuple[tuple[int, Indices], ...]:
        """The rows of each pattern."""
        order = np.argsort(self.pattern, kind="stable")
        patterns, begins = np.unique(self.pattern[order], return_index=True)
        return tuple(zip(patterns.tolist(), np.split(order, begins[1:]), strict=True))

    @cached_property
    def _blocks(self) -> tuple[_Block, ...]:
        return tuple(_Block.of(self, p, rows) for p, rows in self._by_pattern if len(self._offsets(p)))

    def _offsets(self, pattern: int) -> Indices:
        return self.offsets[self.pattern_start[pattern] : self.pattern_start[pattern + 1]]

    def _vectors(self, vectors: Indices, length: int) -> Array:
        """These vectors of one length, (vectors, length)."""
        weights: Array = self.weights[self.vector_start[vectors][:, None] + np.arange(length)]
        return weights

    def _written(self, rows: Indices) -> tuple[Indices, Indices, Array]:
        """These rows as (start, columns, values)."""
        lengths = self.lengths[rows]
        column = np.repeat(self.first[rows], lengths) + self.offsets[gather(self.pattern_start, self.pattern[rows])]
        return starts(lengths), column, self.weights[gather(self.vector_start, self.vector[rows])]

    def _block(self, rows: Indices) -> tuple[Indices, Array]:
        """(columns, dense rows (rows, columns)) of the columns in which these rows have entries."""
        start, column, values = self._written(rows)
        columns, place = np.unique(column, return_inverse=True)
        block = np.zeros((len(rows), len(columns)))
        block[np.repeat(np.arange(len(rows)), np.diff(start)), place] = values
        return columns, block


@dataclass(frozen=True, eq=False)
class _Block:
    """The rows of one pattern: each is one of `vectors` at one of the places `firsts`."""

    rows: Indices
    offsets: Indices
    firsts: Indices
    place: Indices  # (rows,)
    vectors: Indices
    which: Indices  # (rows,)

    @staticmethod
    def of(matrix: SparseMatrix, pattern: int, rows: Indices) -> _Block:
        firsts, place = np.unique(matrix.first[rows], return_inverse=True)
        vectors, which = np.unique(matrix.vector[rows], return_inverse=True)
        return _Block(rows, matrix._offsets(pattern), firsts, place, vectors, which)

    def multiply(self, matrix: SparseMatrix, x: NDArray[Any], result: NDArray[Any]) -> None:
        """Put the products of these rows with x (columns, n) into the result (matrix rows, n)."""
        length, images = len(self.offsets), x.shape[1]
        step = max(1, CHUNK // (length * images))
        if len(self.vectors) * len(self.firsts) > WASTE * len(self.rows):  # rows have little in common
            for begin in range(0, len(self.rows), step):
                part = slice(begin, begin + step)
                weights = matrix._vectors(self.vectors[self.which[part]], length).astype(x.dtype, copy=False)
                read = x[self.firsts[self.place[part]][:, None] + self.offsets]
                result[self.rows[part]] = (weights[:, None, :] @ read)[:, 0] if length > 1 else weights * read[:, 0]
            return
        weights = matrix._vectors(self.vectors, length).astype(x.dtype, copy=False)
        for begin in range(0, len(self.firsts), step):
            firsts = self.firsts[begin : begin + step]
            read = x[self.offsets[:, None] + firsts].reshape(length, -1)
            product = (weights @ read).reshape(len(weights), len(firsts), images)
            here = (self.place >= begin) & (self.place < begin + step)
            result[self.rows[here]] = product[self.which[here], self.place[here] - begin]


class _Rows:
    """Rows made one block after the other."""

    def __init__(self) -> None:
        self.count = 0
        self.lengths: list[Indices] = []
        self.columns: list[Indices] = []
        self.values: list[Array] = []

    def add(self, columns: Indices, block: Array) -> None:
        """The nonzero entries of dense rows, in these columns."""
        row, column = np.nonzero(block)
        self.lengths.append(np.bincount(row, minlength=len(block)))
        self.columns.append(columns[column])
        self.values.append(block[row, column])
        self.count += len(block)

    def joined(self) -> tuple[Indices, Indices, Array]:
        """All rows as (start, columns, values)."""
        columns = np.concatenate([np.zeros(0, np.int64), *self.columns])
        return starts(np.concatenate(self.lengths)), columns, np.concatenate([np.zeros(0), *self.values])


def _relative(matrix: SparseMatrix, read: Indices) -> tuple[Indices, Indices]:
    """(the first column of each set of rows (sets,), and where each row starts from there); rows are `read` (sets, n).

    A row without entries starts nowhere.
    """
    filled = matrix.lengths[read] > 0
    anchor = filled.argmax(axis=1) if read.shape[1] else np.zeros(len(read), dtype=np.int64)
    first = matrix.first[read]
    base = np.take_along_axis(first, anchor[:, None], axis=1)[:, 0] if read.shape[1] else anchor
    return base, np.where(filled, first - base[:, None], 0)


def _check(matrix: SparseMatrix) -> None:
    rows, columns = matrix.shape
    for name, index, start, entries in (
        ("pattern", matrix.pattern, matrix.pattern_start, matrix.offsets),
        ("vector", matrix.vector, matrix.vector_start, matrix.weights),
    ):
        if index.shape != (rows,) or start.ndim != 1 or not len(start) or start[0] or start[-1] != len(entries):
            raise GraphError(f"a matrix of {matrix.shape} has parts that do not fit: its {name}s")
        if (np.diff(start) < 0).any() or (rows and (index.min() < 0 or index.max() >= len(start) - 1)):
            raise GraphError(f"a matrix of {matrix.shape} has a {name} that does not exist")
    lengths, offsets = np.diff(matrix.pattern_start), matrix.offsets
    if matrix.first.shape != (rows,) or (lengths[matrix.pattern] != np.diff(matrix.vector_start)[matrix.vector]).any():
        raise GraphError(f"a matrix of {matrix.shape} has rows with more columns than values, or fewer")
    inner = positions(lengths) > 0
    if offsets[~inner].any() or (np.diff(offsets)[inner[1:]] <= 0).any():
        raise GraphError(f"a matrix of {matrix.shape} gives a place twice, or its columns out of order")
    last = np.zeros(len(lengths), dtype=np.int64)
    last[lengths > 0] = offsets[matrix.pattern_start[1:][lengths > 0] - 1]
    if rows and (matrix.first.min() < 0 or ((matrix.first + last[matrix.pattern]) >= max(1, columns)).any()):
        raise GraphError(f"a matrix has indices outside {matrix.shape}")
    if not np.isfinite(matrix.weights).all():
        raise GraphError(f"a matrix of {matrix.shape} has values that are not finite")
    if lengths[matrix.pattern].sum() > MAX_ENTRIES:
        raise GraphError(f"a matrix of {matrix.shape} has more than {MAX_ENTRIES} entries")
