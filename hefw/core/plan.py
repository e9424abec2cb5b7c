"""Which modulus chain, and where rescales go: the cheapest plan whose forecast meets the precision wanted.

A key switch costs about the square of the number of primes and hardly depends on their size, so few large primes win:
weights are encoded at a small scale, and a rescale is placed only where the scale has grown by a whole prime. A
dynamic programme over (operation, scales, levels) finds the cheapest placement for one chain; chains are tried from
short to long.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.core.backend import Capabilities
from hefw.core.errors import LoweringError
from hefw.core.forecast import NO_WORK, Choice, Forecaster, Work
from hefw.core.graph import Affine, Graph, Input, Node, sources
from hefw.core.layout import Layout
from hefw.core.once import once_nodes, once_terms, place_table, readers_of, tables
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
TUNING_GAIN_DB = 30.0  # more is not gained by tuning scales
SMALLEST_GAIN_DB = 0.05
SMALLEST_MOVE_DB = 0.005
MOST_TOGETHER = 6  # scales that move at once
SMALLER_PRIMES = (0, 2, 4)  # bits below the special prime: each halves noise, and some libraries insist on four
LEAST_TUNED = 10  # bits of a tuned scale
MOST_PRIMES = 39
MOST_SPECIAL = 3  # special primes that a chain makes room for
COST_TOLERANCE = 0.05  # plans that cost so little more count as equal: the most precise is taken
MANY_OPERATIONS = 12  # from here on every other scale is tried: tuning finds those between
INSECURE_LIKE = 16384  # insecure rings get the modulus that is secure at this ring dimension


@dataclass(frozen=True)
class Costs:
    """Time of one operation at N = 16384, in ms, as polynomials of the number of primes; the ratios are what counts.

    Defaults were measured on SEAL (benchmarks/test_primitives.py repeats it).
    """

    key_switch_square: float = 0.28
    key_switch_linear: float = 0.62
    mul_plain_linear: float = 0.165
    square_linear: float = 0.3
    encode_fixed: float = 1.0
    encode_linear: float = 0.25
    encode_constant_linear: float = 0.008
    message_fixed: float = 3.0
    message_linear: float = 2.3
    rescale_linear: float = 0.6
    #: In a matrix of numbers; None: as any product with a constant.
    mul_number_linear: float | None = None
    #: Reading or writing a ciphertext there.
    number_ct_linear: float = 0.0
    #: Rotations are made of each other: as many take fewer keys.
    chained: bool = False
    #: For each special prime but the first.
    special_linear: float = 0.0
    #: What of a key switch several rotations of one ciphertext have in common.
    shared_square: float = 0.0
    shared_linear: float = 0.0

    def on(self, capabilities: Capabilities) -> Costs:
        """Those of a library: its own, and one that joins rotations is faster if they are not made of each other."""
        own: dict[str, Any] = dict(capabilities.costs)
        return replace(self, chained=not capabilities.joined_rotations, **own)

    def with_fast(self, capabilities: Capabilities) -> Costs:
        """Those where all primes are small enough for a library to be faster."""
        own: dict[str, Any] = dict(capabilities.fast_costs)
        return replace(self, **own)

    def key_switch(self, primes: int, special: int = 1) -> float:
        """A rotation or a relinearisation: with `special` primes P there are so many fewer digits."""
        digits = -(-primes // special)
        linear = self.key_switch_linear * primes + self.special_linear * (special - 1)
        return self.key_switch_square * digits * (primes + special) + linear

    def shared(self, primes: int, special: int = 1) -> float:
        """The part of a rotation that others of the same ciphertext do not take again."""
        digits = -(-primes // special)
        return self.shared_square * digits * (primes + special) + self.shared_linear * primes

    def mul_plain(self, primes: int) -> float:
        """A product with an encoded plaintext, and its addition."""
        return self.mul_plain_linear * primes

    def matrix(self, products: int, ciphertexts: int, primes: int) -> float:
        """A matrix of numbers times ciphertexts, of so many products, that reads and writes so many ciphertexts."""
        if self.mul_number_linear is None:
            return products * (self.mul_plain(primes) + self.encode_constant(primes))
        return (products * self.mul_number_linear + ciphertexts * self.number_ct_linear) * primes

    def square(self, primes: int, special: int = 1, *, pairs: bool = False) -> float:
        """A square, relinearised; of two images a slot two squares, a conjugation, and a product with i besides."""
        one = self.square_linear * primes + self.key_switch(primes, special)
        return 2 * (one + self.mul_plain(primes)) if pairs else one

    def encode(self, primes: int) -> float:
        """Encoding a vector."""
        return self.encode_fixed + self.encode_linear * primes

    def encode_constant(self, primes: int) -> float:
        """Encoding one number for all slots."""
        return self.encode_constant_linear * primes

    def message(self, primes: int) -> float:
        """A ciphertext that is encrypted, written and read, or written, read and decrypted."""
        return self.message_fixed + self.message_linear * primes

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
class Frame:
    """Where a step begins and must end. Without bootstrapping: anywhere.

    `top` is the level of fresh ciphertexts (None: the highest), `fresh` their scale in bits (None: as planned). The
    fed-back outputs must end at `end_level` or above, at a scale of at most 2^`end_scale`. `noise` is the standard
    deviation that fed-back inputs bring along.
    """

    top: int | None = None
    fresh: float | None = None
    end_level: int = 0
    end_scale: float = math.inf
    noise: float = 0.0


#: Whether a library takes parameters: its own security check may be stricter than the table.
Accept = Callable[[CkksParams], bool]


@dataclass(frozen=True)
class _Means:
    """What operations on a chain cost, with so many special primes."""

    costs: Costs
    special: int = 1


@dataclass(frozen=True)
class _Option:
    chain: tuple[int, ...]
    fresh: float  # scale of fresh ciphertexts
    scale: float  # least scale after a rescale
    weight: float  # least scale of encoded weights

    @cached_property
    def capacity(self) -> tuple[int, ...]:
        return tuple(sum(self.chain[: level + 1]) for level in range(len(self.chain)))


_State = tuple[tuple[float, int], ...]
#: (cost so far, state before, scale before rescaling, rescales, level) of the last operation
_Way = tuple[float, _State | None, float, int, int]
#: Cost of an operation, by its number in order, at a level with so many rescales.
_Costs = dict[tuple[int, int, int], float]


class Planner:
    """Plans one normalised graph. `fits` needs no counts; for anything else set `work` and `layouts` first."""

    def __init__(self, graph: Graph, costs: Costs, capabilities: Capabilities, *, pairs: bool = False) -> None:
        self.graph = graph
        self.pairs = pairs  # two images share each slot
        self.capabilities = capabilities
        self.work: Mapping[str, Work] = {}
        self.layouts: Mapping[str, Layout] = {}
        self.costs = costs
        self._fast = costs.with_fast(capabilities)
        self._forecasters: dict[int, Forecaster] = {}
        history = graph.trajectory(graph.calibration)
        self.peak_bits = {
            name: math.log2(max(1e-6, max(float(np.abs(values[name]).max()) for values in history)))
            for name in graph.nodes
        }
        self.once = once_nodes(graph)
        self.tables = tables(graph, self.once)
        self.order = [
            node for node in graph.nodes.values() if not isinstance(node, Input) and node.name not in self.tables
        ]
        #: What each operation reads at a level and scale that the plan must respect.
        self.reads = {name: self._reads(node) for name, node in graph.nodes.items() if not isinstance(node, Input)}
        self.live = _live(graph, [node.name for node in self.order], self.reads)
        #: Nodes that are fed back: what a frame asks of the end.
        self.ends = {output.node for output in graph.outputs.values() if output.feedback is not None}
        self.frame = Frame()
        #: Results of inner steps of an unrolled graph: they take the scale of fresh ciphertexts, so that all steps are
        #: alike and few states have to be looked at.
        self.boundaries: frozenset[str] = frozenset()

    def search(
        self,
        ring_dimension: int,
        precision_db: float,
        accept: Accept = lambda _: True,
        *,
        allow_insecure: bool = False,
    ) -> Plan:
        """The cheapest plan that reaches `precision_db` (PSNR); LoweringError, with the nearest miss, if none does."""
        able, insecure = self.capabilities, allow_insecure
        given = ring_dimension, precision_db, accept, insecure
        plan, miss = self._shortest(_fast_chains(ring_dimension, able, insecure), *given)
        # Of small primes there are more: fewer large ones may cost less, or reach the precision where those do not.
        most = MOST_PRIMES if plan is None else len(plan.params.modulus_bits) - 1
        others = (chain for chain in _chains(ring_dimension, able, insecure) if len(chain) <= most)
        other, another_miss = self._shortest(others, *given)
        found = [one for one in (plan, other) if one is not None]
        if found:
            return min(found, key=lambda one: one.cost)
        misses = [one.forecast_db for one in (miss, another_miss) if one is not None]
        nearest = f"; the best forecast is {max(misses):.1f} dB" if misses else ""
        raise LoweringError(
            f"no plan reaches {precision_db:g} dB at ring dimension {ring_dimension}{nearest}: ask for less "
            "precision_db, or allow a larger ring dimension"
        )

    def _shortest(
        self,
        chains: Iterable[tuple[int, ...]],
        ring_dimension: int,
        precision_db: float,
        accept: Accept,
        insecure: bool,
    ) -> tuple[Plan | None, Plan | None]:
        """The cheapest plan on the shortest of some chains, short ones first, that reach the precision; the nearest
        miss."""
        best_miss: Plan | None = None
        for _, some in itertools.groupby(chains, key=len):
            found = [plan for chain in some for plan in self._accepted(ring_dimension, chain, accept, insecure)]
            plan, miss = self._first_precise(found, precision_db)
            if plan is not None:
                return plan, None
            if miss is not None and (best_miss is None or miss.forecast_db > best_miss.forecast_db):
                best_miss = miss
        return None, best_miss

    def _accepted(self, ring_dimension: int, chain: tuple[int, ...], accept: Accept, insecure: bool) -> Iterable[Plan]:
        """Plans on one chain, with the special primes that cost least among those that the library takes."""
        if self._place(_coarsest(chain)) is None:
            return ()
        costs = self._means(chain).costs
        for special in _specials(ring_dimension, chain, self.capabilities, costs, insecure):
            if accept(CkksParams(ring_dimension, chain, special, float(SCALES[0]), insecure)):
                return self._plans(ring_dimension, chain, special, insecure)
        return ()

    def _means(self, chain: tuple[int, ...], special: tuple[int, ...] = ()) -> _Means:
        fast = max(chain + special) <= self.capabilities.fast_prime_bits
        return _Means(self._fast if fast else self.costs, len(special))

    def fits(self, ring_dimension: int, *, allow_insecure: bool = False) -> bool:
        """Whether any chain of this ring dimension takes the graph's operations, whatever the precision."""
        return any(self._place(_coarsest(c)) for c in _chains(ring_dimension, self.capabilities, allow_insecure))

    def fits_on(self, chain: tuple[int, ...]) -> bool:
        """Whether a chain takes the graph's operations between begin and end of the frame, whatever the precision."""
        return self._place(_coarsest(chain)) is not None

    def forget(self) -> None:
        """Forecast anew: the frame, the layouts or the work have changed."""
        self._forecasters.clear()

    def fixed(self, params: CkksParams, precision_db: float) -> Plan:
        """The cheapest plan on a modulus chain given by the user, else the most precise that it allows."""
        plan, miss = self._on(params, precision_db)
        chosen = plan or miss
        if chosen is None:
            raise LoweringError(
                f"the modulus chain {list(params.modulus_bits)} is too short for {len(self.order)} operations in "
                "sequence; use more or larger primes, or leave modulus_bits out"
            )
        return chosen

    def precise(self, params: CkksParams, precision_db: float) -> Plan | None:
        """The cheapest plan on given parameters that reaches the precision, or None."""
        return self._on(params, precision_db)[0]

    def _on(self, params: CkksParams, precision_db: float) -> tuple[Plan | None, Plan | None]:
        found = [
            replace(plan, params=replace(params, scale_bits=plan.params.scale_bits))
            for plan in self._plans(
                params.ring_dimension, params.modulus_bits, params.special_bits, params.allow_insecure
            )
        ]
        return self._first_precise(found, precision_db)

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
        """The same levels and rescales, scales of fresh ciphertexts and products moved bit by bit to the best.

        A scale moves alone, so that what comes after it stays, or with those of operations that read it: a square
        doubles it.
        """
        scales = {node.name: plan.choices[node.name].scale_bits for node in self.order if isinstance(node, Affine)}
        if self.frame.fresh is None:
            scales[FRESH] = plan.params.scale_bits
        moves = [move for name in reversed(scales) for move in self._moves(name)]
        best = plan
        while True:
            before = best.forecast_db
            for move, by in itertools.product(moves, (1.0, -1.0)):
                while True:
                    moved = scales | {name: scales[name] + by * factor for name, factor in move.items()}
                    found = self._with_scales(plan, moved)
                    if found is None or found.forecast_db < best.forecast_db + SMALLEST_MOVE_DB:
                        break
                    best, scales = found, moved
            if best.forecast_db < before + SMALLEST_GAIN_DB:
                return best

    def _moves(self, name: str) -> list[dict[str, float]]:
        """Scales that move together, in bits, by names of affine regions or FRESH: one's, and of more and more that
        read it, whose weights then keep their scales."""
        grown = dict.fromkeys(self.graph.inputs, 1.0) if name == FRESH else {name: 1.0}
        found = [{name: 1.0}]
        for node in self.order:
            most = max((grown.get(source, 0.0) for source in self.reads[node.name]), default=0.0)
            if node.name == name or not most:
                continue
            grown[node.name] = most if isinstance(node, Affine) else 2.0 * most
            if isinstance(node, Affine):
                found.append(found[-1] | {node.name: most})
                if len(found) == MOST_TOGETHER:
                    break
        return found

    def _with_scales(self, plan: Plan, moved: Mapping[str, float]) -> Plan | None:
        """The plan with other scales of products and fresh ciphertexts, or None if one does not fit its level."""
        chain = plan.params.modulus_bits
        capacity = list(itertools.accumulate(chain))
        fresh = moved.get(FRESH, plan.params.scale_bits)
        if fresh < LEAST_TUNED:
            return None
        scales = dict.fromkeys(self.graph.inputs, fresh)
        choices = {}
        for node in self.order:
            old = plan.choices[node.name]
            after = old.level - old.rescales
            if isinstance(node, Affine):
                scale = moved[node.name]
                if scale - max(scales[source] for source in self.reads[node.name]) < LEAST_TUNED:
                    return None
            else:
                scale = self._squared(scales[self.reads[node.name][0]])
            rest = scales[node.name] = scale - (capacity[old.level] - capacity[after])
            fits = self._has_room(node.name, scale, capacity[old.level])
            if rest < LEAST_TUNED or not fits or not self._has_room(node.name, rest, capacity[after]):
                return None
            choices[node.name] = Choice(old.level, scale, old.rescales)
        if any(scales[name] > self.frame.end_scale for name in self.ends):
            return None
        params = replace(plan.params, scale_bits=float(fresh))
        forecaster = self._forecaster(params.ring_dimension)
        every = self._with_tables(choices, chain, fresh, params.ring_dimension)
        return None if every is None else Plan(params, every, plan.cost, forecaster.precision_db(params, every))

    def _with_tables(
        self, choices: Mapping[str, Choice], chain: tuple[int, ...], fresh: float, ring_dimension: int
    ) -> dict[str, Choice] | None:
        """The choices with those of tables, or None if one fits no level."""
        found = dict(choices)
        capacity = list(itertools.accumulate(chain))
        top = len(chain) - 1 if self.frame.top is None else self.frame.top
        for name, readers in readers_of(self.graph, self.tables, choices).items():
            peak = self.peak_bits[name] + HEADROOM_BITS
            choice = place_table(readers, peak, top, fresh, capacity, ring_dimension)
            if choice is None:
                return None
            found[name] = choice
        return found

    def _plans(
        self, ring_dimension: int, chain: tuple[int, ...], special: tuple[int, ...], insecure: bool
    ) -> Iterator[Plan]:
        if self._place(_coarsest(chain)) is None:
            return  # nothing fits
        forecaster = self._forecaster(ring_dimension)
        above_least = FRESH_ABOVE if self.frame.fresh is None else (0,)
        finest = 1 if len(self.order) <= MANY_OPERATIONS else 2
        means, costs = self._means(chain, special), _Costs()
        most = math.inf  # scales that did not fit with smaller weights do not fit with larger ones
        for weight, scale, above in itertools.product(WEIGHTS[::finest], SCALES[::finest], above_least):
            if scale >= most:
                continue
            fresh = float(scale + above) if self.frame.fresh is None else self.frame.fresh
            found = self._place(_Option(chain, fresh, scale, weight), means, costs)
            if found is not None:
                params = CkksParams(ring_dimension, chain, special, fresh, insecure)
                choices = self._with_tables(found[1], chain, fresh, ring_dimension)
                if choices is not None:
                    yield Plan(params, choices, found[0], forecaster.precision_db(params, choices))
            elif above == above_least[0]:
                most = scale

    def _forecaster(self, ring_dimension: int) -> Forecaster:
        if ring_dimension not in self._forecasters:
            self._forecasters[ring_dimension] = Forecaster(
                self.graph,
                ring_dimension,
                self.work,
                self.layouts,
                self.frame.noise,
                self.capabilities.symmetric_encryption,
                self.capabilities.fine_reals,
                self.capabilities.centred_digits,
            )
        return self._forecasters[ring_dimension]

    def _place(
        self, option: _Option, means: _Means | None = None, costs: _Costs | None = None
    ) -> tuple[float, dict[str, Choice]] | None:
        """The cheapest (cost, choices) on one chain, or None if it does not fit; `costs` are of earlier calls.

        A state holds (scale in bits, level) of every live value. Of all ways to a state only the cheapest is kept.
        """
        frame = self.frame
        top = len(option.chain) - 1 if frame.top is None else frame.top
        start = (option.fresh if frame.fresh is None else frame.fresh, top)
        front: dict[_State, _Way] = {(start,) * len(self.live[0]): (0.0, None, 0.0, 0, 0)}
        layers = []
        costs, means = _Costs() if costs is None else costs, means or _Means(self.costs)
        for i in range(len(self.order)):
            layers.append(front)
            front = self._advance(i, front, option, means, costs)
            if not front:
                return None
        best = min(front.values(), key=lambda way: way[0])
        cost, choices = best[0], {}
        for node, layer in zip(self.order[::-1], layers[::-1], strict=True):
            _, before, scale, rescales, level = best
            choices[node.name] = Choice(level, scale, rescales)
            assert before is not None
            best = layer[before]
        return cost, dict(reversed(choices.items()))

    def _advance(
        self, i: int, front: Mapping[_State, _Way], option: _Option, means: _Means, costs: _Costs
    ) -> dict[_State, _Way]:
        """The states after one operation."""
        node, frame, capacity = self.order[i], self.frame, option.capacity
        affine = isinstance(node, Affine)
        live = self.live[i]
        reads = [live.index(name) for name in self.reads[node.name]]
        kept = [live.index(name) if name in live and name != node.name else -1 for name in self.live[i + 1]]
        room = self.peak_bits[node.name] + HEADROOM_BITS
        boundary, end = node.name in self.boundaries, node.name in self.ends
        after: dict[_State, _Way] = {}
        for state, way in front.items():
            level = min([state[k][1] for k in reads])
            largest = max([state[k][0] for k in reads])
            for rescales in range(min(MAX_RESCALES, level) + 1):
                left = level - rescales
                dropped = capacity[level] - capacity[left]
                if not affine:
                    scale = self._squared(largest)
                    if scale - dropped < option.scale:
                        break
                elif not boundary:
                    scale = max(largest + option.weight, option.scale + dropped)
                else:
                    scale = option.fresh + dropped
                    if scale < largest + option.weight:
                        continue
                rest = scale - dropped
                if scale + room > capacity[level] or rest + room > capacity[left]:
                    continue
                if end and (rest > frame.end_scale or left < frame.end_level):
                    continue
                if (i, level, rescales) not in costs:
                    costs[i, level, rescales] = self._cost(node, level + 1, rescales, means)
                cost, own = way[0] + costs[i, level, rescales], (rest, left)
                key = tuple([own if k < 0 else state[k] for k in kept])
                before = after.get(key)
                if before is None or cost < before[0]:
                    after[key] = (cost, state, scale, rescales, level)
        return after

    def _reads(self, node: Node) -> list[str]:
        """The sources whose level and scale bind a node; tables, and inputs that are summed beforehand, do not."""
        if not isinstance(node, Affine):
            return list(sources(node))
        inputs = {term.source for term in once_terms(node, self.once) if term.source in self.graph.inputs}
        return [s.source for s in node.terms if s.source not in self.tables and s.source not in inputs]

    def _squared(self, scale: float) -> float:
        """Scale of a square, in bits: of two images a slot, four times itself comes out, which the scale takes up."""
        return 2 * scale + (2 if self.pairs else 0)

    def _has_room(self, name: str, scale: float, capacity: float) -> bool:
        """Whether the largest value of a node at a scale (bits) fits a modulus of `capacity` bits."""
        return scale + self.peak_bits[name] + HEADROOM_BITS <= capacity

    def _cost(self, node: Node, primes: int, rescales: int, means: _Means) -> float:
        """One operation on ciphertexts of so many primes."""
        costs, special = means.costs, means.special
        if isinstance(node, Affine):
            work = self.work.get(node.name, NO_WORK)
            before = work.rotations - work.folds
            cost = work.folds * costs.key_switch(primes - rescales, special)
            cost -= work.shared_folds * costs.shared(primes - rescales, special)
            cost -= work.shared * costs.shared(primes, special)
            cost += before * costs.key_switch(primes, special) + work.encoded * costs.encode(primes)
            cost += work.products * costs.mul_plain(primes) + work.constants * costs.encode_constant(primes)
            cost += costs.matrix(work.matrix, work.matrix_cts, primes)
            rest = rescales * costs.rescale(primes) + (costs.encode(primes) if node.bias.any() else 0.0)
            cost += rest * work.output_ciphertexts
        else:
            cost = costs.square(primes, special, pairs=self.pairs) + rescales * costs.rescale(primes)
            cost *= self.layouts[node.name].ciphertexts if self.layouts else 1
        return cost / self.graph.steps if node.name in self.once else cost


def _coarsest(chain: tuple[int, ...]) -> _Option:
    """What fits if anything does."""
    return _Option(chain, SCALES[0], SCALES[0], WEIGHTS[0])


def _chains(ring_dimension: int, capabilities: Capabilities, allow_insecure: bool) -> Iterator[tuple[int, ...]]:
    """Moduli to try, short ones first: equal primes, as large as library and security allow, and slightly smaller; then
    such that leave room for more special primes.

    Where a library's primes must be smaller than its first one, the first is larger by a bit.
    """
    limit = _limit(ring_dimension, allow_insecure)
    most = capabilities.largest_prime_bits
    first = 1 if most < MAXIMUM_PRIME_BITS else 0
    # Digits that are not centred are converted roughly: with more special primes, that is less precise.
    special_primes = min(capabilities.special_primes, MOST_SPECIAL) if capabilities.centred_digits else 1
    for primes in range(2, MOST_PRIMES + 1):
        largest = [
            min(most, (limit - special * capabilities.largest_special_bits - first) // primes)
            for special in range(1, special_primes + 1)
        ]
        for bits in dict.fromkeys([*(largest[0] - less for less in SMALLER_PRIMES), *largest[1:]]):
            if bits >= MINIMUM_CHAIN_BITS:
                yield (bits + first, *((bits,) * (primes - 1)))


def _fast_chains(ring_dimension: int, capabilities: Capabilities, allow_insecure: bool) -> Iterator[tuple[int, ...]]:
    """Those of primes by which a library is faster, the special ones alike: as large as they may be."""
    most = capabilities.fast_prime_bits
    limit = _limit(ring_dimension, allow_insecure)
    for primes in range(2, MOST_PRIMES + 1) if most else ():
        counts = range(1, min(capabilities.special_primes, MOST_SPECIAL) + 1)
        for bits in dict.fromkeys(min(most, (limit - special * most) // primes) for special in counts):
            if bits >= MINIMUM_CHAIN_BITS:
                yield (bits,) * primes


def _specials(
    ring_dimension: int, chain: tuple[int, ...], capabilities: Capabilities, costs: Costs, allow_insecure: bool
) -> list[tuple[int, ...]]:
    """Special primes that security leaves room for beside a chain, cheapest key switch first."""
    fast = capabilities.fast_prime_bits
    bits = fast if max(chain) <= fast else capabilities.largest_special_bits
    room = (_limit(ring_dimension, allow_insecure) - sum(chain)) // bits
    counts = range(1, min(room, capabilities.special_primes, len(chain)) + 1)
    return [(bits,) * k for k in sorted(counts, key=lambda k: costs.key_switch(len(chain), k))]


def _limit(ring_dimension: int, allow_insecure: bool) -> int:
    return max_log_qp(max(ring_dimension, INSECURE_LIKE) if allow_insecure else ring_dimension)


def _live(graph: Graph, order: Sequence[str], reads: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """For each position in the order, the values that it or a later operation reads; at the end, the outputs."""
    needed = {output.node for output in graph.outputs.values()}
    live: list[tuple[str, ...]] = [tuple(sorted(needed))]
    for name in reversed(order):
        needed = (needed - {name}) | set(reads[name])
        live.append(tuple(sorted(needed)))
    return live[::-1]
