"""A matrix times packed vectors, as evaluators do it: rotations, products with weights, and sums."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

#: A strand of so many links, with more than this share of all, is cut in two.
SHORTEST_CUT, EVEN = 4, 2 / 3


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


@dataclass(frozen=True)
class Link:
    """A rotation to `step` slots that is made of the one to `before`, by a rotation `by` what is between."""

    step: int
    before: int
    by: int


#: Groups from 0 outwards: the farthest is turned by its number of slots and added to the one before, and so on.
Strand = tuple[tuple[Group, int], ...]


def chain(steps: Iterable[int], slots: int) -> tuple[tuple[Link, ...], ...]:
    """Rotations made of each other, in strands that begin at 0 and do not need each other: (strands, links).

    Steps at even distances take the key of the distance alone, to each side. Where nearly all are on one side, that is
    cut in two, so that two processes have as much to do. All are modulo `slots`, and 0 is left out.
    """
    near = {step % slots for step in steps} - {0}
    strands = [
        sorted(step for step in near if step <= slots // 2),
        sorted((step - slots for step in near if step > slots // 2), reverse=True),
    ]
    longest = max(strands, key=len)
    if len(longest) >= SHORTEST_CUT and len(longest) > EVEN * len(near):
        strands.remove(longest)
        strands += [longest[: len(near) // 2], longest[len(near) // 2 :]]
    return tuple(_links(strand, slots) for strand in strands if strand)


def _links(outwards: Sequence[int], slots: int) -> tuple[Link, ...]:
    return tuple(
        Link(step % slots, before % slots, (step - before) % slots)
        for before, step in zip([0, *outwards], outwards, strict=False)
    )


@dataclass(frozen=True, eq=False)
class Transform:
    """A linear map in slot space: `babies[i]` are the rotations of input i; `folds` are added to each output.

    If it is `chained`, rotations are made of each other (`chain`): as many, by fewer keys, with more noise in the
    baby steps. Libraries that hoist are faster without.
    """

    babies: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[Group, ...], ...]
    folds: tuple[int, ...]
    weights: NDArray[np.float64] = field(repr=False)  # (weights, positions), before repetition over the batch
    weight_sources: tuple[int, ...]  # the source matrix (not ciphertext) each weight came from
    batch: int
    chained: bool = False

    @property
    def slots(self) -> int:
        """Of a ciphertext."""
        return int(self.weights.shape[1]) * self.batch

    def turns(self, steps: Iterable[int]) -> tuple[tuple[Link, ...], ...]:
        """How a ciphertext is rotated by all these steps: strands that do not need each other."""
        if self.chained:
            return chain(steps, self.slots)
        return tuple((Link(step, 0, step),) for step in steps if step)

    def strands(self, output: int) -> tuple[Strand, ...]:
        """How the groups of an output are turned and added."""
        by_giant = {group.giant: group for group in self.outputs[output]}
        still = (((by_giant[0], 0),),) if 0 in by_giant else ()
        return still + tuple(
            tuple((by_giant[link.step], link.by) for link in strand) for strand in self.turns(by_giant)
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
