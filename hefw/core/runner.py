"""Runs programs on an evaluator: the one place where operations, levels and scales meet.

Weights are encoded once per transform, level and scale, and shared by all steps, requests and sessions of a program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

from numpy.typing import NDArray

from hefw.core.backend import SCALE_TOLERANCE, Ciphertext, Evaluator, Kept, Plaintext
from hefw.core.errors import LevelError, ProtocolError, ScaleError
from hefw.core.layout import Layout
from hefw.core.memory import weights_budget
from hefw.core.program import LinearOp, Op, Port, Program, SquareOp, Stage
from hefw.core.progress import Progress, ProgressCallback

Ciphertexts = list[Ciphertext]
Watch = Callable[[int, str, Ciphertexts], None]  # step, operation, value
Shown = Mapping[str, NDArray[Any]]  # input or output -> its plaintext part (images, features)


#: Weights that are one number for all slots are kept where so many times as many others are.
FEW = 8


class Weights:
    """Encoded weights of one program. Holds no key, so that every session of a server may share it.

    Weights are kept as far as `budget` (bytes) goes. Of those that are not, some are kept ones of the same matrix,
    encoded for a higher level and the same scale: a library that can take them to a lower level does so at every use.
    The others are encoded at every use, and so are weights that are one number for all slots, unless there are few:
    that is cheap, and there may be more of them than memory takes.
    """

    def __init__(self, program: Program, budget: float | None = None) -> None:
        self.program = program
        self._encoded: dict[str, list[Plaintext]] = {}
        self._stages: dict[tuple[str, int], Kept] = {}  # by operation and stage, where all are encoded
        self._sources = _shared(program)
        self.budget = room = weights_budget() if budget is None else budget
        self._kept: set[str] = set()
        # What others can be made from comes first.
        ops = (*program.prelude, *program.step)
        for op in sorted(ops, key=lambda op: op.name in self._sources):
            size = program.op_weight_bytes(op)
            if size <= room:
                self._kept.add(op.name)
                room -= size

    @property
    def kept_count(self) -> int:
        """Plaintexts that are encoded once and kept."""
        return sum(self.program.op_weight_count(op) for op in self._ops() if op.name in self._kept)

    def encode_all(self, evaluator: Evaluator, progress: ProgressCallback | None = None) -> None:
        """Encode whatever is kept and not encoded yet."""
        done, total = 0, self.kept_count
        for op in self._ops():
            if op.name in self._kept:
                done += len(self._vectors(evaluator, op))
                if progress is not None:
                    progress(Progress("encode", done, total, op.name))

    @property
    def kept(self) -> list[Op]:
        """Operations whose vectors are encoded once."""
        return [op for op in self._ops() if op.name in self._kept]

    @property
    def complete(self) -> bool:
        """Whether whatever is kept is encoded."""
        return self._kept <= self._encoded.keys()

    @property
    def encoded(self) -> Mapping[str, Sequence[Plaintext]]:
        """What is encoded so far, by operation."""
        return self._encoded

    def restore(self, encoded: Mapping[str, list[Plaintext]]) -> None:
        """Take vectors that were encoded before, by operation."""
        self._encoded |= encoded
        self._stages.clear()

    @property
    def kept_bytes(self) -> int:
        """Memory of the plaintexts encoded so far, in bytes: residues of 8 bytes."""
        n = self.program.params.params.ring_dimension
        return sum((pt.level + 1) * n * 8 for pts in self._encoded.values() for pt in pts)

    def keeps(self, op: Op) -> bool:
        """Whether an operation's vectors are encoded once; otherwise at every use."""
        return op.name in self._kept

    def shifts(self, evaluator: Evaluator, op: SquareOp) -> Sequence[Plaintext]:
        """What a square adds at every step, at its level and scale."""
        return self._vectors(evaluator, op) or [
            _shift(evaluator, op, k) for k in range(self.program.op_weight_count(op))
        ]

    def bias(self, evaluator: Evaluator, op: LinearOp) -> Plaintext:
        """What an operation that keeps its bias adds."""
        vectors = self._vectors(evaluator, op)
        return vectors[-1] if vectors else _bias(evaluator, op)

    def get(self, evaluator: Evaluator, op: LinearOp, number: int = 0) -> Sequence[Plaintext]:
        """What a stage of an operation multiplies with at every step, at its level and scales; some are encoded when
        read."""
        if (op.name, number) in self._stages:
            return self._stages[op.name, number]
        stages = op.stages
        vectors = iter(self._vectors(evaluator, op) or self._above(evaluator, op))
        for before in stages[:number]:
            for _ in before.vectors:
                next(vectors, None)
        ready = [None if constant else next(vectors, None) for constant in stages[number].transform.constant]
        read = _AsRead(evaluator, op, stages[number], ready)
        numbers = ready.count(None)
        if self.keeps(op) and FEW * numbers <= len(ready):
            return self._stages.setdefault((op.name, number), Kept(list(read)))
        return read

    def _vectors(self, evaluator: Evaluator, op: Op) -> Sequence[Plaintext]:
        """The vectors of an operation if they are kept, encoded at the latest now."""
        if op.name in self._kept and op.name not in self._encoded:
            self._encoded[op.name] = _encode(evaluator, op)
        return self._encoded.get(op.name, ())

    def _above(self, evaluator: Evaluator, op: LinearOp) -> Sequence[Plaintext]:
        """The same vectors at a higher level, if they are kept there and can be taken to a lower one."""
        return self._encoded.get(self._sources.get(op.name, ""), ()) if evaluator.capabilities.plaintext_levels else ()

    def _ops(self) -> tuple[Op, ...]:
        return (*self.program.prelude, *self.program.step)


def _shared(program: Program) -> dict[str, str]:
    """Operations whose weights are those of another one at a higher level."""
    own: dict[int, list[LinearOp]] = {}  # of each matrix, operations that cannot do with another's weights
    found = {}
    for op in (*program.prelude, *program.step):
        if not isinstance(op, LinearOp) or op.transform is None:
            continue
        others = own.setdefault(id(op.transform), [])
        other = next((other for other in others if other.level >= op.level and _same_scales(op, other)), None)
        if other is None:
            others.append(op)
        else:
            found[op.name] = other.name
    return found


def _same_scales(a: LinearOp, b: LinearOp) -> bool:
    scales = zip((*a.weight_scales, a.mask_scale), (*b.weight_scales, b.mask_scale), strict=True)
    return all(abs(x - y) <= SCALE_TOLERANCE / 2 * max(x, y) for x, y in scales)


class _AsRead(Sequence[Plaintext]):
    """The weights of a stage. Those that are not ready are encoded when they are read, those that are at a higher
    level taken to the operation's: neither is kept, so that one at a time takes memory."""

    def __init__(self, evaluator: Evaluator, op: LinearOp, stage: Stage, ready: Sequence[Plaintext | None]) -> None:
        self._evaluator = evaluator
        self._op = op
        self._stage = stage
        self._ready = ready

    def __len__(self) -> int:
        return len(self._ready)

    @overload
    def __getitem__(self, index: int) -> Plaintext: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Plaintext]: ...

    def __getitem__(self, index: int | slice) -> Plaintext | Sequence[Plaintext]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        ready = self._ready[index]
        if ready is None:
            return _weight(self._evaluator, self._op, self._stage, index)
        return ready if ready.level == self._op.level else self._evaluator.drop_plain_level(ready, self._op.level)


def _encode(evaluator: Evaluator, op: Op) -> list[Plaintext]:
    """All vectors of an operation."""
    if isinstance(op, SquareOp):
        return [] if op.shift is None else [_shift(evaluator, op, k) for k in range(op.layout.ciphertexts)]
    weights = [_weight(evaluator, op, stage, k) for stage in op.stages for k in stage.vectors]
    return [*weights, _bias(evaluator, op)] if op.keeps_bias else weights


def _bias(evaluator: Evaluator, op: LinearOp) -> Plaintext:
    """The bias of an operation that keeps it."""
    assert op.bias is not None
    return evaluator.encode(op.layout.broadcast(op.bias[0], 0), *op.bias_place(evaluator.params.primes))


def _shift(evaluator: Evaluator, op: SquareOp, ciphertext: int) -> Plaintext:
    assert op.shift is not None
    return evaluator.encode(op.layout.broadcast(op.shift, ciphertext), op.level, op.scale)


def _weight(evaluator: Evaluator, op: LinearOp, stage: Stage, index: int) -> Plaintext:
    scale, weight = stage.scale(index), stage.transform.weight(index)
    if isinstance(weight, float) and abs(weight) * scale < 1:
        weight = math.copysign(1 / scale, weight)  # libraries refuse a product with zero, which hides nothing
    return evaluator.encode(weight, op.level, scale, real=not op.layout.pairs)


class Runner:
    """One session's run of a program: an evaluator with that session's keys, and the shared weights."""

    def __init__(self, program: Program, evaluator: Evaluator, weights: Weights | None = None) -> None:
        self.program = program
        self.evaluator = evaluator
        self.weights = weights or Weights(program)
        self._kept: dict[str, Ciphertexts] = {}

    def load_keys(self, blobs: Mapping[str, bytes]) -> None:
        """Take evaluation keys by name."""
        self.evaluator.load_keys(blobs)

    def begin(self, inputs: Mapping[str, Ciphertexts], progress: ProgressCallback | None = None) -> None:
        """Start a request: take its once-a-request inputs and compute what stays the same over all steps."""
        self.evaluator.require_keys(self.program.interface.keys.names())
        self._kept = {}
        for name, port in self.program.interface.inputs.items():
            if port.once:
                self._kept[name] = _checked(name, inputs, port)
        for number, op in enumerate(self.program.prelude):
            self._kept[op.name] = self._operation(op, 0, self._kept, frozenset())
            if progress is not None:
                progress(Progress("label", number + 1, len(self.program.prelude), op.name))

    def run(
        self,
        message: int,
        inputs: Mapping[str, Ciphertexts],
        progress: ProgressCallback | None = None,
        watch: Watch | None = None,
        shown: Shown | None = None,
    ) -> dict[str, Ciphertexts]:
        """One message's inputs to its outputs: one step, or all of them where the server bootstraps.

        `watch(step, region, value)` sees every value. `shown` are plaintext parts that an input has beside its
        ciphertext, or an output that is not an input's name: they are added to it.
        """
        interface = self.program.interface
        if not 0 <= message < interface.messages:
            raise ProtocolError(f"step {message} does not exist; this program has steps 0 to {interface.messages - 1}")
        missing = [name for name in self.program.kept if name not in self._kept]
        if missing:
            raise ProtocolError(f"the request has not begun: {', '.join(missing)} missing; call begin first")
        given = self._given(inputs, shown or {})
        last = interface.last_step(message)
        for step in range(message, last):
            outputs = self._step(step, given, progress, watch)
            given |= self._refresh(step, outputs, watch)
        outputs = self._step(last, given, progress, watch)
        for name in (interface.outputs.keys() & (shown or {})) - interface.inputs.keys():
            outputs[name] = self._add_shown(outputs[name], interface.outputs[name].layout, (shown or {})[name])
        return outputs

    def _given(self, inputs: Mapping[str, Ciphertexts], shown: Shown) -> dict[str, Ciphertexts]:
        """The inputs of a message, checked, with their plaintext parts."""
        interface = self.program.interface
        ports = {name: port for name, port in interface.inputs.items() if not port.once}
        unknown = shown.keys() - ports.keys() - interface.outputs.keys()
        if unknown:
            raise ProtocolError(f"plaintext for {', '.join(sorted(unknown))}, which this program does not have")
        if interface.elementwise:  # what has no share in a step may be left out
            ports = {name: port for name, port in ports.items() if name in inputs}
        given = {name: _checked(name, inputs, port, interface.elementwise) for name, port in ports.items()}
        if interface.elementwise and len({len(value) for value in given.values()}) != 1:
            raise ProtocolError("the inputs of a step must have one number of ciphertexts, at least one")
        for name in given.keys() & shown:
            given[name] = self._add_shown(given[name], ports[name].layout, shown[name])
        return given

    def _add_shown(self, value: Ciphertexts, layout: Layout, part: NDArray[Any]) -> Ciphertexts:
        evaluator = self.evaluator
        packed = layout.pack(part)[: len(value)]
        return [
            evaluator.add_plain(ct, evaluator.encode(slots, ct.level, ct.scale)) if slots.any() else ct
            for ct, slots in zip(value, packed, strict=True)
        ]

    def _step(
        self, step: int, given: Mapping[str, Ciphertexts], progress: ProgressCallback | None, watch: Watch | None
    ) -> dict[str, Ciphertexts]:
        values = {**self._kept, **given}
        ops = self.program.step
        several = self.program.interface.keys.bootstrap
        for number, op in enumerate(ops):
            values[op.name] = self._operation(op, step, values, self.program.spent[number])
            if watch is not None:
                watch(step, op.name, values[op.name])
            if progress is not None:
                before, steps = (step, self.program.interface.steps) if several else (0, 1)
                progress(Progress("evaluate", before * len(ops) + number + 1, steps * len(ops), op.name))
        return {name: values[value] for name, value in self.program.outputs.items()}

    def _refresh(self, step: int, outputs: Mapping[str, Ciphertexts], watch: Watch | None) -> dict[str, Ciphertexts]:
        """Outputs of one step as inputs of the next, with their levels given back."""
        evaluator = self.evaluator
        refreshed = {}
        for refresh in self.program.refreshes:
            made = []
            for ct in outputs[refresh.output]:
                # By a constant at just the scale that is missing: multiplies and lifts to the scale wanted at once.
                lifted = evaluator.mul_scalar(ct, float(refresh.factors[step]), refresh.scale / ct.scale)
                fresh = evaluator.bootstrap(evaluator.drop_level(lifted, refresh.level))
                made.append(replace(fresh, scale=refresh.scale / refresh.magnitude))
            if watch is not None:
                watch(step, f"bootstrap {refresh.feedback}", made)
            refreshed[refresh.feedback] = made
        return refreshed

    def _operation(self, op: Op, step: int, values: dict[str, Ciphertexts], spent: frozenset[str]) -> Ciphertexts:
        """The value of an operation; those that are spent afterwards leave `values`, so that memory is used again."""
        if isinstance(op, SquareOp):
            return self._square(op, list(values.pop(op.source) if op.source in spent else values[op.source]))
        total = self._linear(op, step, values)
        for name in spent:
            values.pop(name, None)  # one that a scalar of 0 multiplies may not be there
        if op.folds:
            total = [self.evaluator.fold(self._rescaled(ct, op), op.folds, given_up=True) for ct in total]
        if op.addend is not None:
            total = _add(self.evaluator, total, values[op.addend])
        return self._finished(op, step, total)

    def _square(self, op: SquareOp, source: Ciphertexts) -> Ciphertexts:
        evaluator = self.evaluator
        square = evaluator.square_parts if op.layout.pairs else evaluator.square
        shifts = None if op.shift is None else self.weights.shifts(evaluator, op)
        results = []
        for k, ct in enumerate(_given_up(source)):
            # Exactly the scale that was planned, as in `_rescaled`.
            found = replace(square(ct), scale=op.scale)
            if shifts is not None:
                found = evaluator.add_plain_into(found, shifts[k])
            results.append(self._rescaled(found, op))
        return results

    def _linear(self, op: LinearOp, step: int, values: Mapping[str, Ciphertexts]) -> Ciphertexts:
        """The sum of an affine region's products, none of which is anything else."""
        evaluator = self.evaluator
        dropped: dict[str, Ciphertexts] = {}

        def at_level(name: str) -> Ciphertexts:
            if name not in dropped:
                dropped[name] = [evaluator.drop_level(ct, op.level) for ct in values[name]]
            return dropped[name]

        total: Ciphertexts | None = None
        if op.stages:
            total = [ct for name in op.sources for ct in at_level(name)]
        for number, stage in enumerate(op.stages):
            assert total is not None
            total = evaluator.linear_transform(total, stage.transform, self.weights.get(evaluator, op, number))
        for scalar in op.scalars:
            factor = scalar.at(step)
            if factor and scalar.value in values:
                part = [evaluator.mul_scalar(ct, factor, scalar.scale) for ct in at_level(scalar.value)]
                total = part if total is None else _add(evaluator, total, part)
        if total is None:
            raise ScaleError(f"region {op.name!r} is zero at step {step}; it has no ciphertext value")
        return total

    def _finished(self, op: LinearOp, step: int, total: Ciphertexts) -> Ciphertexts:
        """With its bias, and rescaled."""
        evaluator = self.evaluator
        bias = None if op.bias is None else op.bias[step if len(op.bias) > 1 else 0]
        results = []
        for k, ct in enumerate(_given_up(total)):
            if bias is not None:
                if op.keeps_bias:
                    addend = self.weights.bias(evaluator, op)
                else:
                    addend = evaluator.encode(op.layout.broadcast(bias, k), ct.level, ct.scale)
                ct = evaluator.add_plain_into(ct, addend)
            results.append(ct if op.folds else self._rescaled(ct, op))
        return results

    def _rescaled(self, ct: Ciphertext, op: Op) -> Ciphertext:
        """Rescaled from exactly the scale that was planned: products of floats are off it by roundings."""
        return self.evaluator.rescale(replace(ct, scale=op.scale), op.rescales)


def _given_up(value: Ciphertexts) -> Iterator[Ciphertext]:
    """Each ciphertext in turn, taken out of the list: its memory is free when it is used."""
    value.reverse()
    while value:
        yield value.pop()


def _add(evaluator: Evaluator, total: Ciphertexts, part: Ciphertexts) -> Ciphertexts:
    return [evaluator.add_into(a, b) for a, b in zip(total, part, strict=True)]


def _checked(name: str, inputs: Mapping[str, Ciphertexts], port: Port, fewer: bool = False) -> Ciphertexts:
    """The ciphertexts of an input, at the level and scale that the program was planned for; all, or `fewer`."""
    if name not in inputs:
        raise ProtocolError(f"input {name!r} is missing; sent: {', '.join(inputs) or 'none'}")
    ciphertexts: Any = inputs[name]
    most = port.layout.ciphertexts
    if not (1 if fewer else most) <= len(ciphertexts) <= most:
        raise ProtocolError(
            f"input {name!r} has {len(ciphertexts)} ciphertexts; {'1 to ' if fewer else ''}{most} are expected"
        )
    for ct in ciphertexts:
        if ct.level != port.level:
            raise LevelError(f"input {name!r} has level {ct.level}; the program takes level {port.level}")
        if ct.scale != port.scale:
            raise ScaleError(f"input {name!r} has scale {ct.scale:g}; the program takes scale {port.scale:g}")
    return list(ciphertexts)
