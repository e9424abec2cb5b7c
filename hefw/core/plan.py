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
from hefw.core.graph import Affine, Graph, Input, Node, Perturb, Polynomial, Values, sources
from hefw.core.noise import BIAS_SHARE, NoiseModel
from hefw.core.params import MAXIMUM_PRIME_BITS, CkksParams, max_log_qp

Array = NDArray[np.float64]

#: Room kept between the largest calibrated value and the modulus, in bits: values off the calibration, and the sign.
HEADROOM_BITS = 4.0
DATA_RANGE = 2.0  # of images in -1..1
MAX_RESCALES = 3
SCALES = range(24, 44, 2)  # bits; below, the noise of a rescale is visible
WEIGHTS = range(14, 36, 2)
FRESH_ABOVE = (0, 8, 16)  # bits by which fresh ciphertexts exceed the least scale: it costs nothing but room
PEAK_OVER_RMS = 5.0  # the largest error tolerated, in root mean square errors of the precision wanted
MINIMUM_CHAIN_BITS = 25
COST_TOLERANCE = 0.05  # plans that cost so little more count as equal: the most precise is taken
PREFILTER_DB = 3.0  # a plan whose single step misses by more is not looked at further
QUICK_IMAGES = 8
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
class Work:
    """Counted operations of one affine region, per step: what its cost and noise depend on."""

    rotations: int
    products: int
    output_ciphertexts: int
    diagonals: Mapping[str, int]  # per source: products that reach one entry, folds included
    giants: int


NO_WORK = Work(0, 0, 0, {}, 0)


@dataclass(frozen=True)
class Choice:
    """What is decided for one node: level it is computed at, scale before rescaling (bits), number of rescales."""

    level: int
    scale_bits: float
    rescales: int


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
        self.calibration = graph.calibration
        self._profiles: dict[int, Array] = {}
        self.history = graph.trajectory(self.calibration)
        self.peak_bits = {
            name: math.log2(max(1e-6, max(float(np.abs(values[name]).max()) for values in self.history)))
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
        if plan is None:
            plan = miss or max((self._judge(plan) for plan in found), key=lambda p: p.forecast_db)
        return plan

    def _first_precise(self, found: list[Plan], precision_db: float) -> tuple[Plan | None, Plan | None]:
        """(the most precise of the cheapest plans that are precise enough, the most precise of the others)."""
        miss = None
        quick = {id(plan): self._one_step_db(plan) for plan in found}
        ordered = sorted(found, key=lambda plan: plan.cost)
        for plan in ordered:
            if quick[id(plan)] < precision_db - PREFILTER_DB:
                continue
            judged = self._judge(plan)
            if judged.forecast_db >= precision_db:
                alike = [other for other in ordered if plan.cost <= other.cost <= plan.cost * (1 + COST_TOLERANCE)]
                precise = self._judge(max(alike, key=lambda other: quick[id(other)]))
                return max(judged, precise, key=lambda p: p.forecast_db), None
            if miss is None or judged.forecast_db > miss.forecast_db:
                miss = judged
        return None, miss

    def _plans(
        self, ring_dimension: int, chain: tuple[int, ...], special: tuple[int, ...], insecure: bool
    ) -> Iterator[Plan]:
        for scale, weight, above in itertools.product(SCALES, WEIGHTS, FRESH_ABOVE):
            found = self._place(_Option(chain, scale + above, scale, weight))
            if found is not None:
                params = CkksParams(ring_dimension, chain, special, float(scale + above), insecure)
                yield Plan(params, found[1], found[0], math.nan)

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

    def _judge(self, plan: Plan) -> Plan:
        """The plan with its forecast: the graph run in the clear with every operation's noise added."""
        with np.errstate(over="ignore", invalid="ignore"):
            final = self.graph.trajectory(self.calibration, self._perturbation(plan))[-1]
        return replace(plan, forecast_db=_psnr(_error(self.graph, final, self.history[-1], -1)))

    def _one_step_db(self, plan: Plan) -> float:
        """A quick look: one step in the middle, on few images, as if errors of all steps were independent."""
        step = self.graph.steps // 2
        few = {name: self.history[step][name][:QUICK_IMAGES] for name in self.graph.inputs}
        exact = {name: value[:QUICK_IMAGES] for name, value in self.history[step].items()}
        with np.errstate(over="ignore", invalid="ignore"):
            noisy = self.graph.evaluate(step, few, self._perturbation(plan))
        return _psnr(_error(self.graph, noisy, exact, step) * math.sqrt(self.graph.steps))

    def _perturbation(self, plan: Plan) -> Perturb:
        """Adds to each value the noise that computing it would add."""
        model = NoiseModel(plan.params.ring_dimension)
        rng = np.random.default_rng(0)
        chain = plan.params.modulus_bits
        scales = dict.fromkeys(self.graph.inputs, plan.params.scale_bits)
        for name, choice in plan.choices.items():
            scales[name] = choice.scale_bits - sum(chain[choice.level + 1 - choice.rescales : choice.level + 1])
        ratio = 2.0 ** (max(chain) - min(plan.params.special_bits))
        values: Values = {}
        biases: dict[str, Array] = {}  # of key switches: the same at every step
        rounding: dict[tuple[str, str], Array] = {}  # of encoded weights: the same at every step

        def perturb(name: str, value: Array) -> Array:
            node = self.graph.nodes[name]
            noisy: Array
            if isinstance(node, Input):
                noisy = value + rng.normal(size=value.shape) * (model.fresh / 2.0 ** scales[name])
            else:
                choice = plan.choices[name]
                rounding_std, switch_std = self._noise(node, choice, model, ratio, scales)
                random = math.hypot(rounding_std, switch_std * math.sqrt(1 - BIAS_SHARE))
                noisy = value + rng.normal(size=value.shape) * random
                if name not in biases:
                    profile = rng.choice(self._bias_profile(plan.params.ring_dimension), size=value.shape)
                    biases[name] = rng.normal(size=value.shape) * profile * math.sqrt(BIAS_SHARE) * switch_std
                noisy += biases[name][: len(value)]
                for term in node.terms if isinstance(node, Affine) else ():
                    products = self.work[name].diagonals.get(term.source, 0)
                    if products:
                        key = (name, term.source)
                        if key not in rounding:
                            shape = (values[term.source].shape[1], value.shape[1])
                            std = model.encode / 2.0 ** (choice.scale_bits - scales[term.source])
                            rounding[key] = rng.normal(size=shape) * (std * math.sqrt(products / shape[0]))
                        noisy += values[term.source] @ rounding[key]
            values[name] = noisy
            return noisy

        return perturb

    def _noise(
        self, node: Node, choice: Choice, model: NoiseModel, ratio: float, scales: Mapping[str, float]
    ) -> tuple[float, float]:
        """Standard deviations that rescaling and key switching add to each entry of a node, in units of the value."""
        switch = model.key_switch(choice.level + 1, ratio)
        rescaling = math.sqrt(choice.rescales) * model.rescale / 2.0 ** scales[node.name]
        if not isinstance(node, Affine):
            return rescaling, switch / 2.0**choice.scale_bits
        work = self.work[node.name]
        variance = work.giants * (switch / 2.0**choice.scale_bits) ** 2
        for term in node.terms:
            if work.diagonals.get(term.source, 0) > 1:
                gain = float(np.sum(term.matrix.values**2)) / term.matrix.shape[0]
                variance += gain * (switch / 2.0 ** scales[term.source]) ** 2
        return rescaling, math.sqrt(variance)

    def _bias_profile(self, ring_dimension: int) -> Array:
        if ring_dimension not in self._profiles:
            self._profiles[ring_dimension] = NoiseModel(ring_dimension).key_switch_bias()
        return self._profiles[ring_dimension]


def _error(graph: Graph, noisy: Values, exact: Values, step: int) -> float:
    """Error of one step's outputs, factors applied: root mean square, or largest / PEAK_OVER_RMS if that is more."""
    differences = [
        ((noisy[output.node] - exact[output.node]) * output.factors[step]).reshape(-1)
        for output in graph.outputs.values()
    ]
    flat = np.concatenate(differences)
    return max(float(np.sqrt(np.mean(flat**2))), float(np.abs(flat).max()) / PEAK_OVER_RMS)


def _psnr(error: float) -> float:
    """PSNR in dB of a root mean square error, for a data range of 2."""
    return 20 * math.log10(DATA_RANGE / error) if math.isfinite(error) and error > 0 else -math.inf


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
