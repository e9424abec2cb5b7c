"""What the compiler knows about a tensor: what it is made of, for one image and all steps of the schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from hefw.core.sparse import SparseMatrix
from hefw.models.compiler.matrices import Shape

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Clear:
    """Known in the clear: one tensor, or one a step."""

    values: tuple[object, ...]

    @property
    def fixed(self) -> bool:
        """The same at every step."""
        return len(self.values) == 1

    def at(self, step: int) -> object:
        """What it is at a step."""
        return self.values[0 if self.fixed else step]


@dataclass(frozen=True)
class Table:
    """Known for every label: a tensor (classes, *shape), or one a step."""

    values: tuple[torch.Tensor, ...]

    @property
    def fixed(self) -> bool:
        """The same at every step."""
        return len(self.values) == 1

    def at(self, step: int) -> torch.Tensor:
        """What it is at a step."""
        return self.values[0 if self.fixed else step]


@dataclass(frozen=True)
class Expression:
    """Encrypted: the sum of `terms` (matrix times node), of `scaled` nodes (times a number a step), and of `bias`.

    `shape` is the tensor's with its batch of one; `bias` is (1 or steps, entries). `weighty`: its matrices have
    weights, so that to read it several times is cheaper where it is a node of its own.
    """

    shape: Shape
    terms: Mapping[str, SparseMatrix]
    bias: Array
    scaled: tuple[tuple[str, Array], ...] = ()
    weighty: bool = False
    module: str = ""  # path of the module that made it

    @property
    def source(self) -> str | None:
        """The node that this is, if it is one and nothing else."""
        if len(self.terms) != 1 or self.scaled or self.bias.any():
            return None
        ((name, matrix),) = self.terms.items()
        return name if matrix.identity_factor == 1 else None

    @property
    def selects(self) -> bool:
        """Every entry is at most one entry of one node: to read it costs no more than to read the nodes."""
        read = sum(matrix.lengths for matrix in self.terms.values())
        return not self.weighty and not self.scaled and bool(np.all(np.asarray(read) <= 1))


@dataclass(frozen=True)
class Power:
    """Encrypted: a polynomial of the node `base`, entry by entry; `coefficients` is (degree + 1, entries)."""

    shape: Shape
    base: str
    coefficients: Array = field(repr=False)
    module: str = ""  # path of the module that made it


Secret = Expression | Power
Value = Clear | Table | Secret


def whole(shape: Shape, name: str) -> Expression:
    """A node, as it is."""
    size = math.prod(shape)
    return Expression(shape, {name: SparseMatrix.identity(size)}, np.zeros((1, size)))


def add(a: Expression, b: Expression, factor: float = 1.0) -> Expression:
    """a + factor * b, of one shape."""
    terms = dict(a.terms)
    for name, matrix in b.terms.items():
        part = matrix if factor == 1 else matrix.times(factor)
        terms[name] = terms[name].plus(part) if name in terms else part
    scaled = a.scaled + tuple((name, factor * factors) for name, factors in b.scaled)
    return Expression(a.shape, terms, a.bias + factor * b.bias, scaled, a.weighty or b.weighty, a.module or b.module)


def apply(matrix: SparseMatrix, a: Expression, shape: Shape, *, weighty: bool, at: str = "") -> Expression:
    """A matrix times an expression without scaled nodes."""
    assert not a.scaled
    terms = {name: matrix.compose(inner) for name, inner in a.terms.items()}
    return Expression(shape, terms, (matrix @ a.bias.T).T, (), a.weighty or weighty, at or a.module)


def shifted(a: Expression, bias: Array) -> Expression:
    """a + bias (1 or steps, entries)."""
    return replace(a, bias=a.bias + bias)


def multiply(a: Array, b: Array) -> Array:
    """The coefficients of the product of two polynomials, entry by entry: (degree + 1, entries) each."""
    product = np.zeros((len(a) + len(b) - 1, a.shape[1]))
    for power, coefficient in enumerate(a):
        product[power : power + len(b)] += coefficient * b
    return product


def plus(a: Array, b: Array) -> Array:
    """The coefficients of the sum of two polynomials."""
    total = np.zeros((max(len(a), len(b)), a.shape[1]))
    total[: len(a)] += a
    total[: len(b)] += b
    return total


def diagonal_of(a: Expression) -> tuple[str, Array] | None:
    """(node, coefficients (2, entries)) if every entry is a multiple of the same entry of one node plus a constant."""
    if len(a.terms) != 1 or a.scaled or len(a.bias) != 1:
        return None
    ((name, matrix),) = a.terms.items()
    entries = matrix.diagonal_entries
    return None if entries is None else (name, np.stack([a.bias[0], entries]))
