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
from hefw.core.params import MAXIMUM_PRIME_BITS, CkksParams, max_log_qp

Array = NDArray[np.float64]

#: Room kept between the largest calibrated value and the modulus, in bits: values off the calibration, and the sign.
HEADROOM_BITS = 4.0
MAX_RESCALES = 3
SCALES = range(24, 44, 2)  # bits; below, the noise of a rescale is visible
WEIGHTS = range(14, 36, 2)
FRESH_ABOVE = (0, 8, 16)  # bits by which fresh ciphertexts exceed the least scale: it costs nothing but room
MINIMUM_CHAIN_BITS = 25
COST_TOLERANCE = 0.05  # plans that cost so little more count as equal: the most precise is taken
INSECURE_LIKE = 16384  # insecure rings get the modulus that is secure at this ring dimension


@dataclass(frozen=True)
class Costs:
    """Time of one operation at N = 16384, in ms, as polynomials of the number of primes; the ratios are what counts.

    Defaults were measured on SEAL (benchmarks/primitives.py repeats it).
    """

    key_switch_square: float = 0.28
    key_switch_linear: float = 0.9
    mul_plain_linear: float = 0.13
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
    """Plans one normalised graph. `fits` needs no counts; for anything else set `work` first."""

    def __init__(self, graph: Graph, costs: Costs) -> None:
        self.graph = graph
        self.work: Mapping[str, Work] = {}
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
        for chain in _chains(ring_dimension, allow_insecure):
            found = list(self._plans(ring_dimension, chain, (MAXIMUM_PRIME_BITS,), allow_insecure))
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
        """(the most precise of the cheapest plans that are precise enough, else the most precise of all)."""
        if not found:
            return None, None
        enough = [plan for plan in found if plan.forecast_db >= precision_db]
        if not enough:
            return None, max(found, key=lambda plan: plan.forecast_db)
        limit = min(plan.cost for plan in enough) * (1 + COST_TOLERANCE)
        return max((plan for plan in enough if plan.cost <= limit), key=lambda plan: plan.forecast_db), None

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
            self._forecasters[ring_dimension] = Forecaster(self.graph, ring_dimension, self.work)
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
            if scale + self.peak_bits[node.name] + HEADROOM_BITS > option.capacity[level]:
                continue
            after = (scale - dropped, level - rescales)
            if after[0] + self.peak_bits[node.name] + HEADROOM_BITS > option.capacity[after[1]]:
                continue
            yield Choice(level, scale, rescales), after

    def _step_sources(self, node: Affine) -> list[str]:
        """The sources that a region reads at every step; those of once-a-request inputs are summed beforehand."""
        inputs = self.graph.inputs
        often = [term.source for term in node.terms if not (term.source in inputs and inputs[term.source].once)]
        return often or [term.source for term in node.terms]

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
        for less in (0, 2, 4):
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
