"""Lowering of a graph that only adds multiples of its inputs, entry by entry: no planner is needed, and no key.

A scheduler's update is such a graph: x_{t-1} = f x_t + sum_i a_i eps_i. Constants multiply and nothing is rescaled, so
that one prime is enough; more are taken where more precision is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hefw.core.backend import Backend, KeyManifest
from hefw.core.errors import LoweringError, ParameterError
from hefw.core.graph import Affine, Graph, Input, features
from hefw.core.layout import Layout, periodic
from hefw.core.noise import NoiseModel
from hefw.core.params import MAXIMUM_PRIME_BITS, CkksParams, Resolved, max_log_qp
from hefw.core.program import Interface, LinearOp, Port, Program, Scalar

Array = NDArray[np.float64]

#: Room above the largest calibrated value, in bits: values off the calibration, and the sign.
HEADROOM_BITS = 8.0
#: Bits of the constants, of those that a fresh ciphertext and a constant share: noise of encryption weighs more.
CONSTANT_SHARE = 0.43
MOST_PRIMES = 3
#: Bits below the special prime: some libraries insist on a difference.
SMALLER_PRIMES = (0, 2, 4, 6)
SMALLEST_PRIME = 50  # bits
SMALLEST = 4096  # below, no prime of useful size is secure


def is_combination(graph: Graph) -> bool:
    """Whether the graph is one sum of multiples of its inputs, none of them a constant or sent once a request."""
    others = [node for node in graph.nodes.values() if not isinstance(node, Input)]
    if len(others) != 1 or not isinstance(others[0], Affine) or any(node.once for node in graph.inputs.values()):
        return False
    return not others[0].bias.any() and all(term.matrix.identity_factor is not None for term in others[0].terms)


def shares(graph: Graph) -> dict[str, Array]:
    """The factors (steps,) by which such a graph multiplies each of its inputs."""
    found: dict[str, Array] = {}
    for node in graph.nodes.values():
        for term in node.terms if isinstance(node, Affine) else ():
            factor = term.matrix.identity_factor
            assert factor is not None  # is_combination
            factors = factor * (np.ones(graph.steps) if term.factors is None else term.factors)
            found[term.source] = found.get(term.source, 0) + factors
    return found


def lower_combination(
    graph: Graph, backend: Backend, precision_db: float, params: CkksParams | None, ring_dimension: int | None = None
) -> Program:
    """The program of such a graph on the smallest secure modulus that reaches a PSNR (dB, data range 2).

    LoweringError if none does; `params` fixes them, `ring_dimension` N alone.
    """
    (node,) = (node for node in graph.nodes.values() if isinstance(node, Affine))
    peak = _peak(graph)
    best = -math.inf
    for asked in [params] if params is not None else _candidates(backend, features(node), ring_dimension):
        total = sum(asked.modulus_bits) - 1 - HEADROOM_BITS - math.log2(peak)  # bits of input and constant together
        constant = math.floor(CONSTANT_SHARE * total)
        fresh = math.floor(total - constant)
        forecast = _forecast(graph, backend, asked.ring_dimension, fresh, constant)
        best = max(best, forecast)
        if fresh < 1 or constant < 1 or forecast < precision_db:
            continue
        chosen = CkksParams(
            asked.ring_dimension, asked.modulus_bits, asked.special_bits, float(fresh), asked.allow_insecure
        )
        try:
            resolved = backend.resolve(chosen)
        except ParameterError:
            if params is not None:
                raise
            continue  # a library may want more primes
        return _program(graph, node, resolved, 2.0**fresh, 2.0**constant, forecast)
    where = "" if ring_dimension is None else f" at ring dimension {ring_dimension}"
    given = "the modulus chain that was given" if params is not None else "any modulus"
    advice = "ask for less precision_db" + (", or fix no ring dimension" if where else "")
    raise LoweringError(
        f"backend {backend.name!r} reaches {max(best, 0):.0f} dB{where} with {given}, not {precision_db:g} dB, for a "
        f"sum of multiples of ciphertexts: {advice}"
    )


def _candidates(backend: Backend, entries: int, fixed: int | None) -> Iterator[CkksParams]:
    """Parameters to try, cheapest first: time goes with primes and with slots, full or not; then the larger primes."""
    rings = [n for n in backend.capabilities.ring_dimensions if n >= SMALLEST]
    if fixed is not None:
        backend.check_ring(fixed)
        rings = [fixed]

    def cost(ring_dimension: int) -> tuple[int, int, int]:
        slots = ring_dimension // 2
        return -(-entries // slots) * slots, -min(max_log_qp(ring_dimension) // 2, MAXIMUM_PRIME_BITS), ring_dimension

    for primes in range(1, MOST_PRIMES + 1):
        for ring_dimension in sorted(rings, key=cost):
            special = min(MAXIMUM_PRIME_BITS, max_log_qp(ring_dimension) // (primes + 1))
            for bits in (special - smaller for smaller in SMALLER_PRIMES):
                if bits >= SMALLEST_PRIME:
                    yield CkksParams(ring_dimension, (bits,) * primes, (special,), float(bits - 1))


def _peak(graph: Graph) -> float:
    """The largest value that occurs, partial sums included."""
    largest = {name: float(np.abs(values).max()) for name, values in graph.calibration.items()}
    sums = np.sum([np.abs(share) * largest[name] for name, share in shares(graph).items()], axis=0)
    return max(1.0, *largest.values(), float(sums.max()))


def _forecast(graph: Graph, backend: Backend, ring_dimension: int, fresh: int, constant: int) -> float:
    """PSNR of the worst step, dB: noise of encryption times the constants, and rounding of the constants."""
    model = NoiseModel(ring_dimension)
    noise = (model.fresh if backend.capabilities.symmetric_encryption else model.fresh_public) / 2.0**fresh
    rounding = 2.0 ** -(constant + 1)
    size = {name: float(np.sqrt(np.mean(values**2))) for name, values in graph.calibration.items()}
    errors = [(share * noise) ** 2 + (rounding * size[name]) ** 2 for name, share in shares(graph).items()]
    worst = math.sqrt(float(np.sum(errors, axis=0).max()))
    return 20 * math.log10(2 / worst)


def _program(graph: Graph, node: Affine, params: Resolved, fresh: float, constant: float, forecast: float) -> Program:
    layout = _layout(features(node), params.slots)
    level = params.max_level
    scalars = tuple(Scalar(name, share, constant) for name, share in shares(graph).items())
    op = LinearOp(node.name, level, fresh * constant, 0, (), (), None, scalars, None, None, layout)
    inputs = {
        name: Port(layout, level, fresh, given.shape, previous=given.previous) for name, given in graph.inputs.items()
    }
    outputs = {
        name: Port(
            layout,
            level,
            fresh * constant,
            node.shape,
            factors=tuple(float(x) for x in output.factors),
            feedback=output.feedback,
        )
        for name, output in graph.outputs.items()
    }
    interface = Interface(
        params,
        layout.batch,
        inputs,
        outputs,
        KeyManifest({}, relinearisation=False),
        graph.timesteps,
        graph.digest,
        1,
        1,
        forecast,
        elementwise=True,
    )
    return Program(interface, (), (op,), (), {name: output.node for name, output in graph.outputs.items()})


def _layout(entries: int, slots: int) -> Layout:
    """Entries in their order, as many as fit in each ciphertext; one image a request."""
    return periodic(np.arange(entries, dtype=np.int64), 1, slots)
