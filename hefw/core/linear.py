"""A matrix times packed vectors, as evaluators do it: rotations, products with weights, and sums."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Term:
    """One product: input ciphertext `source`, rotated by `baby` slots, times weight number `weight`."""

    source: int
    baby: int
    weight: int


@dataclass(frozen=True)
class Group:
    """Products that share one giant step, in slots."""

    giant: int
    terms: tuple[Term, ...]


@dataclass(frozen=True, eq=False)
class Transform:
    """A linear map in slot space: `babies[i]` are the rotations of input i; `folds` are added to each output."""

    babies: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[Group, ...], ...]
    folds: tuple[int, ...]
    weights: NDArray[np.float64] = field(repr=False)  # (weights, positions), before repetition over the batch
    weight_sources: tuple[int, ...]  # the source matrix (not ciphertext) each weight came from
    batch: int

    @property
    def rotations(self) -> list[int]:
        """All rotations executed, in slots, with repetition; 0 is free and left out."""
        babies = [step for steps in self.babies for step in steps]
        giants = [group.giant for groups in self.outputs for group in groups]
        return [step for step in babies + giants + list(self.folds) * len(self.outputs) if step]

    @property
    def products(self) -> int:
        """Multiplications with a plaintext."""
        return sum(len(group.terms) for groups in self.outputs for group in groups)

    @cached_property
    def scalar(self) -> bool:
        """Whether it is a matrix of numbers times ciphertexts: nothing is rotated, every weight is one number."""
        return not self.rotations and bool(self.constant.all())

    @cached_property
    def constant(self) -> NDArray[np.bool_]:
        """Which weights are one number for all slots: (weights,)."""
        return np.asarray((self.weights == self.weights[:, :1]).all(axis=1))

    def weight(self, index: int) -> NDArray[np.float64] | float:
        """Weight number `index` over all slots, or as one constant where all slots agree (cheaper and more precise)."""
        row = self.weights[index]
        return float(row[0]) if self.constant[index] else np.repeat(row, self.batch)
