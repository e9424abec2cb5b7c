"""Which modulus chain, and where rescales go: the cheapest plan whose forecast meets the precision wanted.

A key switch costs about the square of the number of primes and hardly depends on their size, so few large primes win:
weights are encoded at a small scale, and a rescale is placed only where the scale has grown by a whole prime. A
dynamic programme over (operation, scales, levels) finds the cheapest placement for one chain; chains are tried from
short to long.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hefw.core.errors import LoweringError
from hefw.core.forecast import NO_WORK, Choice, Forecaster, Work
from hefw.core.graph import Affine, Graph, Input, Polynomial, sources
from hefw.core.layout import Layout
from hefw.core.params import MAXIMUM_PRIME_BITS, CkksParams, max_log_qp

Array = NDArray[np.float64]

#: Room kept between the largest calibrated value and the modulus, in bits: values off the calibration, and the sign.
HEADROOM_BITS = 4.0
MAX_RESCALES = 3
SCALES = range(20, 42, 2)  # bits; below, the noise of a rescale is visible
WEIGHTS = range(14, 32, 2)
FRESH_ABOVE = (0, 8)  # bits by which fresh ciphertexts exceed the least scale: it costs nothing but room
MINIMUM_CHAIN_BITS = 25
FRESH = ""  # stands for fresh ciphertexts where scales are tuned by node
TUNING_GAIN_DB = 12.0  # more is not gained by tuning scales
SMALLEST_GAIN_DB = 0.05
SMALLER_PRIMES = (0, 2)  # bits below the special prime: each halves the noise of a key switch
LEAST_TUNED = 10  # bits of a tuned scale
COST_TOLERANCE = 0.05  # plans that cost so little more count as equal: the most precise is taken
INSECURE_LIKE = 16384  # insecure rings get the modulus that is secure at this ring dimension


@dataclass(frozen=True)
class Costs:
    """Time of one operation at N = 16384, in ms, as polynomials of the number of primes; the ratios are what counts.

    Defaults were measured on SEAL (benchmarks/test_primitives.py repeats it).
    """

    key_switch_square: float = 0.28
    key_switch_linear: float = 0.9
    mul_plain_linear: float = 0.165
    rescale_linear: float = 0.6

    def key_switch(self, primes: int) -> float:
        """A rotation or a relinearisation."""
        return self.key_switch_square * primes**2 + self.key_switch_linear * primes

    def mul_plain(self, primes: int) -> float:
        """A product with an encoded plaintext, and its addition."""
        return self.mul_plain_linear * primes

    def rescale(self, primes: int) -> float:
        """A rescale."""
        return self.rescale_linear * primes


@dataclass(frozen=True)
class Plan:
    """A modulus chain, and a choice for each node; `forecast_db` is the PSNR expected after the whole schedule."""

    params: CkksParams
    choices: Mapping[str, Choice]
    cost: float
    forecast_db: float

    def scale_bits_after(self) -> dict[str, float]:
        """Scale of each node's value, in bits, after its rescales."""
        chain = self.params.modulus_bits
        return {
            name: c.scale_bits - sum(chain[c.level + 1 - c.rescales : c.level + 1]) for name, c in self.choices.items()
        }


@dataclass(frozen=True)
class _Option:
    chain: tuple[int, ...]
    fresh: float  # scale of fresh ciphertexts
    scale: float  # least scale after a rescale
    weight: float  # least scale of encoded weights

    @cached_property
    def capacity(self) -> tuple[int, ...]:
        return tuple(sum(self.chain[: level + 1]) for level in range(len(self.chain)))


class Planner:
    """Plans one normalised graph. `fits` needs no counts; for anything else set `work` and `layouts` first."""

    def __init__(self, graph: Graph, costs: Costs) -> None:
        self.graph = graph
        self.work: Mapping[str, Work] = {}
        self.layouts: Mapping[str, Layout] = {}
        self.costs = costs
        self._forecasters: dict[int, Forecaster] = {}
        history = graph.trajectory(graph.calibration)
        self.peak_bits = {
            name: math.log2(max(1e-6, max(float(np.abs(values[name]).max()) for values in history)))
            for name in graph.nodes
        }
        self.order = [node for node in graph.nodes.values() if not isinstance(node, Input)]
        self.reads = {
            node.name: self._step_sources(node) if isinstance(node, Affine) else list(sources(node))
            for node in self.order
        }
        self.live = _live(graph, [node.name for node in self.order])

    def search(self, ring_dimension: int, precision_db: float, *, allow_insecure: bool = False) -> Plan:
        """The cheapest plan that reaches `precision_db` (PSNR); LoweringError, with the nearest miss, if none does."""
        best_miss: Plan | None = None
        for _, chains in itertools.groupby(_chains(ring_dimension, allow_insecure), key=len):
            found = [
                plan
                for chain in chains
                for plan in self._plans(ring_dimension, chain, (MAXIMUM_PRIME_BITS,), allow_insecure)
            ]
            plan, miss = self._first_precise(found, precision_db)
            if plan is not None:
                return plan
            if miss is not None and (best_miss is None or miss.forecast_db > best_miss.forecast_db):
                best_miss = miss
        nearest = f"; the best forecast is {best_miss.forecast_db:.1f} dB" if best_miss else ""
        raise LoweringError(
            f"no plan reaches {precision_db:g} dB at ring dimension {ring_dimension}{nearest}: ask for less "
            "precision_db, or allow a larger ring dimension"
        )

    def fits(self, ring_dimension: int, *, allow_insecure: bool = False) -> bool:
        """Whether any chain of this ring dimension takes the graph's operations, whatever the precision."""
        coarse = _Option((), SCALES[0], SCALES[0], WEIGHTS[0])
        return any(self._place(replace(coarse, chain=chain)) for chain in _chains(ring_dimension, allow_insecure))

    def fixed(self, params: CkksParams, precision_db: float) -> Plan:
        """The cheapest plan on a modulus chain given by the user, else the most precise that it allows."""
        found = list(
            self._plans(params.ring_dimension, params.modulus_bits, params.special_bits, params.allow_insecure)
        )
        if not found:
            raise LoweringError(
                f"the modulus chain {list(params.modulus_bits)} is too short for {len(self.order)} operations in "
                "sequence; use more or larger primes, or leave modulus_bits out"
            )
        plan, miss = self._first_precise(found, precision_db)
        chosen = plan or miss
        assert chosen is not None  # there is at least one
        return chosen

    def _first_precise(self, found: list[Plan], precision_db: float) -> tuple[Plan | None, Plan | None]:
        """(the most precise of the cheapest plans that are precise enough, else the most precise of all).

        Plans that place the same operations at the same levels differ in scales only: of each kind the best is tuned
        if it misses the precision.
        """
        kinds: dict[tuple[tuple[int, ...], tuple[tuple[int, int], ...]], Plan] = {}
        for plan in found:
            levels = tuple((choice.level, choice.rescales) for choice in plan.choices.values())
            kind = (plan.params.modulus_bits, levels)
            if kind not in kinds or plan.forecast_db > kinds[kind].forecast_db:
                kinds[kind] = plan
        enough: list[Plan] = []
        miss: Plan | None = None
        for plan in sorted(kinds.values(), key=lambda p: p.cost):
            if enough and plan.cost > enough[0].cost * (1 + COST_TOLERANCE):
                break
            if plan.forecast_db < precision_db - TUNING_GAIN_DB:
                continue
            tuned = plan if plan.forecast_db >= precision_db else self._tune(plan)
            if tuned.forecast_db >= precision_db:
                enough.append(tuned)
            elif miss is None or tuned.forecast_db > miss.forecast_db:
                miss = tuned
        if enough:
            return max(enough, key=lambda p: p.forecast_db), None
        return None, miss or max(found, key=lambda p: p.forecast_db, default=None)

    def _tune(self, plan: Plan) -> Plan:
        """The same levels and rescales, scales moved bit by bit between fresh ciphertexts and weights to the best."""
        bits = {node.name: self._weight_bits(node, plan) for node in self.order if isinstance(node, Affine)}
        bits[FRESH] = plan.params.scale_bits
        best = plan
        single = [{name: by} for name in bits for by in (1, -1)]
        double = [{a: 1, b: -by} for a in bits for b in bits if a != b for by in (1, 2)]
        while True:
            moved = [{name: value + move.get(name, 0) for name, value in bits.items()} for move in (*single, *double)]
            tried = [(self._with_bits(plan, candidate), candidate) for candidate in moved]
            better, candidate = max(tried, key=lambda item: item[0].forecast_db if item[0] else -math.inf)
            if better is None or better.forecast_db < best.forecast_db + SMALLEST_GAIN_DB:
                return best
            best, bits = better, candidate

    def _weight_bits(self, node: Affine, plan: Plan) -> float:
        """Scale of the weights on the source of largest scale, in bits."""
        scales = plan.scale_bits_after()
        return plan.choices[node.name].scale_bits - max(
            scales.get(source, plan.params.scale_bits) for source in self.reads[node.name]
        )

    def _with_bits(self, plan: Plan, bits: Mapping[str, float]) -> Plan | None:
        """The plan with other scales, or None if one of them does not fit its level."""
        if min(bits.values()) < LEAST_TUNED:
            return None
        chain = plan.params.modulus_bits
        capacity = list(itertools.accumulate(chain))
        scales = dict.fromkeys(self.graph.inputs, bits[FRESH])
        choices = {}
        for node in self.order:
            old = plan.choices[node.name]
            after = old.level - old.rescales
            if isinstance(node, Affine):
                scale = max(scales[source] for source in self.reads[node.name]) + bits[node.name]
            else:
                scale = 2 * scales[self.reads[node.name][0]]
            scales[node.name] = scale - (capacity[old.level] - capacity[after])
            if scales[node.name] < LEAST_TUNED or not self._has_room(node.name, scale, capacity[old.level]):
                return None
            if not self._has_room(node.name, scales[node.name], capacity[after]):
                return None
            choices[node.name] = Choice(old.level, scale, old.rescales)
        params = replace(plan.params, scale_bits=float(bits[FRESH]))
        forecaster = self._forecaster(params.ring_dimension)
        return Plan(params, choices, plan.cost, forecaster.precision_db(params, choices))

    def _plans(
        self, ring_dimension: int, chain: tuple[int, ...], special: tuple[int, ...], insecure: bool
    ) -> Iterator[Plan]:
        if self._place(_Option(chain, SCALES[0], SCALES[0], WEIGHTS[0])) is None:
            return  # the coarsest does not fit, so that nothing does
        forecaster = self._forecaster(ring_dimension)
        for scale, weight, above in itertools.product(SCALES, WEIGHTS, FRESH_ABOVE):
            found = self._place(_Option(chain, scale + above, scale, weight))
            if found is not None:
                params = CkksParams(ring_dimension, chain, special, float(scale + above), insecure)
                yield Plan(params, found[1], found[0], forecaster.precision_db(params, found[1]))

    def _forecaster(self, ring_dimension: int) -> Forecaster:
        if ring_dimension not in self._forecasters:
            self._forecasters[ring_dimension] = Forecaster(self.graph, ring_dimension, self.work, self.layouts)
        return self._forecasters[ring_dimension]

    def _place(self, option: _Option) -> tuple[float, dict[str, Choice]] | None:
        """The cheapest (cost, choices) on one chain, or None if it does not fit."""
        top = len(option.chain) - 1
        start = dict.fromkeys(self.graph.inputs, (option.fresh, top))
        memo: dict[tuple[int, tuple[tuple[float, int], ...]], tuple[float, tuple[Choice, ...]] | None] = {}

        def solve(i: int, state: dict[str, tuple[float, int]]) -> tuple[float, tuple[Choice, ...]] | None:
            if i == len(self.order):
                return 0.0, ()
            key = (i, tuple(state[name] for name in self.live[i]))
            if key in memo:
                return memo[key]
            node = self.order[i]
            best: tuple[float, tuple[Choice, ...]] | None = None
            for choice, after in self._choices(node, state, option):
                rest = solve(i + 1, {**state, node.name: after})
                if rest is not None:
                    cost = self._cost(node, choice) + rest[0]
                    if best is None or cost < best[0]:
                        best = (cost, (choice, *rest[1]))
            memo[key] = best
            return best

        found = solve(0, start)
        if found is None:
            return None
        return found[0], {node.name: choice for node, choice in zip(self.order, found[1], strict=True)}

    def _choices(
        self, node: object, state: Mapping[str, tuple[float, int]], option: _Option
    ) -> Iterator[tuple[Choice, tuple[float, int]]]:
        for rescales in range(MAX_RESCALES + 1):
            if isinstance(node, Affine):
                names = self.reads[node.name]
                level = min(state[name][1] for name in names)
                if rescales > level:
                    return
                dropped = option.capacity[level] - option.capacity[level - rescales]
                scale = max(max(state[name][0] for name in names) + option.weight, option.scale + dropped)
            else:
                assert isinstance(node, Polynomial)
                before, level = state[node.source]
                if rescales > level:
                    return
                dropped = option.capacity[level] - option.capacity[level - rescales]
                scale = 2 * before
                if scale - dropped < option.scale:
                    return
            after = (scale - dropped, level - rescales)
            fits = self._has_room(node.name, scale, option.capacity[level])
            if fits and self._has_room(node.name, after[0], option.capacity[after[1]]):
                yield Choice(level, scale, rescales), after

    def _step_sources(self, node: Affine) -> list[str]:
        """The sources that a region reads at every step; those of once-a-request inputs are summed beforehand."""
        once = self.graph.once_terms(node)
        return [term.source for term in node.terms if not any(term is other for other in once)]

    def _has_room(self, name: str, scale: float, capacity: float) -> bool:
        """Whether the largest value of a node at a scale (bits) fits a modulus of `capacity` bits."""
        return scale + self.peak_bits[name] + HEADROOM_BITS <= capacity

    def _cost(self, node: object, choice: Choice) -> float:
        primes = choice.level + 1
        costs = self.costs
        if isinstance(node, Affine):
            work = self.work.get(node.name, NO_WORK)
            cost = work.rotations * costs.key_switch(primes) + work.products * costs.mul_plain(primes)
            return cost + choice.rescales * costs.rescale(primes) * work.output_ciphertexts
        return costs.key_switch(primes) + choice.rescales * costs.rescale(primes)


def _chains(ring_dimension: int, allow_insecure: bool) -> Iterator[tuple[int, ...]]:
    """Moduli to try, short ones first: equal primes, as large as security allows, and slightly smaller."""
    limit = max_log_qp(max(ring_dimension, INSECURE_LIKE) if allow_insecure else ring_dimension)
    for primes in range(2, 40):
        bits = min(MAXIMUM_PRIME_BITS, (limit - MAXIMUM_PRIME_BITS) // primes)
        for less in SMALLER_PRIMES:
            if bits - less >= MINIMUM_CHAIN_BITS:
                yield (bits - less,) * primes


def _live(graph: Graph, order: Sequence[str]) -> list[tuple[str, ...]]:
    """For each position in the order, the values that it or a later operation reads."""
    live: list[tuple[str, ...]] = []
    needed: set[str] = set()
    for name in reversed(order):
        needed = (needed - {name}) | set(sources(graph.nodes[name]))
        live.append(tuple(sorted(needed)))
    return live[::-1]
