"""From a graph to a program: layouts, transforms, plan, exact scales, keys."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hefw.core.backend import Backend, Bootstrapping, KeyManifest
from hefw.core.combination import is_combination, lower_combination
from hefw.core.diagonals import Stages
from hefw.core.errors import LoweringError, ParameterError
from hefw.core.graph import Affine, Graph, Input, LinearTerm, Polynomial, sources
from hefw.core.layout import Layout, next_power_of_two
from hefw.core.layouts import NOMINAL_PRIMES, BuiltRegion, build_regions, choose, messages, smallest_period, work_of
from hefw.core.linear import Transform
from hefw.core.normalise import centre_squares, normalise
from hefw.core.params import CkksParams, Resolved, max_log_qp
from hefw.core.plan import SCALES, Costs, Frame, Plan, Planner
from hefw.core.program import Interface, LinearOp, Op, Port, Program, Refresh, Scalar, SquareOp
from hefw.core.unroll import boundaries, unroll

Array = NDArray[np.float64]

DEFAULT_PRECISION_DB = 60.0
MAXIMUM_PRECISION_DB = 200.0  # more would take scales above the largest prime
SMALLEST_PLANNED = 8192  # below, no affine region and square of useful precision is secure
LARGEST_PLANNED = 65536
#: Operations above which a program is long enough for a larger ring to be cheaper.
LONG_PROGRAM = 27
#: Rescales left after bootstrapping: fewer fit no step, more leave the largest ring no room for bootstrapping itself.
BOOTSTRAP_LEVELS = range(2, 16)
#: An output is multiplied by a public factor before it is bootstrapped: bits of scale that are kept for it.
LIFT_BITS = 16
#: Room for values off the calibration before bootstrapping, beyond which it fails.
BOOTSTRAP_HEADROOM = 2.0


@dataclass(frozen=True)
class Request:
    """How a graph is to be lowered.

    `precision_db` is the PSNR wanted against plaintext over the whole schedule, in dB (data range 2). `params` fixes
    the modulus chain instead of planning it; `ring_dimension` fixes N alone. `every` steps are done from one message;
    with `bootstrap` all are, and the server gives levels back after every so many. `images` are wanted in one go: the
    layouts are those that cost least for so many; None: not known, which leaves room for as many as go into one
    ciphertext. `pairs` has two images share each slot; None: where it costs less
    for so many images. `places` fixes how many places for images a ciphertext has, a power of two.
    """

    precision_db: float = DEFAULT_PRECISION_DB
    ring_dimension: int | None = None
    params: CkksParams | None = None
    allow_insecure: bool = False
    every: int = 1
    bootstrap: bool = False
    images: int | None = None
    pairs: bool | None = None
    places: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.precision_db <= MAXIMUM_PRECISION_DB:
            raise LoweringError(
                f"precision_db {self.precision_db:g} cannot be reached; ask for 0 to {MAXIMUM_PRECISION_DB:g} dB"
            )


def lower(graph: Graph, backend: Backend, request: Request | None = None, costs: Costs | None = None) -> Program:
    """The program of a graph under a backend's primes; LoweringError or ParameterError if there is none."""
    request = request or Request()
    _check_pairs(graph, backend, request)
    if not graph.calibration:
        raise LoweringError("the graph has no calibration inputs, from which ranges are learnt; add them to the graph")
    missing = [name for name in graph.inputs if name not in graph.calibration]
    if missing:
        raise LoweringError(f"the graph has no calibration for its inputs {', '.join(missing)}; add it to the graph")
    if request.bootstrap:
        if any(node.previous is not None for node in graph.inputs.values()):
            raise LoweringError(
                "a scheduler that goes back several steps needs the key holder at each; use refresh: client, or a "
                "one-step scheduler such as ddim"
            )
        backend.require("bootstrap")
    elif request.every == 1 and is_combination(graph):
        return lower_combination(graph, backend, request.precision_db, request.params, request.ring_dimension)
    if request.every > 1 and not request.bootstrap:
        _check_depth(graph, backend, request)
    _check_range(graph)
    flat = centre_squares(normalise(unroll(graph, request.every)))
    for node in flat.nodes.values():
        if isinstance(node, Affine) and not node.terms:
            raise LoweringError(f"{node.name!r} is a constant, which reads no input: compute it in plaintext")
    able = backend.capabilities.under(request.params, bootstrap=request.bootstrap)
    return _cheapest(graph, flat, backend, request, (costs or Costs()).on(able))


def _check_pairs(graph: Graph, backend: Backend, request: Request) -> None:
    """Two images a slot are refused, by name, where that cannot be."""
    if not request.pairs:
        return
    if request.bootstrap:
        raise LoweringError("pairs: slots of two images are not bootstrapped; leave pairs out, or use refresh: client")
    if is_combination(graph):
        raise LoweringError("pairs: an update alone packs its numbers by itself; leave pairs out")
    backend.require("complex_values")
    backend.require("conjugation")


def _cheapest(graph: Graph, flat: Graph, backend: Backend, request: Request, costs: Costs) -> Program:
    """With two images a slot where that is asked for, or costs less for as many images as are wanted."""
    lowering = _Lowering(graph, flat, backend, request, costs, pairs=bool(request.pairs))
    if request.bootstrap:
        return lowering.bootstrapped()
    found = lowering.cheapest()
    able = backend.capabilities.conjugation and backend.capabilities.complex_values
    # One ciphertext a tensor is too few.
    several = lowering.images > found.plan.params.slots // smallest_period(flat)
    if request.pairs is None and able and several:
        paired = _Lowering(graph, flat, backend, request, costs, pairs=True)
        with contextlib.suppress(LoweringError):
            other = paired.cheapest()
            precise = other.plan.forecast_db >= min(request.precision_db, found.plan.forecast_db)
            if precise and other.cost_of(lowering.images) < found.cost_of(lowering.images):
                lowering, found = paired, other
    return lowering.emitted(found)


def _check_depth(graph: Graph, backend: Backend, request: Request) -> None:
    """So many steps a message that no chain could take them are refused before anything of that size is made."""
    depth: dict[str, int] = {}  # squares in sequence
    for name, node in graph.nodes.items():
        curved = isinstance(node, Polynomial) and len(node.coefficients) > 2
        depth[name] = curved + max((depth[source] for source in sources(node)), default=0)
    least = request.every * max(depth.values()) * SCALES.start  # a square doubles its scale, which a rescale takes back
    largest = max(backend.capabilities.ring_dimensions)
    if least > max_log_qp(largest) and not request.allow_insecure:
        raise LoweringError(
            f"{request.every} steps a message take a modulus of at least {least} bits; at most {max_log_qp(largest)} "
            f"are secure at ring dimension {largest}, the largest of backend {backend.name!r}: ask for fewer steps a "
            "message (refresh: client with every), or use refresh: bootstrap"
        )


def _check_range(graph: Graph) -> None:
    """A network that diverges on its calibration has no scales."""
    with np.errstate(all="ignore"):
        for step, values in enumerate(graph.trajectory(graph.calibration)):
            for name, value in values.items():
                if not np.isfinite(value).all():
                    raise LoweringError(
                        f"the values of {name!r} grow without bound by step {step} of {graph.steps}: in plaintext, "
                        "too, this model diverges with this scheduler; choose another scheduler or number of steps"
                    )


@dataclass(frozen=True)
class _Planned:
    """A plan at one ring dimension; `cost` can be compared with that at another."""

    plan: Plan
    layouts: dict[str, Layout]
    regions: dict[str, BuiltRegion]
    cost: float

    @property
    def images(self) -> int:
        """The most images in one request."""
        return next(iter(self.layouts.values())).images

    def cost_of(self, images: int) -> float:
        """That of as many requests as the images take."""
        return self.cost * -(-images // self.images)


class _Lowering:
    """`pairs`: two images share each slot."""

    def __init__(
        self, graph: Graph, flat: Graph, backend: Backend, request: Request, costs: Costs, *, pairs: bool = False
    ) -> None:
        self.graph = graph
        self.flat = flat
        self.backend = backend
        self.request = request
        self.images = request.images or 1
        self.costs = costs
        self.pairs = pairs
        self.able = backend.capabilities.under(request.params, bootstrap=request.bootstrap)
        self.planner = Planner(flat, costs, self.able, pairs=pairs)
        self.planner.boundaries = boundaries(graph, request.every)

    def cheapest(self) -> _Planned:
        """The cheapest plan of all ring dimensions, for as many images as are wanted."""
        error: LoweringError | None = None
        found: _Planned | None = None
        images = self.images
        # A larger ring has room for more special primes, and a long chain then has far fewer digits.
        long = len(self.planner.order) > LONG_PROGRAM and self.able.special_primes > 1
        for ring_dimension in self.ring_dimensions():
            first = found is None
            try:
                planned = self.planned(ring_dimension)
            except LoweringError as failed:
                error = failed
            else:
                if found is None or planned.cost_of(images) < found.cost_of(images):
                    found = planned
            # Where one request holds all images, a larger ring only costs more; otherwise the next one may cost less.
            if found is not None and not long and (images <= found.images or not first):
                break
        if found is None:
            assert error is not None
            raise error
        return found

    def emitted(self, found: _Planned) -> Program:
        """The program of a plan."""
        params = self.backend.resolve(found.plan.params)
        return _emit(self.graph, self.flat, found.layouts, found.regions, found.plan, self.planner, params, None)

    def ring_dimensions(self) -> Sequence[int]:
        offered = self.backend.capabilities.ring_dimensions
        fixed = self.request.params.ring_dimension if self.request.params else self.request.ring_dimension
        if fixed is not None:
            self.backend.check_ring(fixed)
            return (fixed,)
        return [n for n in offered if SMALLEST_PLANNED <= n <= LARGEST_PLANNED] or [max(offered)]

    def planned(self, ring_dimension: int) -> _Planned:
        """Levels are given back by the key holder, or not at all."""
        request, planner = self.request, self.planner
        fits = request.params is not None or planner.fits(ring_dimension, allow_insecure=request.allow_insecure)
        if not fits:
            several = f"{request.every} steps a message, " if request.every > 1 else ""
            raise LoweringError(
                f"{several}{len(planner.order)} operations in sequence do not fit a modulus that is secure at ring "
                f"dimension {ring_dimension}; allow a larger ring dimension"
                + (" (backends differ in the largest), ask for fewer steps a message" if several else "")
                + ", or use a shallower model"
            )
        layouts, regions = self.layouts(ring_dimension // 2)
        sent = messages(self.flat, layouts, self.costs, NOMINAL_PRIMES)
        if request.params is not None:
            plan = planner.fixed(request.params, request.precision_db)
        else:
            insecure = request.allow_insecure
            plan = planner.search(ring_dimension, request.precision_db, self.accepts, allow_insecure=insecure)
        return _Planned(plan, layouts, regions, (plan.cost + sent) * ring_dimension)

    def bootstrapped(self) -> Program:
        """The server gives levels back: the shortest chain above bootstrapping's own that reaches the precision."""
        request, planner = self.request, self.planner
        if request.params is not None or request.ring_dimension is not None:
            raise ParameterError(
                "ring_dimension and modulus_bits cannot be chosen where the server bootstraps: its own parameters "
                "decide; leave them out, or use refresh: client"
            )
        wanted = smallest_period(self.flat) * next_power_of_two(self.images)
        slots = min(wanted, LARGEST_PLANNED // 2)  # more images are sent in several requests
        peak = self.peak()
        for levels in BOOTSTRAP_LEVELS:
            params = self.backend.bootstrap_params(slots, levels, allow_insecure=request.allow_insecure)
            guess = params.scale_bits - math.log2(peak)
            planner.frame = Frame(levels, guess, 1, params.scale_bits - LIFT_BITS)
            if not planner.fits_on(params.modulus_bits):
                continue
            resolved = self.backend.resolve(params)
            promised = self.backend.bootstrapping(resolved)
            known = {step for step in promised.rotations if step < slots}
            layouts, regions = self.layouts(slots, known, bounded=True)
            factor = peak / promised.magnitude
            bits = math.log2(promised.scale)
            noise = promised.error * factor
            planner.frame = Frame(
                promised.level_out, bits - math.log2(factor), promised.level_in, bits - LIFT_BITS, noise
            )
            planner.forget()
            plan = planner.precise(params, request.precision_db)
            if plan is not None:
                refresh = (promised, factor)
                return _emit(self.graph, self.flat, layouts, regions, plan, planner, resolved, refresh)
        raise LoweringError(
            f"no chain of up to {BOOTSTRAP_LEVELS[-1]} levels between bootstraps reaches {request.precision_db:g} dB; "
            "ask for less precision_db, or use refresh: client"
        )

    def peak(self) -> float:
        """A power of two above all values that are fed back."""
        history = self.flat.trajectory(self.flat.calibration)
        values = [
            float(np.abs(step[output.node] * output.factors[k]).max())
            for k, step in enumerate(history)
            for output in self.flat.outputs.values()
            if output.feedback is not None
        ]
        return 2.0 ** math.ceil(math.log2(BOOTSTRAP_HEADROOM * max([1e-6, *values])))

    def layouts(
        self, slots: int, keys: Iterable[int] = (), *, bounded: bool = False
    ) -> tuple[dict[str, Layout], dict[str, BuiltRegion]]:
        """Those of the graph in so many slots, for the planner too."""
        counted = choose(
            self.flat,
            slots,
            self.costs,
            self.images,
            keys=keys,
            pairs=self.pairs,
            bounded=bounded,
            places=self.request.places,
            replicas=self.request.images is not None,
        )
        regions, layouts = build_regions(counted), dict(counted.layouts)
        if self.pairs:
            turned = self.backend.capabilities.alternating_imaginary
            layouts = {name: layout.paired(alternating=turned) for name, layout in layouts.items()}
        self.planner.layouts = layouts
        self.planner.work = {name: work_of(region, counted.encoded[name], slots) for name, region in regions.items()}
        return layouts, regions

    def accepts(self, params: CkksParams) -> bool:
        """Whether the library takes parameters that the table allows."""
        try:
            self.backend.resolve(params)
        except ParameterError:
            return False
        return True


# -- operations with exact scales ------------------------------------------------------------------------------------


def _emit(
    graph: Graph,
    flat: Graph,
    layouts: Mapping[str, Layout],
    regions: Mapping[str, BuiltRegion],
    plan: Plan,
    planner: Planner,
    params: Resolved,
    refresh: tuple[Bootstrapping, float] | None,
) -> Program:
    scale = 2.0**plan.params.scale_bits
    scales = dict.fromkeys(flat.inputs, scale)
    top = params.max_level if planner.frame.top is None else planner.frame.top
    levels = dict.fromkeys(flat.inputs, top)
    prelude: list[Op] = []
    step: list[Op] = []
    early = _Unfolded()
    for name, node in flat.nodes.items():
        if isinstance(node, Input):
            continue
        choice = plan.choices[name]
        part = prelude if name in planner.once else step
        if isinstance(node, Polynomial):
            before = scales[node.source] ** 2 * (4 if layouts[name].pairs else 1)
            shift = node.coefficients[0] if node.coefficients[0].any() else None
            part.append(SquareOp(name, choice.level, before, choice.rescales, node.source, shift, layouts[name]))
        else:
            assert isinstance(node, Affine)
            # The target is exact where the largest source meets a power of two; the others take up the difference.
            anchor = max(planner.reads[name], key=lambda source: scales[source])
            exponent = round(choice.scale_bits - math.log2(scales[anchor]))
            before = scales[anchor] * 2.0**exponent
            region = regions[name]
            late = choice.rescales if region.folds else 0
            addend = None
            mask_scale = 2.0 ** planner.work[name].mask_bits(math.log2(before / scales[anchor]))
            if region.once_stages is not None:
                addend = _fresh(f"{name}.once", flat)
                prelude.append(
                    _linear(
                        addend,
                        choice.level,
                        before,
                        late,
                        region.once,
                        region.once_stages,
                        mask_scale,
                        (),
                        None,
                        None,
                        layouts[name],
                        scales,
                        early if late else None,
                    )
                )
            bias = node.bias if node.bias.any() else None
            part.append(
                _linear(
                    name,
                    choice.level,
                    before,
                    choice.rescales,
                    region.often,
                    region.stages,
                    mask_scale,
                    region.scalars,
                    addend,
                    bias,
                    layouts[name],
                    scales,
                    early if late else None,
                )
            )
        after = before
        for k in range(choice.rescales):
            after /= params.primes[choice.level - k]
        scales[name] = after
        levels[name] = choice.level - choice.rescales
    inputs = {
        name: Port(layouts[name], levels[name], scales[name], node.shape, node.once, previous=node.previous)
        for name, node in flat.inputs.items()
    }
    outputs = {
        key: Port(
            layouts[o.node],
            levels[o.node],
            scales[o.node],
            flat.nodes[o.node].shape,
            factors=tuple(float(x) for x in o.factors),
            feedback=o.feedback,
        )
        for key, o in flat.outputs.items()
    }
    batch = next(iter(layouts.values())).places
    keys = _keys((*prelude, *step))
    if refresh is not None:
        keys = _with_bootstrapping(keys, refresh[0], params)
    interface = Interface(
        params,
        batch,
        inputs,
        outputs,
        keys,
        flat.timesteps,
        graph.digest,
        len(step),
        _depth(flat),
        plan.forecast_db,
    )
    kept = tuple(name for name, node in flat.inputs.items() if node.once) + tuple(op.name for op in prelude)
    sources = {key: o.node for key, o in flat.outputs.items()}
    return Program(interface, tuple(prelude), tuple(step), kept, sources, _refreshes(flat, refresh))


def _with_bootstrapping(keys: KeyManifest, promised: Bootstrapping, params: Resolved) -> KeyManifest:
    rotations = dict(keys.rotations) | dict.fromkeys(promised.rotations, params.max_level)
    return KeyManifest(rotations, conjugation=True, bootstrap=True)


def _refreshes(flat: Graph, refresh: tuple[Bootstrapping, float] | None) -> tuple[Refresh, ...]:
    if refresh is None:
        return ()
    promised, factor = refresh
    return tuple(
        Refresh(name, output.feedback, output.factors / factor, promised.level_in, promised.scale, factor)
        for name, output in flat.outputs.items()
        if output.feedback is not None
    )


def _linear(
    name: str,
    level: int,
    scale: float,
    rescales: int,
    terms: tuple[LinearTerm, ...],
    stages: Stages | None,
    mask_scale: float,
    scalars: tuple[LinearTerm, ...],
    addend: str | None,
    bias: Array | None,
    layout: Layout,
    scales: Mapping[str, float],
    early: _Unfolded | None,
) -> LinearOp:
    found = None if stages is None else stages.transform
    masks = None if stages is None else stages.masks
    folds = () if early is None or found is None else found.folds
    found = found if early is None or found is None else early.of(found)
    return LinearOp(
        name,
        level,
        scale,
        rescales,
        tuple(term.source for term in terms),
        tuple(scale / scales[term.source] for term in terms),
        found,
        tuple(Scalar(t.source, _factors(t), scale / scales[t.source]) for t in scalars),
        addend,
        bias,
        layout,
        folds,
        masks,
        1.0 if masks is None else mask_scale,
    )


class _Unfolded:
    """Transforms without their folds; of one that several operations share there is one."""

    def __init__(self) -> None:
        self._made: dict[int, Transform] = {}

    def of(self, found: Transform) -> Transform:
        """The transform up to its partial sums."""
        if id(found) not in self._made:
            self._made[id(found)] = replace(found, folds=())
        return self._made[id(found)]


def _fresh(name: str, graph: Graph) -> str:
    while name in graph.nodes:
        name += "'"
    return name


def _factors(term: LinearTerm) -> Array:
    factor = term.matrix.identity_factor
    assert factor is not None  # both checked by the graph
    assert term.factors is not None
    return factor * term.factors


def _keys(ops: Sequence[Op]) -> KeyManifest:
    rotations: dict[int, int] = {}
    for op in ops:
        if isinstance(op, LinearOp):
            for step in (step for stage in op.stages for step in stage.transform.rotations):
                rotations[step] = max(rotations.get(step, 0), op.level)
            for step in op.folds:
                rotations[step] = max(rotations.get(step, 0), op.level - op.rescales)
    squares = [op for op in ops if isinstance(op, SquareOp)]
    return KeyManifest(rotations, bool(squares), conjugation=any(op.layout.pairs for op in squares))


def _depth(graph: Graph) -> int:
    """Multiplications in sequence, squares and products with weights alike."""
    depth: dict[str, int] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, Affine):
            depth[name] = 1 + max(depth[term.source] for term in node.terms)
        elif isinstance(node, Polynomial):
            depth[name] = 1 + depth[node.source]
        else:
            depth[name] = 0
    return max(depth.values())
