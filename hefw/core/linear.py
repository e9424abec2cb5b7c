"""A matrix times packed vectors, as evaluators do it: rotations, products with weights, and sums."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hefw.core.turning import Links, chain, direct, tree


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


#: Groups from 0 outwards: the farthest is turned by its number of slots and added to the one before, and so on.
Strand = tuple[tuple[Group, int], ...]


@dataclass(frozen=True, eq=False)
class Transform:
    """A linear map in slot space: `babies[i]` are the rotations of input i; `folds` are added to each output.

    If it is `chained`, rotations are made of each other (`turning`): as many, by fewer keys, with more noise in the
    baby steps. These are made by way of multiples of `radix` slots, if it is not None. `folds` by steps that are added
    at once are in groups (`turning.folded_at_once`).
    """

    babies: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[Group, ...], ...]
    folds: tuple[int, ...]
    weights: NDArray[np.float64] = field(repr=False)  # (weights, positions), before repetition over the batch
    weight_sources: tuple[int, ...]  # the source matrix (not ciphertext) each weight came from
    batch: int
    chained: bool = False
    radix: int | None = None

    @property
    def slots(self) -> int:
        """Of a ciphertext."""
        return int(self.weights.shape[1]) * self.batch

    def turns(self, steps: Iterable[int]) -> tuple[Links, ...]:
        """How an input is rotated by all these baby steps: strands that do not need each other."""
        if self.chained and self.radix is not None:
            return tree(steps, self.slots, self.radix)
        return self._giant_turns(steps)

    def _giant_turns(self, steps: Iterable[int]) -> tuple[Links, ...]:
        return chain(steps, self.slots) if self.chained else direct(steps)

    def strands(self, output: int) -> tuple[Strand, ...]:
        """How the groups of an output are turned and added."""
        by_giant = {group.giant: group for group in self.outputs[output]}
        still = (((by_giant[0], 0),),) if 0 in by_giant else ()
        return still + tuple(
            tuple((by_giant[link.step], link.by) for link in strand) for strand in self._giant_turns(by_giant)
        )

    @property
    def rotations(self) -> list[int]:
        """All rotations executed, in slots, with repetition; 0 is free and left out."""
        babies = [link.by for steps in self.babies for strand in self.turns(steps) for link in strand]
        giants = [by for k in range(len(self.outputs)) for strand in self.strands(k) for _, by in strand if by]
        return babies + giants + list(self.folds) * len(self.outputs)

    @property
    def products(self) -> int:
        """Multiplications with a plaintext."""
        return sum(len(group.terms) for groups in self.outputs for group in groups)

    @cached_property
    def scalar(self) -> bool:
        """Whether it is a matrix of numbers times ciphertexts: nothing is rotated, every weight is one number."""
        return not self.rotations and bool(self.constant.all())

    @cached_property
    def numeric(self) -> bool:
        """Whether it is a matrix of numbers times ciphertexts, whose results are turned and added."""
        return not self.folds and not any(map(any, self.babies)) and bool(self.constant.all())

    @cached_property
    def constant(self) -> NDArray[np.bool_]:
        """Which weights are one number for all slots: (weights,)."""
        return np.asarray((self.weights == self.weights[:, :1]).all(axis=1))

    @cached_property
    def varied(self) -> NDArray[np.float64]:
        """Which part of a weight's slots does not repeat, a power of a half: (weights,)."""
        part, rows = np.ones(len(self.weights)), np.arange(len(self.weights))
        width = self.weights.shape[1]
        while len(rows) and width % 2 == 0:
            width //= 2
            some = self.weights[rows]
            rows = rows[(some[:, :width] == some[:, width : 2 * width]).all(axis=1)]
            part[rows] /= 2
        return part

    def weight(self, index: int) -> NDArray[np.float64] | float:
        """Weight number `index` over all slots, or as one constant where all slots agree (cheaper and more precise)."""
        row = self.weights[index]
        return float(row[0]) if self.constant[index] else np.repeat(row, self.batch)
