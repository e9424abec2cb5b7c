"""Which tensors repeat through all slots and which are spread over them, for few images: by counted cost.

A region from the one kind of layout to the other needs few products (`replicas`), so the two should take turns; but
values that are added, squared or multiplied by a step's factor must agree. From a few ways to take turns, one tensor
after the other changes its layout for as long as that costs less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hefw.core.diagonals import LinearCost, Method, cheapest
from hefw.core.graph import Affine, Graph, Input, Polynomial, sources
from hefw.core.layout import Layout, next_power_of_two, periodic, spread
from hefw.core.once import once_nodes, once_terms
from hefw.core.sparse import SparseMatrix

Orders = Mapping[str, NDArray[np.int64]]

#: Times that all tensors are gone through.
MOST_ROUNDS = 3
#: Windows of a size that are looked at: from the largest down to so many times less.
FEW_WINDOWS = 8
MOST_CANDIDATES = 8
#: How many times worse than the best one a candidate may look by an estimate.
PROMISING = 2.5
#: Primes at the last region.
LAST_PRIMES = 2


def alternate(
    graph: Graph, orders: Orders, cell: int, batch: int, slots: int, cost: Callable[[int], LinearCost]
) -> dict[str, Layout]:
    """The best layouts that were found for so many images on a grid of `cell` places.

    `orders` are the features of each tensor in their order on the grid; `cost` is that of operations by the number of
    primes.
    """
    found = _Alternation(graph, orders, cell, batch, slots, cost)
    return found.layouts(min((found.improved(beginning) for beginning in found.beginnings()), key=found.total))


class _Alternation:
    """Tensors of one layout form a group; a choice is the number of a candidate for each group."""

    def __init__(
        self,
        graph: Graph,
        orders: Orders,
        cell: int,
        batch: int,
        slots: int,
        cost: Callable[[int], LinearCost],
    ) -> None:
        self.graph, self.orders, self.cell, self.batch, self.slots = graph, orders, cell, batch, slots
        self.once = once_nodes(graph)
        self.depth = _depth(graph, self.once)
        #: Primes that are left at each region: about one is used up by each of those behind it.
        deepest = max(self.depth.values()) + LAST_PRIMES
        self.cost = {name: cost(deepest - depth) for name, depth in self.depth.items()}
        self.affine = [node for node in graph.nodes.values() if isinstance(node, Affine)]
        self.group = _groups(graph)
        self.members = [[n for n in graph.nodes if self.group[n] == g] for g in range(max(self.group.values()) + 1)]
        self.candidates = [self._candidates(members) for members in self.members]
        self._made: dict[Hashable, Layout] = {}
        self._costs: dict[tuple[str, int, tuple[int, ...]], float] = {}
        self._methods: dict[Hashable, Method] = {}
        self._patterns: dict[int, Hashable] = {}

    def layouts(self, choice: Sequence[int]) -> dict[str, Layout]:
        """That of every tensor."""
        return {name: self._layout(name, choice[self.group[name]]) for name in self.graph.nodes}

    def beginnings(self) -> Iterator[tuple[int, ...]]:
        """Spread at every other depth, the even ones or the odd ones."""
        for parity in (0, 1):
            yield tuple(
                int(len(candidates) > 1 and self.depth[members[0]] % 2 == parity)
                for members, candidates in zip(self.members, self.candidates, strict=True)
            )

    def total(self, choice: Sequence[int]) -> float:
        """What all regions cost."""
        return sum(self._region(node, choice) for node in self.affine)

    def improved(self, choice: tuple[int, ...]) -> tuple[int, ...]:
        """A choice of which no group alone can change its layout for less."""
        best = list(choice)
        for _ in range(MOST_ROUNDS):
            before = list(best)
            for group, candidates in enumerate(self.candidates):
                if len(candidates) == 1:
                    continue
                regions = [
                    node
                    for node in self.affine
                    if self.group[node.name] == group or any(self.group[s] == group for s in sources(node))
                ]

                def cost(number: int, group: int = group, regions: list[Affine] = regions) -> float:
                    tried = [*best[:group], number, *best[group + 1 :]]
                    return sum(self._region(node, tried) for node in regions)

                best[group] = min(range(len(candidates)), key=lambda number: (cost(number), number != best[group]))
            if best == before:
                break
        return tuple(best)

    def _region(self, node: Affine, choice: Sequence[int]) -> float:
        """What one region costs."""
        read = tuple(choice[self.group[term.source]] for term in node.terms)
        key = (node.name, choice[self.group[node.name]], read)
        if key not in self._costs:
            same = once_terms(node, self.once)
            often = [t for t in node.terms if t.factors is None and not any(t is other for other in same)]
            out = self._layout(node.name, choice[self.group[node.name]])
            spread_too = any(self._layout(t.source, choice[self.group[t.source]]).stride for t in often)
            total = math.inf if out.stride and spread_too else 0.0  # nothing would be gained by replicas
            for terms, times in ((often, 1.0), (same, 1.0 / self.graph.steps)):
                if terms and total < math.inf:
                    matrices = [(t.matrix, self._layout(t.source, choice[self.group[t.source]])) for t in terms]
                    total += times * self._evaluation(matrices, out, self.cost[node.name])
            self._costs[key] = total / (self.graph.steps if node.name in self.once else 1)
        return self._costs[key]

    def _evaluation(self, matrices: Sequence[tuple[SparseMatrix, Layout]], out: Layout, cost: LinearCost) -> float:
        """What one transform costs. How it is evaluated depends on where weights are, not on what they are."""
        key = (id(out.positions), *((self._pattern(matrix), id(layout.positions)) for matrix, layout in matrices))
        if key not in self._methods:
            self._methods[key] = cheapest(matrices, out, cost)
        method = self._methods[key]
        products = cost.mul_plain * (method.vectors + method.constants)
        return cost.rotate * method.rotations + products + cost.new_key * len(method.steps)

    def _pattern(self, matrix: SparseMatrix) -> Hashable:
        """The same for matrices with entries in the same places."""
        if id(matrix) not in self._patterns:
            places = (matrix.first, matrix.pattern, matrix.pattern_start, matrix.offsets)
            self._patterns[id(matrix)] = (matrix.shape, *(part.tobytes() for part in places))
        return self._patterns[id(matrix)]

    def _layout(self, name: str, number: int) -> Layout:
        candidate = self.candidates[self.group[name]][number]
        order = self.orders[name]
        key = (order.tobytes(), candidate)
        if key not in self._made:
            if candidate is None:
                cell = self.cell if len(order) % self.cell == 0 else 1
                self._made[key] = replace(periodic(order, self.batch, self.slots), cell=cell)
            else:
                cell, rows, window = candidate
                self._made[key] = spread(order, cell, self.batch, self.slots, rows, window)
        return self._made[key]

    def _candidates(self, members: Sequence[str]) -> list[tuple[int, int, int] | None]:
        """None for a layout that repeats; (cell, rows, window) of those that are spread, the most promising first.

        A window goes through all channels of what is read, together with as many shifts as there are channels that
        take turns in a row. Where a matrix is dense, single features serve as channels.
        """
        length = len(self.orders[members[0]])
        if length % self.cell or members[0] in self.once:
            return [None]
        sources_ = {s for name in members for s in self._linear_sources(name)}
        readers = {n.name for n in self.affine for s in sources(n) if s in members}
        width = self.slots // self.batch
        found: list[tuple[float, tuple[int, int, int]]] = []
        for cell in dict.fromkeys((self.cell, max(1, self.cell // 4), 1)):
            channels, read, reader = length // cell, self._channels(sources_, cell), self._channels(readers, cell)
            most = width // cell // next_power_of_two(channels)  # copies of a channel, and what a window takes of them
            for window in (1 << k for k in range(min(read, most).bit_length())):
                ways = []
                for each in (1 << k for k in range(next_power_of_two(channels).bit_length())):
                    rows = next_power_of_two(-(-channels // each))
                    filled = width // rows // cell - (window - 1) * each
                    if filled >= each and window * FEW_WINDOWS >= min(read, most):
                        shifts = each * -(-(reader + (each - 1) * (window > 1)) // filled)
                        made = max(read / window, each) if window > 1 else 0
                        ways.append(((made + shifts) * math.sqrt(cell), (cell, rows, window)))
                found += sorted(ways)[:1]
        found.sort()
        return [None, *(c for score, c in found[:MOST_CANDIDATES] if score <= PROMISING * found[0][0])]

    def _linear_sources(self, name: str) -> tuple[str, ...]:
        """What a region reads at every step by a matrix."""
        node = self.graph.nodes[name]
        if not isinstance(node, Affine):
            return ()
        same = once_terms(node, self.once)
        return tuple(t.source for t in node.terms if t.factors is None and not any(t is other for other in same))

    def _channels(self, names: set[str], cell: int) -> int:
        """The most channels that one of these tensors takes, a power of two."""
        return max((next_power_of_two(-(-len(self.orders[name]) // cell)) for name in names), default=1)


def _depth(graph: Graph, once: frozenset[str]) -> dict[str, int]:
    """Regions in sequence before each node that are evaluated at every step."""
    depth: dict[str, int] = {}
    for name, node in graph.nodes.items():
        below = max((depth[source] for source in sources(node) if source not in once), default=-1)
        depth[name] = below + isinstance(node, Affine | Input)
    return depth


def _groups(graph: Graph) -> dict[str, int]:
    """Tensors of equal numbers have one layout: a square and what is squared, a sum and what joins it by a factor."""
    parent = {name: name for name in graph.nodes}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for name, node in graph.nodes.items():
        tied = [node.source] if isinstance(node, Polynomial) else []
        if isinstance(node, Affine):
            tied += [term.source for term in node.terms if term.factors is not None]
        for source in tied:
            parent[root(name)] = root(source)
    roots = {name: root(name) for name in graph.nodes}
    numbers = {found: number for number, found in enumerate(dict.fromkeys(roots.values()))}
    return {name: numbers[found] for name, found in roots.items()}
