"""Matrices by their nonzero entries, with numpy alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class SparseMatrix:
    """A matrix (rows, columns) by its entries: values[k] at (row[k], column[k]), each place at most once."""

    shape: tuple[int, int]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    values: NDArray[np.float64]

    @staticmethod
    def from_dense(matrix: NDArray[np.float64]) -> SparseMatrix:
        """The nonzero entries of a dense matrix."""
        row, column = np.nonzero(matrix)
        return SparseMatrix(
            (matrix.shape[0], matrix.shape[1]), row, column, np.asarray(matrix[row, column], np.float64)
        )

    @staticmethod
    def diagonal(values: NDArray[np.float64]) -> SparseMatrix:
        """A diagonal matrix; zeros are left out."""
        index = np.flatnonzero(values)
        return SparseMatrix((len(values), len(values)), index, index, np.asarray(values[index], np.float64))

    @property
    def identity_factor(self) -> float | None:
        """c if the matrix is c times the identity (c not 0), else None."""
        rows, columns = self.shape
        if rows != columns or len(self.values) != rows or (self.row != self.column).any():
            return None
        return float(self.values[0]) if (self.values == self.values[0]).all() else None

    @cached_property
    def fingerprint(self) -> bytes:
        """The same for equal matrices, another for others."""
        state = hashlib.sha256(repr(self.shape).encode())
        for array in (self.row, self.column, self.values):
            state.update(np.ascontiguousarray(array).tobytes())
        return state.digest()

    def dense(self) -> NDArray[np.float64]:
        """The matrix as an array."""
        return self._dense.copy()

    @cached_property
    def _dense(self) -> NDArray[np.float64]:
        matrix = np.zeros(self.shape)
        matrix[self.row, self.column] = self.values
        return matrix

    def scale_columns(self, factors: NDArray[np.float64]) -> SparseMatrix:
        """The matrix times diag(factors)."""
        return SparseMatrix(self.shape, self.row, self.column, self.values * factors[self.column])

    def __matmul__(self, other: NDArray[np.float64]) -> NDArray[np.float64]:
        """Matrix times (columns,) or (columns, n)."""
        return self._dense @ other

    def compose(self, other: SparseMatrix) -> SparseMatrix:
        """self @ other as a sparse matrix."""
        return SparseMatrix.from_dense(self._dense @ other._dense)

    def plus(self, other: SparseMatrix) -> SparseMatrix:
        """The sum of two matrices of one shape."""
        return SparseMatrix.from_dense(self._dense + other._dense)
