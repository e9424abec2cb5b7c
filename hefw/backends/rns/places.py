"""What a linear transform does, by places of memory: inputs, their rotations, and sums that are turned and added."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from hefw.core.backend import MOST_PRODUCTS
from hefw.core.linear import Group, Transform
from hefw.core.turning import folded_at_once, together

#: (place, weight) of each product of a sum.
Terms = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Turn:
    """Rotations of what lies at a place: (step, place) of each."""

    source: int
    links: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Sum:
    """A sum of products, turned by its giant step, for an output."""

    terms: Terms
    by: int
    output: int


@dataclass(frozen=True)
class Chain:
    """Sums from the outermost inwards: each is turned and added to the next one, the last to an output."""

    output: int
    sums: tuple[Sum, ...]

    @property
    def still(self) -> bool:
        """Whether it is one sum that is not turned."""
        return not self.sums[-1].by


class Plan:
    """A transform's places: its inputs, then their rotations; and what is done with them."""

    def __init__(self, transform: Transform) -> None:
        self._place = {(source, 0): source for source in range(len(transform.babies))}
        self.inputs = len(transform.babies)
        #: Of what lies at each place, which input it is a rotation of.
        self.source = list(range(self.inputs))
        #: In an order in which each finds what it turns.
        self.turns: list[Turn] = []
        for source, steps in enumerate(transform.babies):
            self._turn(transform, source, steps)
        outputs = range(len(transform.outputs))
        self.chains = [
            Chain(k, tuple(Sum(self._terms(group), by, k) for group, by in strand[::-1]))
            for k in outputs
            for strand in transform.strands(k)
        ]
        self.folds = folded_at_once(transform.folds)
        self.outputs = len(outputs)

    def _turn(self, transform: Transform, source: int, steps: Iterable[int]) -> None:
        for before, links in together(link for strand in transform.turns(steps) for link in strand):
            found = []
            for link in links:
                found.append((link.by, len(self.source)))
                self._place[source, link.step] = len(self.source)
                self.source.append(source)
            self.turns.append(Turn(self._place[source, before], tuple(found)))

    def _terms(self, group: Group) -> Terms:
        return tuple((self._place[term.source, term.baby], term.weight) for term in group.terms)

    @property
    def sums(self) -> list[Sum]:
        """All that it adds up."""
        return [each for chain in self.chains for each in chain.sums]

    @cached_property
    def suits(self) -> bool:
        """Whether each output has a sum, and each sum so few products that their weights may be in memory at once."""
        written = {chain.output for chain in self.chains}
        return len(written) == self.outputs and all(0 < len(each.terms) <= MOST_PRODUCTS for each in self.sums)

    @property
    def rotations(self) -> int:
        """How many baby steps there are."""
        return len(self.source) - self.inputs

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Rotations by whose keys it turns, in the order of their use."""
        babies = [by for turn in self.turns for by, _ in turn.links]
        giants = [each.by for each in self.sums if each.by]
        return tuple(dict.fromkeys([*babies, *giants, *(step for steps in self.folds for step in steps)]))

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Operations, as `Evaluator.counts` has them."""
        products = sum(len(each.terms) for each in self.sums)
        folded = self.outputs * sum(map(len, self.folds))
        giants = sum(each.by != 0 for each in self.sums)
        return {
            "mul_plain": products,
            "add": products - self.outputs + folded,
            "rotate": self.rotations + giants + folded,
        }


def at_once(sums: Iterable[Sum]) -> Iterator[list[Sum]]:
    """Sums whose weights may be in memory together."""
    some: list[Sum] = []
    products = 0
    for each in sums:
        if some and products + len(each.terms) > MOST_PRODUCTS:
            yield some
            some, products = [], 0
        some.append(each)
        products += len(each.terms)
    yield some
