"""How many images share a ciphertext, on which grid: chosen by counted cost for as many images as are wanted.

A ciphertext has slots / batch positions. Few images leave positions for all features of a tensor. With slots / pixels
of them a channel fills a ciphertext; with as many as slots each feature is a ciphertext of its own: nothing is rotated,
and a weight is one number. The wider the layout, the more ciphertexts a request has, and the fewer requests there are.
Candidates are counted, and only the chosen one is built.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hefw.core.alternation import alternate
from hefw.core.diagonals import LinearCost, Method, Stages, build, cheapest
from hefw.core.errors import LoweringError
from hefw.core.factors import MaskedRounding
from hefw.core.forecast import Work
from hefw.core.graph import Affine, Graph, Input, LinearTerm, Polynomial, features, sources
from hefw.core.layout import Layout, grid_order, next_power_of_two, periodic
from hefw.core.linear import Transform
from hefw.core.memory import ciphertexts_budget, weights_budget
from hefw.core.once import once_nodes, once_terms
from hefw.core.plan import Costs
from hefw.core.turning import Link, folded_at_once, partial_sums, together

Grid = tuple[int, int]

#: Primes at which operations are compared before the plan is known.
NOMINAL_PRIMES = 5
#: Times as many places for images as are wanted, at most, that are looked at with a channel a ciphertext.
MOST_EMPTY = 8
#: Wider layouts in sequence that may gain nothing before no wider ones are looked at.
MOST_VAIN = 1
#: Replicas of the largest tensor below which nothing is gained by different weights in each.
FEW_REPLICAS = 4
#: What the wire takes in one message, in bytes.
MESSAGE_BYTES = 1 << 30


@dataclass(frozen=True)
class Region:
    """An affine region's terms: of its sources at every step, multiples of them with a factor a step, and of what is
    the same at every step; and how the first and the last are evaluated."""

    often: tuple[LinearTerm, ...]
    scalars: tuple[LinearTerm, ...]
    once: tuple[LinearTerm, ...]
    method: Method | None
    once_method: Method | None


@dataclass(frozen=True)
class BuiltRegion:
    """The same with transforms; if `late`, partial sums are added up after rescales, at fewer primes."""

    often: tuple[LinearTerm, ...]
    stages: Stages | None
    scalars: tuple[LinearTerm, ...]
    once: tuple[LinearTerm, ...]
    once_stages: Stages | None
    late: bool = False

    @property
    def folds(self) -> int:
        """Rotations that add up partial sums after rescales."""
        return len(self.stages.transform.folds) if self.late and self.stages is not None else 0


@dataclass(frozen=True)
class Counted:
    """Layouts, and what they cost: `step` at every step, `once` before the first one; `encoded` are the products of
    each region whose vectors are encoded at every use, since not all find room."""

    layouts: Mapping[str, Layout]
    regions: Mapping[str, Region]
    encoded: Mapping[str, int]
    step: float
    once: float

    @property
    def batch(self) -> int:
        """Places for images in a ciphertext."""
        return next(iter(self.layouts.values())).places

    def cost_of(self, images: int, shared: int, steps: int) -> float:
        """Of so many images at `shared` a place, a step: requests follow each other, keys are made once."""
        return self.step * -(-images // (self.batch * shared)) + self.once / steps


def choose(
    graph: Graph,
    slots: int,
    costs: Costs,
    images: int,
    *,
    keys: Iterable[int] = (),
    pairs: bool = False,
    bounded: bool = False,
    places: int | None = None,
    replicas: bool = False,
) -> Counted:
    """The cheapest layouts for so many images, with two in each slot if `pairs`; rotation `keys` exist anyhow.

    `places` fixes the batch: LoweringError if memory or messages do not take it.
    `replicas`: where images leave room for more, weights fill it.
    `bounded`: only those with room for all images in one request and one ciphertext a tensor, if there are any.
    """
    count = _Count(graph, slots, costs, images, frozenset(keys), pairs)
    wanted = -(-images // count.shared)
    if places is not None:
        for grid, batch in _options(graph, slots, slots):
            if batch == places and _fits(graph, grid, batch, slots):
                count.add(grid, batch)
                count.add_apart(grid, batch)
        if replicas and count.grid is not None and places == count.places:
            count.replicate(count.grid)
    elif bounded:
        single = [
            (grid, batch)
            for grid, batch in _options(graph, slots, wanted)
            if batch <= max(1, slots // _period(_orders(graph, grid)))
        ]
        most = max(batch for _, batch in single)
        for grid, batch in single:
            if batch >= min(images, most):
                count.add(grid, batch)
    else:
        _search(count, wanted)
        if replicas and count.grid is not None:
            count.replicate(count.grid)
    if count.best is None:
        possible = sorted({batch for grid, batch in _options(graph, slots, slots) if _fits(graph, grid, batch, slots)})
        raise LoweringError(
            f"a ciphertext of {slots} slots cannot have {places} places for images with this model; choose one of "
            f"{', '.join(map(str, possible)) or 'none: allow a larger ring dimension'}"
        )
    return count.best


class _Count:
    """The cheapest of the layouts that were looked at."""

    def __init__(self, graph: Graph, slots: int, costs: Costs, images: int, known: frozenset[int], pairs: bool) -> None:
        self.graph = graph
        self.slots = slots
        self.costs = costs
        self.images = images
        self.known = known
        self.pairs = pairs
        self.shared = 2 if pairs else 1
        self.best: Counted | None = None
        self.grid: Grid | None = None  # of the best
        self._cost = math.inf

    @property
    def places(self) -> int:
        """The fewest that hold all images; even where two share each."""
        return max(self.shared, next_power_of_two(-(-self.images // self.shared)))

    def add(self, grid: Grid, batch: int) -> bool:
        """Look at one; whether it is the best so far."""
        better = self.look(_laid_out(self.graph, grid, batch, self.slots))
        if better:
            self.grid = grid
        return better

    def add_apart(self, grid: Grid, batch: int) -> bool:
        """Look at one with a few images in each block of its slots; whether it is the best so far."""
        if batch < 2 * self.shared or _period(_orders(self.graph, grid)) * batch <= self.slots:
            return False
        return self.look(_laid_out(self.graph, grid, batch, self.slots, batch // self.shared))

    def replicate(self, grid: Grid) -> None:
        """Look at layouts that leave no slot free, on a grid where few images do."""
        orders = _orders(self.graph, grid)
        if self.places * _period(orders) * FEW_REPLICAS <= self.slots:
            steps = self.graph.steps

            def cost(primes: int) -> LinearCost:
                return _linear_cost(self.costs, primes, steps)

            self.look(alternate(self.graph, orders, grid[0] * grid[1], self.places, self.slots, cost))

    def look(self, layouts: Mapping[str, Layout]) -> bool:
        """Look at some; whether they are the best so far."""
        counted = _count(self.graph, layouts, self.costs, self.known, self.slots, self.pairs)
        cost = counted.cost_of(self.images, self.shared, self.graph.steps)
        better = cost < self._cost
        if better:
            self._cost, self.best = cost, counted
        return better


def _search(count: _Count, places: int) -> None:
    """One ciphertext a tensor on every grid; wider ones on the best of these, while that gains; and the widest."""
    graph, slots = count.graph, count.slots
    options = list(_options(graph, slots, places))
    first = dict(reversed(options))
    whole = [(grid, first[grid]) for grid in _grids(graph)]
    for grid, batch in whole:
        count.add(grid, batch)
    for of_grid in (count.grid, *dict.fromkeys(grid for grid, _ in options if grid not in _grids(graph))):
        vain = 0
        for grid, batch in options:
            if grid != of_grid or (grid, batch) in whole or vain > MOST_VAIN or not _fits(graph, grid, batch, slots):
                continue
            vain = 0 if count.add(grid, batch) else vain + 1
    for grid in _grids(graph):  # a channel a ciphertext
        batch = slots // next_power_of_two(grid[0] * grid[1])
        if batch <= MOST_EMPTY * places and _fits(graph, grid, batch, slots):
            count.add_apart(grid, batch)


def _options(graph: Graph, slots: int, places: int) -> Iterator[tuple[Grid, int]]:
    """Grids and batches worth counting, those of fewest ciphertexts first.

    A smaller batch than the largest with one ciphertext a tensor saves nothing; nor does a larger one than is filled.
    """
    grids = {grid: _orders(graph, grid) for grid in _grids(graph)}
    smallest = min(grids, key=lambda grid: (grid[0] * grid[1], grid))
    most = min(slots, next_power_of_two(places))
    for grid, orders in grids.items():
        batch = max(1, slots // _period(orders))
        yield grid, batch
        while batch < most and 2 * batch * grid[0] * grid[1] <= slots:
            batch *= 2
            yield grid, batch
    batch = max(1, slots // next_power_of_two(smallest[0] * smallest[1]))
    rows, columns = smallest
    while rows * columns > 1:  # for batches that leave no room for a grid
        halves = rows % 2 == columns % 2 == 0
        rows, columns = (rows // 2, columns // 2) if halves else (1, 1)
        room = slots // next_power_of_two(rows * columns)
        while batch < min(most, room):
            batch *= 2
            yield (rows, columns), batch


def build_regions(counted: Counted) -> dict[str, BuiltRegion]:
    """The transforms of the chosen layouts. Equal ones are one: their weights can be shared."""
    made: dict[int, Stages] = {}

    def stages(name: str, terms: tuple[LinearTerm, ...], method: Method | None) -> Stages | None:
        if method is None:
            return None
        if id(method) not in made:
            matrices = [(term.matrix, counted.layouts[term.source]) for term in terms]
            made[id(method)] = build(matrices, counted.layouts[name], method)
        return made[id(method)]

    return {
        name: BuiltRegion(
            region.often,
            stages(name, region.often, region.method),
            region.scalars,
            region.once,
            stages(name, region.once, region.once_method),
            counted.layouts[name].cell > 1 and not region.scalars,
        )
        for name, region in counted.regions.items()
    }


def work_of(region: BuiltRegion, encoded: int, slots: int) -> Work:
    """Cost counts what is done at every step; noise also comes from what is done once a request."""
    numbers = {term.source: 1.0 for term in region.scalars}
    diagonals: dict[str, float] = {}
    turns: dict[str, float] = {}
    masked: dict[str, MaskedRounding] = {}
    giants = 0.0
    for terms, stages in ((region.often, region.stages), (region.once, region.once_stages)):
        if stages is None:
            continue
        found = stages.transform
        share = partial_sums(found.folds) / len(found.outputs)
        if stages.masks is not None:
            masked |= zip((term.source for term in terms), _masked_rounding(stages, len(terms)), strict=True)
        for counts, which in ((diagonals, np.where(found.constant, 0.0, found.varied)), (numbers, found.constant)):
            sums = np.bincount(found.weight_sources, which * share, len(terms))
            for term, total in zip(terms, sums.tolist(), strict=True):
                counts[term.source] = counts.get(term.source, 0.0) + total
        for term, mean in zip(terms, _turns(stages, len(terms)), strict=True):
            turns[term.source] = max(turns.get(term.source, 0), mean)
        giants += share * sum(1 for groups in found.outputs for group in groups if group.giant)
    if region.stages is None:
        return Work(0, len(region.scalars), 1, diagonals, giants, turns=turns, numbers=numbers)
    found, masks = region.stages.transform, region.stages.masks
    outputs = len(found.outputs)
    scalars = len(region.scalars) * outputs
    products, constants, rotations = found.products, int(np.count_nonzero(found.constant)), len(found.rotations)
    matrix = products if masks is not None or found.scalar else 0
    if masks is not None:
        products, constants, rotations = masks.products, 0, rotations + len(masks.rotations)
    elif matrix:
        products = constants = 0
    read_or_written = len(found.babies) + sum(map(len, found.outputs))
    turned = found if masks is None else masks
    shared = sum(len(links) - 1 for steps in turned.babies for links in _made_of_one(turned, steps))
    shared_folds = sum(len(steps) - 1 for steps in folded_at_once(found.folds)) * outputs
    shared += 0 if region.late else shared_folds
    return Work(
        rotations,
        products + scalars,
        outputs,
        diagonals,
        giants,
        constants + scalars,
        encoded,
        matrix,
        read_or_written if matrix else 0,
        turns,
        region.folds,
        numbers,
        masked,
        partial_sums(found.folds) if region.late else 1,
        shared,
        shared_folds if region.late else 0,
    )


def _masked_rounding(stages: Stages, sources: int) -> list[MaskedRounding]:
    """That of each source of a transform that is masked before."""
    found, masks = stages.transform, stages.masks
    assert masks is not None
    of_mask = np.array([groups[0].terms[0].weight for groups in masks.outputs])
    rounded = np.where(masks.constant, 0.0, masks.varied)[of_mask]
    terms = [term for groups in found.outputs for group in groups for term in group.terms]
    of, weight = np.array([(found.weight_sources[t.weight], t.weight) for t in terms]).T
    squares = found.weights[weight, 0] ** 2 * rounded[[term.source for term in terms]]
    # A number reaches the entries where its mask is one, an error of the mask all of them.
    met = masks.weights.mean(axis=1)[of_mask][[term.source for term in terms]]
    numbers, masked = np.bincount(of, met, sources), np.bincount(of, squares, sources)
    share = 1 / len(found.outputs)
    return [MaskedRounding(*both) for both in zip((numbers * share).tolist(), (masked * share).tolist(), strict=True)]


def _made_of_one(found: Transform, steps: tuple[int, ...]) -> list[list[Link]]:
    """The rotations of an input, by the ciphertext that they are made of."""
    return [links for _, links in together(itertools.chain.from_iterable(found.turns(steps)))]


def _turns(stages: Stages, sources: int) -> list[float]:
    """Of each source, rotations in sequence that an input goes through before it is multiplied, on average."""
    found = stages.transform if stages.masks is None else stages.masks
    depth = [{0: 0} for _ in found.babies]
    for number, steps in enumerate(found.babies):
        for link in itertools.chain.from_iterable(found.turns(steps)):
            depth[number][link.step] = depth[number][link.before] + 1
    terms = [term for groups in found.outputs for group in groups for term in group.terms]
    depths = [depth[term.source][term.baby] for term in terms]
    if stages.masks is not None:  # each of these is an input of the other
        found = stages.transform
        terms = [term for groups in found.outputs for group in groups for term in group.terms]
        depths = [depths[term.source] for term in terms]
    of = [found.weight_sources[term.weight] for term in terms]
    sums = np.bincount(of, depths, sources)
    return [float(mean) for mean in sums / np.maximum(np.bincount(of, minlength=sources), 1)]


def _linear_cost(costs: Costs, primes: int = NOMINAL_PRIMES, uses: int = 1) -> LinearCost:
    """Costs of operations on ciphertexts of so many primes, where a key serves so many uses."""
    switch, product = costs.key_switch(primes), costs.mul_plain(primes)
    constant = product + costs.encode_constant(primes)
    number, ciphertext = costs.matrix(1, 0, primes), costs.matrix(0, 1, primes)
    chained, shared = costs.chained, costs.shared(primes)
    return LinearCost(switch, product, switch / uses, constant, number, chained, ciphertext, shared)


# -- counting ----------------------------------------------------------------------------------------------------------


def _count(
    graph: Graph, layouts: Mapping[str, Layout], costs: Costs, known: frozenset[int], slots: int, pairs: bool
) -> Counted:
    primes = NOMINAL_PRIMES
    cost = _linear_cost(costs)
    switch, product = cost.rotate, cost.mul_plain
    regions, keys = _regions(graph, layouts, cost, known)
    once = once_nodes(graph)
    step, before = 0.0, switch * len(keys - known)
    room = weights_budget()
    encoded: dict[str, int] = {}
    size = 2 * slots * 8 * primes
    for name, region in regions.items():
        methods = [m for m in (region.method, region.once_method) if m is not None]
        vectors = sum(method.encodings for method in methods)
        kept = min(vectors, int(room // size))
        room -= kept * size
        encoded[name] = vectors - kept
        outputs = layouts[name].ciphertexts
        each = sum(m.evaluation(cost) for m in methods[: 1 if region.method else 0])
        each += len(region.scalars) * outputs * (product + costs.encode_constant(primes))
        each += (vectors - kept) * costs.encode(primes)
        node = graph.nodes[name]
        each += outputs * costs.encode(primes) if isinstance(node, Affine) and node.bias.any() else 0.0
        before += sum(m.evaluation(cost) for m in methods[1 if region.method else 0 :])
        before += kept * costs.encode(primes)
        step, before = (step, before + each) if name in once else (step + each, before)
    for name, node in graph.nodes.items():
        if isinstance(node, Polynomial) and name not in once:
            step += layouts[name].ciphertexts * (costs.square(primes, pairs=pairs) + costs.rescale(primes))
    return Counted(layouts, regions, encoded, step + messages(graph, layouts, costs, primes), before)


def messages(graph: Graph, layouts: Mapping[str, Layout], costs: Costs, primes: int) -> float:
    """Cost of the ciphertexts that come and go at every step."""
    ports = [name for name, node in graph.inputs.items() if not node.once]
    ports += [output.node for output in graph.outputs.values()]
    return sum(layouts[name].ciphertexts for name in ports) * costs.message(primes)


def _regions(
    graph: Graph, layouts: Mapping[str, Layout], cost: LinearCost, known: frozenset[int]
) -> tuple[dict[str, Region], frozenset[int]]:
    """How each region is evaluated, and the rotations that all of them take."""
    keys = set(known)
    made: dict[Hashable, Method] = {}
    once = once_nodes(graph)
    marks = {
        name: (layout.positions.tobytes(), layout.batch, layout.period, layout.stride, layout.window, layout.blocks)
        for name, layout in layouts.items()
    }

    def method(name: str, terms: tuple[LinearTerm, ...]) -> Method | None:
        """Unrolled steps have the same matrices: one method serves them all."""
        if not terms:
            return None
        same = (marks[name], tuple((term.matrix.fingerprint, marks[term.source]) for term in terms))
        if same not in made:
            made[same] = cheapest([(t.matrix, layouts[t.source]) for t in terms], layouts[name], cost, keys)
            keys.update(made[same].steps)
        return made[same]

    regions = {}
    # The costliest regions choose their rotations first; the others then prefer keys that exist already.
    affine = [node for node in graph.nodes.values() if isinstance(node, Affine)]
    for node in sorted(affine, key=lambda n: -sum(t.matrix.count for t in n.terms)):
        same = once_terms(node, once)
        rest = [term for term in node.terms if not any(term is other for other in same)]
        often = tuple(term for term in rest if term.factors is None)
        scalars = tuple(term for term in rest if term.factors is not None)
        for term in scalars:
            if not np.array_equal(layouts[term.source].positions, layouts[node.name].positions):
                raise LoweringError(
                    f"{node.name!r} adds a multiple of {term.source!r} a step, but their layouts differ"
                )
        regions[node.name] = Region(often, scalars, same, method(node.name, often), method(node.name, same))
    return regions, frozenset(keys)


def _bearable(graph: Graph, layouts: Mapping[str, Layout], slots: int) -> bool:
    """Whether a message takes all ciphertexts of an input or output, and memory those that are alive at once."""
    size = 2 * NOMINAL_PRIMES * 2 * slots * 8
    often = [name for name, node in graph.inputs.items() if not node.once]
    once = [name for name, node in graph.inputs.items() if node.once]
    outputs = [output.node for output in graph.outputs.values()]
    if any(sum(layouts[name].ciphertexts for name in sent) * size > MESSAGE_BYTES for sent in (often, once, outputs)):
        return False
    readers = dict.fromkeys(graph.nodes, 0)
    for node in graph.nodes.values():
        for source in sources(node):
            readers[source] += 1
    kept = {output.node for output in graph.outputs.values()}
    alive = most = 0
    for name, node in graph.nodes.items():
        alive += layouts[name].ciphertexts
        most = max(most, alive)
        for source in sources(node):
            readers[source] -= 1
            if not readers[source] and source not in kept and not isinstance(graph.nodes[source], Input):
                alive -= layouts[source].ciphertexts
    return most * size <= ciphertexts_budget()


def _fits(graph: Graph, grid: Grid, batch: int, slots: int) -> bool:
    return _bearable(graph, _laid_out(graph, grid, batch, slots), slots)


def _laid_out(graph: Graph, grid: Grid, batch: int, slots: int, blocks: int = 1) -> dict[str, Layout]:
    orders = _orders(graph, grid)
    return {name: periodic(order, batch // blocks, slots, blocks) for name, order in orders.items()}


# -- grids -------------------------------------------------------------------------------------------------------------


def _orders(graph: Graph, grid: Grid) -> dict[str, NDArray[np.int64]]:
    orders = {}
    for name, node in graph.nodes.items():
        order = grid_order(node.shape, grid)
        orders[name] = np.arange(features(node), dtype=np.int64) if order is None else order
    return orders


def _period(orders: Mapping[str, NDArray[np.int64]]) -> int:
    """Positions that the largest tensor takes, a power of two."""
    return max(next_power_of_two(len(order)) for order in orders.values())


def smallest_period(graph: Graph) -> int:
    """Positions that the largest tensor takes on the grid where that is least."""
    return min(_period(_orders(graph, grid)) for grid in _grids(graph))


def _grids(graph: Graph) -> list[Grid]:
    spaces = {(node.shape[1], node.shape[2]) for node in graph.nodes.values() if len(node.shape) == 3}
    return sorted(spaces) or [(1, 1)]
