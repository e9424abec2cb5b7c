"""From a graph to a program: layouts, transforms, plan, exact scales, keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hefw.core.backend import KeyManifest
from hefw.core.errors import LoweringError
from hefw.core.forecast import Work
from hefw.core.graph import Affine, Graph, Input, LinearTerm, Polynomial, features
from hefw.core.layout import Layout, grid_order, next_power_of_two, periodic
from hefw.core.linear import LinearCost, Transform, transform
from hefw.core.normalise import centre_squares, normalise
from hefw.core.params import RING_DIMENSIONS, CkksParams, Resolved
from hefw.core.plan import Costs, Plan, Planner
from hefw.core.program import Interface, LinearOp, Op, Port, Program, Scalar, SquareOp

Array = NDArray[np.float64]
Resolver = Callable[[CkksParams], Resolved]

DEFAULT_PRECISION_DB = 60.0
MAXIMUM_PRECISION_DB = 200.0  # more would take scales above the largest prime
SMALLEST_PLANNED = 8192  # below, no affine region and square of useful precision is secure
LARGEST_PLANNED = 32768
#: Primes at which operations are compared before the plan is known.
NOMINAL_PRIMES = 5


@dataclass(frozen=True)
class Request:
    """How a graph is to be lowered.

    `precision_db` is the PSNR wanted against plaintext over the whole schedule, in dB (data range 2). `params` fixes
    the modulus chain instead of planning it; `ring_dimension` fixes N alone.
    """

    precision_db: float = DEFAULT_PRECISION_DB
    ring_dimension: int | None = None
    params: CkksParams | None = None
    allow_insecure: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.precision_db <= MAXIMUM_PRECISION_DB:
            raise LoweringError(
                f"precision_db {self.precision_db:g} cannot be reached; ask for 0 to {MAXIMUM_PRECISION_DB:g} dB"
            )


@dataclass(frozen=True)
class _Region:
    """An affine region's transforms: of its sources at every step, and of once-a-request inputs."""

    often: tuple[LinearTerm, ...]
    transform: Transform | None
    scalars: tuple[LinearTerm, ...]
    once: tuple[LinearTerm, ...]
    once_transform: Transform | None


def lower(graph: Graph, resolve: Resolver, request: Request | None = None, costs: Costs | None = None) -> Program:
    """The program of a graph under a backend's primes; LoweringError or ParameterError if there is none.

    `resolve` is `Backend.resolve`.
    """
    request = request or Request()
    costs = costs or Costs()
    if not graph.calibration:
        raise LoweringError("the graph has no calibration inputs, from which ranges are learnt; add them to the graph")
    missing = [name for name in graph.inputs if name not in graph.calibration]
    if missing:
        raise LoweringError(f"the graph has no calibration for its inputs {', '.join(missing)}; add it to the graph")
    flat = centre_squares(normalise(graph))
    for node in flat.nodes.values():
        if isinstance(node, Affine) and not node.terms:
            raise LoweringError(f"{node.name!r} is a constant, which reads no input: compute it in plaintext")
    planner = Planner(flat, costs)
    error: LoweringError | None = None
    for ring_dimension in _ring_dimensions(request):
        try:
            return _lower_at(graph, planner, ring_dimension, resolve, request)
        except LoweringError as failed:
            error = failed
    assert error is not None
    raise error


def _ring_dimensions(request: Request) -> Sequence[int]:
    if request.params is not None:
        return (request.params.ring_dimension,)
    if request.ring_dimension is not None:
        return (request.ring_dimension,)
    return [n for n in RING_DIMENSIONS if SMALLEST_PLANNED <= n <= LARGEST_PLANNED]


def _lower_at(graph: Graph, planner: Planner, ring_dimension: int, resolve: Resolver, request: Request) -> Program:
    flat = planner.graph
    if request.params is None and not planner.fits(ring_dimension, allow_insecure=request.allow_insecure):
        raise LoweringError(
            f"{len(planner.order)} operations in sequence do not fit a modulus that is secure at ring dimension "
            f"{ring_dimension}; allow a larger ring dimension, or use a shallower model"
        )
    layouts, regions = _layouts(flat, ring_dimension // 2, planner.costs)
    planner.layouts = layouts
    planner.work = {name: _work(region, ring_dimension // 2) for name, region in regions.items()}
    if request.params is not None:
        plan = planner.fixed(request.params, request.precision_db)
    else:
        plan = planner.search(ring_dimension, request.precision_db, allow_insecure=request.allow_insecure)
    return _emit(graph, flat, layouts, regions, plan, planner, resolve(plan.params))


# -- layouts and transforms ----------------------------------------------------------------------------------------


def _layouts(graph: Graph, slots: int, costs: Costs) -> tuple[dict[str, Layout], dict[str, _Region]]:
    """The layouts and transforms of the grid on which the whole graph costs least."""
    best: tuple[float, dict[str, Layout], dict[str, _Region]] | None = None
    for grid in _grids(graph):
        orders = {}
        for name, node in graph.nodes.items():
            order = grid_order(node.shape, grid)
            orders[name] = np.arange(features(node), dtype=np.int64) if order is None else order
        period = max(next_power_of_two(len(order)) for order in orders.values())
        batch = max(1, slots // period)
        layouts = {name: periodic(order, batch, slots) for name, order in orders.items()}
        cost, regions = _regions(graph, layouts, costs)
        if best is None or cost < best[0]:
            best = (cost, layouts, regions)
    assert best is not None
    return best[1], best[2]


def _grids(graph: Graph) -> list[tuple[int, int]]:
    spaces = {(node.shape[1], node.shape[2]) for node in graph.nodes.values() if len(node.shape) == 3}
    return sorted(spaces) or [(1, 1)]


def _regions(graph: Graph, layouts: Mapping[str, Layout], costs: Costs) -> tuple[float, dict[str, _Region]]:
    cost = LinearCost(
        costs.key_switch(NOMINAL_PRIMES), costs.mul_plain(NOMINAL_PRIMES), costs.key_switch(NOMINAL_PRIMES)
    )
    keys: set[int] = set()
    total = 0.0
    regions = {}
    # The costliest regions choose their rotations first; the others then prefer keys that exist already.
    affine = [node for node in graph.nodes.values() if isinstance(node, Affine)]
    for node in sorted(affine, key=lambda n: -sum(len(t.matrix.values) for t in n.terms)):
        region = _region(graph, node, layouts, cost, keys)
        regions[node.name] = region
        for found in (region.transform, region.once_transform):
            if found is not None:
                keys |= set(found.rotations)
        if region.transform is not None:
            total += cost.rotate * len(region.transform.rotations) + cost.mul_plain * region.transform.products
    return total + cost.new_key * len(keys), regions


def _region(graph: Graph, node: Affine, layouts: Mapping[str, Layout], cost: LinearCost, keys: set[int]) -> _Region:
    once = graph.once_terms(node)
    rest = [term for term in node.terms if not any(term is other for other in once)]
    out = layouts[node.name]
    scalars = tuple(t for t in rest if t.factors is not None)
    often = tuple(t for t in rest if t.factors is None)
    for term in scalars:
        if not np.array_equal(layouts[term.source].positions, out.positions):
            raise LoweringError(f"{node.name!r} adds a multiple of {term.source!r} a step, but their layouts differ")

    def made(terms: tuple[LinearTerm, ...]) -> Transform | None:
        return transform([(t.matrix, layouts[t.source]) for t in terms], out, cost, keys) if terms else None

    return _Region(often, made(often), scalars, once, made(once))


def _work(region: _Region, slots: int) -> Work:
    """Cost counts what is done at every step; noise also comes from what is done once a request."""
    diagonals = {term.source: 1 / slots for term in region.scalars}
    giants = 0.0
    for terms, found in ((region.often, region.transform), (region.once, region.once_transform)):
        if found is None:
            continue
        share = 2 ** len(found.folds) / len(found.outputs)
        for source, weights in zip(found.weight_sources, found.weights, strict=True):
            name = terms[source].source
            rounded = 1 / slots if bool((weights == weights[0]).all()) else 1
            diagonals[name] = diagonals.get(name, 0) + rounded * share
        giants += share * sum(1 for groups in found.outputs for group in groups if group.giant)
    found = region.transform
    if found is None:
        return Work(0, len(region.scalars), 1, diagonals, giants)
    outputs = len(found.outputs)
    return Work(len(found.rotations), found.products + len(region.scalars) * outputs, outputs, diagonals, giants)


# -- operations with exact scales ------------------------------------------------------------------------------------


def _emit(
    graph: Graph,
    flat: Graph,
    layouts: Mapping[str, Layout],
    regions: Mapping[str, _Region],
    plan: Plan,
    planner: Planner,
    params: Resolved,
) -> Program:
    scale = 2.0**plan.params.scale_bits
    scales = dict.fromkeys(flat.inputs, scale)
    levels = dict.fromkeys(flat.inputs, params.max_level)
    prelude: list[LinearOp] = []
    step: list[Op] = []
    for name, node in flat.nodes.items():
        if isinstance(node, Input):
            continue
        choice = plan.choices[name]
        if isinstance(node, Polynomial):
            before = scales[node.source] ** 2
            shift = node.coefficients[0] if node.coefficients[0].any() else None
            step.append(SquareOp(name, choice.level, before, choice.rescales, node.source, shift, layouts[name]))
        else:
            assert isinstance(node, Affine)
            # The target is exact where the largest source meets a power of two; the others take up the difference.
            anchor = max(planner.reads[name], key=lambda source: scales[source])
            exponent = round(choice.scale_bits - math.log2(scales[anchor]))
            before = scales[anchor] * 2.0**exponent
            region = regions[name]
            addend = None
            if region.once_transform is not None:
                addend = _fresh(f"{name}.once", flat)
                prelude.append(
                    _linear(
                        addend,
                        choice.level,
                        before,
                        0,
                        region.once,
                        region.once_transform,
                        (),
                        None,
                        None,
                        layouts[name],
                        scales,
                    )
                )
            bias = node.bias if node.bias.any() else None
            step.append(
                _linear(
                    name,
                    choice.level,
                    before,
                    choice.rescales,
                    region.often,
                    region.transform,
                    region.scalars,
                    addend,
                    bias,
                    layouts[name],
                    scales,
                )
            )
        after = before
        for k in range(choice.rescales):
            after /= params.primes[choice.level - k]
        scales[name] = after
        levels[name] = choice.level - choice.rescales
    inputs = {
        name: Port(layouts[name], levels[name], scales[name], node.shape, node.once)
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
    batch = next(iter(layouts.values())).batch
    interface = Interface(
        params,
        batch,
        inputs,
        outputs,
        _keys((*prelude, *step)),
        graph.timesteps,
        graph.digest,
        len(step),
        _depth(flat),
        plan.forecast_db,
    )
    kept = tuple(name for name, node in flat.inputs.items() if node.once) + tuple(op.name for op in prelude)
    return Program(interface, tuple(prelude), tuple(step), kept, {key: o.node for key, o in flat.outputs.items()})


def _linear(
    name: str,
    level: int,
    scale: float,
    rescales: int,
    terms: tuple[LinearTerm, ...],
    found: Transform | None,
    scalars: tuple[LinearTerm, ...],
    addend: str | None,
    bias: Array | None,
    layout: Layout,
    scales: Mapping[str, float],
) -> LinearOp:
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
    )


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
        if isinstance(op, LinearOp) and op.transform is not None:
            for step in op.transform.rotations:
                rotations[step] = max(rotations.get(step, 0), op.level)
    return KeyManifest(rotations, relinearisation=any(isinstance(op, SquareOp) for op in ops))


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
