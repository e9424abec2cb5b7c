"""The server's side of a hosted backend, operation by operation. Whole programs go through `engine`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from numpy.typing import NDArray

from hefw.backends.hosted.channel import LARGE
from hefw.backends.hosted.process import Handle, Worker
from hefw.core.backend import Bootstrapping, Capabilities, Ciphertext, Evaluator, Plaintext
from hefw.core.errors import ProtocolError
from hefw.core.linear import Transform
from hefw.core.params import Resolved

Counted = tuple[list[Ciphertext], Counter[str]]


class HostedEvaluator(Evaluator):
    """Handles are `Handle`s: objects of the library in the worker. Levels, scales and counts are kept here."""

    def __init__(self, params: Resolved, capabilities: Capabilities, worker: Worker) -> None:
        super().__init__(params, capabilities)
        self._worker = worker
        self._home = Handle(worker, worker.call("evaluator", int, params))
        self._brought: WeakKeyDictionary[Handle, Handle] = WeakKeyDictionary()

    # -- one call each, so that the library's own way is taken -----------------------------------------------------

    def rotate_many(self, a: Ciphertext, steps: Sequence[int]) -> list[Ciphertext]:
        """`rotate` for several steps of one ciphertext."""
        return self._counted("rotate_many", self._sent(a), list(steps))

    def linear_transform(
        self, inputs: Sequence[Ciphertext], transform: Transform, weights: Sequence[Plaintext]
    ) -> list[Ciphertext]:
        """Matrices times encrypted vectors; the level stays, the scales multiply."""
        worker = self._worker
        if transform not in worker.shared:
            worker.shared[transform] = Handle(worker, worker.call("transform", int, transform))
        number = worker.shared[transform].number
        held = list(weights)  # some are encoded as they are read: the worker must not let go of them before
        return self._counted("linear_transform", self._sent(inputs), number, self._sent(held))

    def _counted(self, name: str, *arguments: Any) -> list[Ciphertext]:
        found, counts = self._worker.call(name, Counted, self._home.number, *arguments)
        self.counts.update(counts)
        for ct in found:
            if type(ct.handle) is not int:
                raise ProtocolError(f"{self._worker.name} sent no ciphertexts for {name!r}")
        return [Ciphertext(self._handle(ct.handle), ct.level, ct.scale, ct.size) for ct in found]

    # -- keys and bytes ------------------------------------------------------------------------------------------

    def load_keys(self, blobs: Mapping[str, bytes]) -> None:
        """Take evaluation keys by name, one after the other: the worker first, which has to parse them."""
        for name, blob in blobs.items():
            self._worker.call("load_keys", type(None), self._home.number, {name: blob})
            super().load_keys({name: blob})

    def _load_key(self, name: str, payload: bytes) -> None:
        """Nothing more: the worker has it, envelope and all."""

    def _load(self, payload: bytes, level: int, scale: float) -> Handle:
        return self._handle(self._worker.call("load", int, self._home.number, payload, level, scale))

    def _dump(self, ciphertext: Ciphertext) -> bytes:
        sent = self._sent(ciphertext)
        found: bytes = self._worker.call("dump", bytes, self._home.number, sent, most=LARGE)
        return found

    def _encode(self, values: NDArray[Any] | float, level: int, scale: float) -> Handle:
        return self._handle(self._worker.call("encode", int, self._home.number, values, level, scale))

    # -- operations ------------------------------------------------------------------------------------------------

    def _add(self, a: Ciphertext, b: Ciphertext) -> Handle:
        return self._operate("add", a, b)

    def _add_into(self, a: Ciphertext, b: Ciphertext) -> Handle:
        return self._operate("add_into", a, b)

    def _add_plain_into(self, a: Ciphertext, b: Plaintext) -> Handle:
        return self._operate("add_plain_into", a, b)

    def _sub(self, a: Ciphertext, b: Ciphertext) -> Handle:
        return self._operate("sub", a, b)

    def _negate(self, a: Ciphertext) -> Handle:
        return self._operate("negate", a)

    def _add_plain(self, a: Ciphertext, b: Plaintext) -> Handle:
        return self._operate("add_plain", a, b)

    def _mul_plain(self, a: Ciphertext, b: Plaintext) -> Handle:
        return self._operate("mul_plain", a, b)

    def _multiply_accumulate(self, pairs: Sequence[tuple[Ciphertext, Plaintext]]) -> Handle:
        return self._operate("multiply_accumulate", pairs)

    def _mul(self, a: Ciphertext, b: Ciphertext) -> Handle:
        return self._operate("mul", a, b)

    def _square(self, a: Ciphertext) -> Handle:
        return self._operate("square", a)

    def _divide(self, a: Ciphertext, by: float) -> Handle:
        return self._operate("divide", a, by)

    def _mul_imaginary(self, a: Ciphertext) -> Handle:
        return self._operate("mul_imaginary", a)

    def _relinearise(self, a: Ciphertext) -> Handle:
        return self._operate("relinearise", a)

    def _rescale(self, a: Ciphertext) -> Handle:
        return self._operate("rescale", a)

    def _drop_level(self, a: Ciphertext, level: int) -> Handle:
        return self._operate("drop_level", a, level)

    def _drop_plain_level(self, a: Plaintext, level: int) -> Handle:
        return self._operate("drop_plain_level", a, level)

    def _rotate(self, a: Ciphertext, step: int) -> Handle:
        return self._operate("rotate", a, step)

    def _conjugate(self, a: Ciphertext) -> Handle:
        return self._operate("conjugate", a)

    def _bootstrap(self, a: Ciphertext) -> Handle:
        return self._operate("bootstrap", a)

    def _bootstrapping(self) -> Bootstrapping:
        found: Bootstrapping = self._worker.call("promised", Bootstrapping, self._home.number)
        return found

    def _operate(self, name: str, *operands: Any) -> Handle:
        return self._handle(self._worker.call("operate", int, self._home.number, name, *map(self._sent, operands)))

    def _sent(self, operand: Any) -> Any:
        """An operand as it is sent. A key holder's ciphertext is brought over first, once."""
        if isinstance(operand, (tuple, list)):
            return [self._sent(item) for item in operand]
        if isinstance(operand, Ciphertext):
            handle = operand.handle
            if isinstance(handle, Handle) and handle.payload:
                if handle not in self._brought:
                    self._brought[handle] = self._load(handle.payload, operand.level, operand.scale)
                operand = replace(operand, handle=self._brought[handle])
        return self._worker.sent(operand)

    def _handle(self, number: int) -> Handle:
        return Handle(self._worker, number, self._home)
