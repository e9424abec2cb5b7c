"""A graph lowered for one set of parameters and one batch: what an engine runs, and what the key holder must know."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from hefw.core.backend import KeyManifest
from hefw.core.errors import LoweringError, ParameterError
from hefw.core.layout import Layout
from hefw.core.linear import Transform
from hefw.core.params import CkksParams, Resolved

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scalar:
    """A multiple of the identity with a factor a step: `value` times factors[step], encoded at `scale`."""

    value: str
    factors: Array
    scale: float

    def at(self, step: int) -> float:
        """The factor at a step; 0 if it rounds to that, since libraries refuse a product that hides nothing."""
        factor = float(self.factors[step % len(self.factors)])
        return factor if abs(factor) * self.scale > 0.5 else 0.0


@dataclass(frozen=True, eq=False)
class Stage:
    """A transform and the scales of its weights, one a source."""

    transform: Transform
    scales: tuple[float, ...]

    def scale(self, weight: int) -> float:
        """Of one weight."""
        return self.scales[self.transform.weight_sources[weight]]

    @property
    def vectors(self) -> list[int]:
        """Weights that are not one number for all slots."""
        return [int(k) for k in np.flatnonzero(~self.transform.constant)]


@dataclass(frozen=True, eq=False)
class LinearOp:
    """One affine region: linear transform of `sources`, plus scalar terms, plus `addend`, plus bias; then rescales.

    All sources are dropped to `level` first. `weight_scales` has one scale a source so that all products reach `scale`.
    With `folds` (in slots), which add up partial sums, the transform alone is rescaled, and then folded at fewer
    primes; `addend` and bias join it there. With `masks`, sources are multiplied by these first, at `mask_scale`, and
    `transform` reads what comes out.
    """

    name: str
    level: int
    scale: float  # before rescaling
    rescales: int
    sources: tuple[str, ...]
    weight_scales: tuple[float, ...]
    transform: Transform | None
    scalars: tuple[Scalar, ...]
    addend: str | None  # a value of the prelude
    bias: Array | None  # (1 or steps, features)
    layout: Layout
    folds: tuple[int, ...] = ()
    masks: Transform | None = None
    mask_scale: float = 1.0

    @property
    def reads(self) -> tuple[str, ...]:
        """Values that it needs; with scalars of 0 it may do without some."""
        addend = () if self.addend is None else (self.addend,)
        return *self.sources, *(scalar.value for scalar in self.scalars), *addend

    @property
    def keeps_bias(self) -> bool:
        """Whether its bias is one plaintext, the same at every step: it is then encoded once, as weights are."""
        return self.bias is not None and len(self.bias) == 1 and self.layout.ciphertexts == 1

    def bias_place(self, primes: Sequence[int]) -> tuple[int, float]:
        """The level and scale at which its bias is added, on a chain of these primes."""
        level, scale = self.level, self.scale
        if self.folds:
            level, scale = level - self.rescales, scale / math.prod(primes[level + 1 - self.rescales : level + 1])
        return level, scale

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Its transforms in order, each of what the one before gives."""
        if self.transform is None:
            return ()
        if self.masks is None:
            return (Stage(self.transform, self.weight_scales),)
        numbers = tuple(scale / self.mask_scale for scale in self.weight_scales)
        return Stage(self.masks, (self.mask_scale,)), Stage(self.transform, numbers)


@dataclass(frozen=True, eq=False)
class SquareOp:
    """source * source + shift, relinearised, then rescaled. `shift` (features,) is the same at every step.

    Where two images share a slot, each is squared by itself (`Evaluator.square_parts`).
    """

    name: str
    level: int
    scale: float  # before rescaling
    rescales: int
    source: str
    shift: Array | None
    layout: Layout

    @property
    def reads(self) -> tuple[str, ...]:
        """The value that it needs."""
        return (self.source,)


Op = LinearOp | SquareOp


@dataclass(frozen=True, eq=False)
class Refresh:
    """An output that the server itself makes the next step's input.

    It is multiplied by that step's `factors` (steps,), at a scale that brings it to exactly `scale`, dropped to
    `level` and bootstrapped; the factors include 1 / `magnitude`, so that its entries are small enough.
    """

    output: str
    feedback: str
    factors: Array
    level: int
    scale: float
    magnitude: float


@dataclass(frozen=True)
class Port:
    """An encrypted input or output as the two parties see it: where entries sit, and at which level and scale."""

    layout: Layout
    level: int
    scale: float
    shape: tuple[int, ...]
    once: bool = False
    factors: tuple[float, ...] = ()  # outputs: public scalars, one a step, that the key holder applies
    feedback: str | None = None  # outputs: the input of the next step that this becomes
    previous: str | None = None  # inputs: what that input was at the step before


@dataclass(frozen=True)
class Interface:
    """What a key holder needs to know of a program: nothing of the weights."""

    params: Resolved
    batch: int
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    keys: KeyManifest
    timesteps: tuple[float, ...]
    graph_digest: str
    regions: int
    depth: int
    forecast_db: float
    #: All operations act on each slot alone: any ciphertexts from the first on are a program's input by themselves.
    elementwise: bool = False

    @property
    def pairs(self) -> bool:
        """Two images share each slot, as real and imaginary part."""
        return self._layout.pairs

    @property
    def images(self) -> int:
        """The most images that one request holds."""
        return self._layout.images

    @property
    def _layout(self) -> Layout:
        """Of any port: all hold the images alike."""
        return next(iter(self.inputs.values())).layout

    @property
    def steps(self) -> int:
        """Times that the program's operations are run: once a message, or for all steps where the server bootstraps."""
        return len(self.timesteps)

    @property
    def messages(self) -> int:
        """How often the key holder sends, and gets back, the inputs of steps."""
        return 1 if self.keys.bootstrap else self.steps

    def last_step(self, message: int) -> int:
        """The step whose outputs answer a message."""
        return self.steps - 1 if self.keys.bootstrap else message

    def pack(self) -> bytes:
        """As bytes for the wire."""
        p = self.params
        fields: dict[str, Any] = {
            "params": p.params.to_dict(),
            "backend": p.backend,
            "primes": list(p.primes),
            "special_primes": list(p.special_primes),
            "batch": self.batch,
            "inputs": {name: _pack_port(port) for name, port in self.inputs.items()},
            "outputs": {name: _pack_port(port) for name, port in self.outputs.items()},
            "rotations": {str(step): level for step, level in self.keys.rotations.items()},
            "relinearisation": self.keys.relinearisation,
            "conjugation": self.keys.conjugation,
            "bootstrap": self.keys.bootstrap,
            "timesteps": [float(t) for t in self.timesteps],
            "graph_digest": self.graph_digest,
            "regions": self.regions,
            "depth": self.depth,
            "forecast_db": self.forecast_db,
            "elementwise": self.elementwise,
            "pairs": self.pairs,
            "alternating": self._layout.alternating,
        }
        return bytes(msgpack.packb(fields))

    @staticmethod
    def unpack(data: bytes) -> Interface:
        """Read and check an interface that a server sent; LoweringError or ParameterError if it is not one."""
        try:
            f = msgpack.unpackb(data, strict_map_key=True)
            params = Resolved(
                CkksParams.from_dict(f["params"]),
                str(f["backend"]),
                _integers(f["primes"]),
                _integers(f["special_primes"]),
            )
            rotations = {int(step): int(level) for step, level in f["rotations"].items()}
            if any(not 0 < step < params.params.ring_dimension // 2 for step in rotations):
                raise ValueError("a rotation outside the slots")
            if any(not 0 <= level <= params.max_level for level in rotations.values()):
                raise ValueError("a rotation at a level that does not exist")
            primes = params.primes + params.special_primes
            sizes = params.params.modulus_bits + params.params.special_bits
            if any(abs(q.bit_length() - bits) > 1 for q, bits in zip(primes, sizes, strict=True)):
                raise ValueError("primes that are not of the announced sizes")
            shared = bool(f["pairs"]), bool(f["alternating"])
            interface = Interface(
                params,
                int(f["batch"]),
                {str(name): _unpack_port(port, params, *shared) for name, port in f["inputs"].items()},
                {str(name): _unpack_port(port, params, *shared) for name, port in f["outputs"].items()},
                KeyManifest(rotations, bool(f["relinearisation"]), bool(f["conjugation"]), bool(f["bootstrap"])),
                _reals(f["timesteps"]),
                str(f["graph_digest"]),
                int(f["regions"]),
                int(f["depth"]),
                float(f["forecast_db"]),
                bool(f["elementwise"]),
            )
        except (LookupError, TypeError, ArithmeticError, ValueError, AttributeError, msgpack.UnpackException) as error:
            raise LoweringError(f"the server's manifest cannot be read: {error!r}") from None
        ports = [*interface.inputs.values(), *interface.outputs.values()]
        if not interface.steps or not interface.inputs or not interface.outputs:
            raise ParameterError("the server's manifest has no steps, no inputs or no outputs")
        if any(port.layout.places != interface.batch for port in ports):
            raise ParameterError(f"the server's manifest has layouts of another batch than {interface.batch}")
        for name, port in interface.inputs.items():
            if port.previous is not None:
                earlier = interface.inputs.get(port.previous)
                if earlier is None or earlier.once or earlier.layout.features != port.layout.features:
                    raise ParameterError(f"input {name!r} in the server's manifest is what no input was")
        for name, port in interface.outputs.items():
            if len(port.factors) != interface.steps:
                raise ParameterError("the server's manifest has another number of factors than of steps")
            if port.feedback is not None:
                fed = interface.inputs.get(port.feedback)
                if fed is None or fed.layout.features != port.layout.features:
                    raise ParameterError(
                        f"output {name!r} in the server's manifest does not fit input {port.feedback!r}"
                    )
        return interface


@dataclass(frozen=True)
class Program:
    """Operations of the prelude (once a request) and of a step, with everything counted before the first one runs."""

    interface: Interface
    prelude: tuple[Op, ...]
    step: tuple[Op, ...]
    kept: tuple[str, ...]  # inputs and prelude values that stay over all steps
    outputs: Mapping[str, str]  # output name -> value name
    refreshes: tuple[Refresh, ...] = ()  # where the server bootstraps between steps

    @property
    def params(self) -> Resolved:
        return self.interface.params

    @property
    def regions(self) -> list[str]:
        """Names of the operations of a step, in order: the units of progress."""
        return [op.name for op in self.step]

    def counts(self, step: int = 0) -> Counter[str]:
        """Evaluator operations of one step, as `Evaluator.counts` will show them (vectors are encoded already)."""
        return _count(self.step, step, self)

    @cached_property
    def spent(self) -> tuple[frozenset[str], ...]:
        """For each operation of a step, the values that it is the last one to read: neither kept nor given out."""
        later, found = {*self.kept, *self.outputs.values()}, []
        for op in reversed(self.step):
            found.append(frozenset(op.reads) - later)
            later.update(op.reads)
        return tuple(reversed(found))

    def prelude_counts(self) -> Counter[str]:
        """Evaluator operations of the prelude (vectors are encoded already)."""
        return _count(self.prelude, 0, self)

    @property
    def weight_count(self) -> int:
        """Plaintexts that are the same at every step: vectors of weights, biases, and shifts of squares.

        Weights that are one number for all slots are encoded as they are used.
        """
        return sum(_kept(op) for op in (*self.prelude, *self.step))

    @property
    def weight_bytes(self) -> int:
        """Memory of these plaintexts: residues of 8 bytes."""
        return sum(self.op_weight_bytes(op) for op in (*self.prelude, *self.step))

    def op_weight_count(self, op: Op) -> int:
        """Plaintexts of one operation."""
        return _kept(op)

    def op_weight_bytes(self, op: Op) -> int:
        """Memory of one operation's plaintexts: residues of 8 bytes."""
        return _kept(op) * (op.level + 1) * self.params.params.ring_dimension * 8

    def levels(self) -> dict[str, tuple[int, float]]:
        """Level and scale (bits) of every value, inputs first."""
        found = {name: (port.level, float(np.log2(port.scale))) for name, port in self.interface.inputs.items()}
        for op in self.step:
            scale = op.scale
            for k in range(op.rescales):
                scale /= self.params.primes[op.level - k]
            found[op.name] = (op.level - op.rescales, float(np.log2(scale)))
        return found


def _kept(op: Op) -> int:
    if isinstance(op, SquareOp):
        return 0 if op.shift is None else op.layout.ciphertexts
    return sum(len(stage.vectors) for stage in op.stages) + op.keeps_bias


def _count(ops: tuple[Op, ...], step: int, program: Program) -> Counter[str]:
    counts: Counter[str] = Counter()
    levels = {name: (port.level, port.layout.ciphertexts) for name, port in program.interface.inputs.items()}
    for op in (*program.prelude, *program.step):
        counted = op in ops
        if isinstance(op, SquareOp):
            n = op.layout.ciphertexts
            levels[op.name] = (op.level - op.rescales, n)
            if counted:
                shifts = 0 if op.shift is None else n
                counts += Counter(mul=n, relinearise=n, add_plain=shifts, rescale=op.rescales * n)
                if op.layout.pairs:
                    counts += Counter(mul=n, conjugate=n, mul_imaginary=n, add=3 * n)
            continue
        n = op.layout.ciphertexts
        levels[op.name] = (op.level - op.rescales, n)
        if not counted:
            continue
        scalars = [scalar for scalar in op.scalars if scalar.at(step)]
        for name in {*op.sources, *(s.value for s in scalars)}:
            if levels[name][0] > op.level:
                counts["drop_level"] += levels[name][1]
        parts = 0
        for found in (stage.transform for stage in op.stages):
            outputs = len(found.outputs)
            counts["rotate"] += len(found.rotations)
            counts["mul_plain"] += found.products
            counts["encode"] += int(np.count_nonzero(found.constant))
            counts["add"] += found.products - outputs + len(found.folds) * outputs
            parts = 1
        counts += Counter(rotate=len(op.folds) * n, add=len(op.folds) * n)
        counts["mul_plain"] += len(scalars) * n
        counts["encode"] += len(scalars) * n
        parts += len(scalars) + (op.addend is not None)
        counts["add"] += max(0, parts - 1) * n
        if op.bias is not None:
            counts["encode"] += 0 if op.keeps_bias else n
            counts["add_plain"] += n
        counts["rescale"] += op.rescales * n
    return +counts


def _pack_port(port: Port) -> dict[str, Any]:
    return {
        "features": port.layout.features,
        "positions": np.ascontiguousarray(port.layout.positions, dtype="<i4").tobytes(),
        "ciphertexts": port.layout.ciphertexts,
        "batch": port.layout.batch,
        "period": port.layout.period,
        "blocks": port.layout.blocks,
        "level": port.level,
        "scale": port.scale,
        "shape": list(port.shape),
        "once": port.once,
        "factors": list(port.factors),
        "feedback": port.feedback,
        "previous": port.previous,
    }


def _unpack_port(data: dict[str, Any], params: Resolved, pairs: bool, alternating: bool) -> Port:
    batch, features, count = int(data["batch"]), int(data["features"]), int(data["ciphertexts"])
    blocks = int(data["blocks"])
    positions = np.frombuffer(data["positions"], dtype="<i4").astype(np.int64).reshape(count, -1)
    if min(batch, blocks) < 1 or positions.shape[1] * batch * blocks != params.slots:
        raise ValueError("a layout that does not fill the slots")
    if positions.min() < -1 or positions.max() != features - 1:
        raise ValueError("a layout of other features")
    if len(np.unique(positions[positions >= 0])) != features:
        raise ValueError("a layout that leaves features out")
    period = int(data["period"])
    if not 0 < period <= positions.shape[1]:
        raise ValueError("a period outside the positions")
    if pairs and alternating and batch % 2:
        raise ValueError("two images a slot in an odd number of places")
    level, scale = int(data["level"]), float(data["scale"])
    if not 0 <= level <= params.max_level or not 0 < scale < 2.0 ** params.log_modulus(level):
        raise ValueError("a level or scale that does not exist")
    shape = _integers(data["shape"])
    if math.prod(shape) != features or min(shape) < 1:
        raise ValueError("a shape that is not the layout's")
    feedback, previous = data["feedback"], data["previous"]
    factors = tuple(float(x) for x in data["factors"])
    if not all(np.isfinite(factors)):
        raise ValueError("factors that are not finite")
    return Port(
        Layout(features, positions, batch, period, pairs, alternating, blocks=blocks),
        level,
        scale,
        shape,
        bool(data["once"]),
        factors,
        None if feedback is None else str(feedback),
        None if previous is None else str(previous),
    )


def _reals(values: Any) -> tuple[float, ...]:
    if (
        not isinstance(values, (list, tuple))
        or len(values) > 100_000
        or not all(type(v) in (int, float) for v in values)
    ):
        raise TypeError("a list of real numbers was expected")
    if not all(math.isfinite(v) for v in values):
        raise ValueError("numbers that are not finite")
    return tuple(map(float, values))


def _integers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (list, tuple)) or len(values) > 100_000 or not all(type(v) is int for v in values):
        raise TypeError("a list of integers was expected")
    return tuple(values)
