"""Encoded weights as bytes, where a library can write and read a plaintext faster than it encodes one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hefw.core import codec
from hefw.core.backend import Evaluator, Plaintext
from hefw.core.codec import Buffer
from hefw.core.errors import HefwError, LoweringError
from hefw.core.program import LinearOp, Op
from hefw.core.progress import Progress, ProgressCallback
from hefw.core.runner import Weights

#: By operation, the bytes of its vectors in order.
Written = dict[str, list[NDArray[Any]]]


class WeightStore(Protocol):
    """Where one program's encoded weights are kept from one process to the next."""

    def load(self) -> Buffer | None:
        """What `save` was given, as one."""
        ...

    def save(self, parts: Sequence[Buffer]) -> None: ...

    def damaged(self) -> None:
        """What was loaded is of no use."""
        ...


def prepare(
    weights: Weights, evaluator: Evaluator, store: WeightStore | None, progress: ProgressCallback | None = None
) -> None:
    """Have all weights that are kept, from the store if it has them; else encode them, and put them there."""
    if store is None or not evaluator.capabilities.plaintext_bytes or weights.complete:
        weights.encode_all(evaluator, progress)
        return
    data = store.load()
    if data is not None:
        try:
            weights.restore(_read(weights, evaluator, data, progress))
            return
        except HefwError:
            store.damaged()
    weights.encode_all(evaluator, progress)
    written = {name: [_array(evaluator.dump_plaintext(pt)) for pt in pts] for name, pts in weights.encoded.items()}
    store.save(codec.parts(written))


def _read(
    weights: Weights, evaluator: Evaluator, data: Buffer, progress: ProgressCallback | None
) -> dict[str, list[Plaintext]]:
    """Every kept operation's vectors; LoweringError or EnvelopeError if they are not those of this program."""
    written: Written = codec.decode(data, Written)
    found: dict[str, list[Plaintext]] = {}
    done, total = 0, weights.kept_count
    for op in weights.kept:
        places = _places(op, evaluator.params.primes)
        vectors = written.get(op.name, [])
        if len(vectors) != len(places):
            raise LoweringError(f"encoded weights of {op.name!r}: {len(vectors)}, not {len(places)}")
        pairs = zip(vectors, places, strict=True)
        found[op.name] = [evaluator.load_plaintext(vector.data, *place) for vector, place in pairs]
        done += len(vectors)
        if progress is not None:
            progress(Progress("encode", done, total, op.name))
    return found


def _places(op: Op, primes: Sequence[int]) -> list[tuple[int, float]]:
    """Levels and scales of an operation's encoded vectors, in order."""
    if not isinstance(op, LinearOp):
        return [] if op.shift is None else [(op.level, op.scale)] * op.layout.ciphertexts
    weights = [(op.level, stage.scale(k)) for stage in op.stages for k in stage.vectors]
    return [*weights, op.bias_place(primes)] if op.keeps_bias else weights


def _array(data: bytes) -> NDArray[np.uint8]:
    """Arrays are read as views, and not copied."""
    return np.frombuffer(data, np.uint8)
