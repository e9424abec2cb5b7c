"""What the evaluator's worker is asked: whole programs by an engine, and single operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

from numpy.typing import NDArray

from hefw.backends.hosted.calls import Calls
from hefw.core.backend import Backend, Bootstrapping, Ciphertext, Evaluator
from hefw.core.engine import Blobs, Engine, Figures
from hefw.core.errors import ProtocolError
from hefw.core.linear import Transform
from hefw.core.params import Resolved
from hefw.core.program import Program
from hefw.core.progress import Progress
from hefw.core.runner import Shown, Weights

OPERATIONS = (
    "add",
    "add_into",
    "add_plain_into",
    "sub",
    "negate",
    "add_plain",
    "mul_plain",
    "multiply_accumulate",
    "mul",
    "square",
    "divide",
    "mul_imaginary",
    "relinearise",
    "rescale",
    "drop_level",
    "drop_plain_level",
    "rotate",
    "conjugate",
    "bootstrap",
)


class EvaluatorCalls(Calls):
    """`evaluator`, `program` and `engine` are numbers of such. There is nothing here that makes or reads a secret."""

    NAMES: ClassVar[tuple[str, ...]] = (
        *Calls.NAMES,
        "load_keys",
        "program",
        "engine",
        "prepare",
        "begin",
        "run",
        "figures",
        "close",
        "evaluator",
        "load",
        "dump",
        "hand_over",
        "encode",
        "operate",
        "promised",
        "rotate_many",
        "transform",
        "linear_transform",
    )

    def __init__(self, backend: Backend, tell: Callable[[Progress], None]) -> None:
        super().__init__(backend, tell)
        backend.drop_secrets()

    def load_keys(self, number: int, blobs: dict[str, bytes]) -> None:
        """Evaluation keys for an engine or an evaluator."""
        taker: Engine | Evaluator = self.get(number)
        taker.load_keys(blobs)

    # -- programs ----------------------------------------------------------------------------------------------------

    def program(self, program: Program, budget: float | None) -> int:
        """The number of a program, whose encoded weights, at most `budget` bytes, all its engines share."""
        return self.keep((program, Weights(program, budget)))

    def engine(self, number: int, threads: int) -> int:
        """The number of a new engine of a program, for so many threads."""
        program, weights = self.get(number)
        return self.keep(self.backend.engine(program, weights, threads))

    def prepare(self, engine: int) -> None:
        """`Engine.prepare`."""
        self._engine(engine).prepare(self.tell)

    def begin(self, engine: int, inputs: Blobs) -> None:
        """`Engine.begin`."""
        self._engine(engine).begin(inputs, self.tell)

    def run(self, engine: int, step: int, inputs: Blobs, shown: Shown) -> dict[str, list[bytes]]:
        """`Engine.run`."""
        return self._engine(engine).run(step, inputs, self.tell, shown)

    def figures(self, engine: int) -> Figures:
        """`Engine.figures`."""
        return self._engine(engine).figures()

    def close(self, engine: int) -> None:
        """`Engine.close`."""
        self._engine(engine).close()

    # -- single operations: the process that calls has checked them, and keeps levels and scales --------------------

    def evaluator(self, params: Resolved) -> int:
        """The number of a new evaluator."""
        return self.keep(self.backend.evaluator(params))

    def load(self, evaluator: int, payload: bytes, level: int, scale: float) -> int:
        """The number of a ciphertext."""
        return self.keep(self._evaluator(evaluator)._load(payload, level, scale))

    def dump(self, evaluator: int, ciphertext: Ciphertext) -> bytes:
        """The library's bytes."""
        return self._evaluator(evaluator)._dump(self.local(ciphertext))

    def hand_over(self, evaluator: int, ciphertext: Ciphertext) -> bytes:
        """The library's bytes of two parts, which every key holder reads."""
        found, local = self._evaluator(evaluator), self.local(ciphertext)
        return found._dump(found.relinearise(local) if local.size > 2 else local)

    def encode(self, evaluator: int, values: NDArray[Any] | float, level: int, scale: float) -> int:
        """The number of a plaintext."""
        return self.keep(self._evaluator(evaluator)._encode(values, level, scale))

    def operate(self, evaluator: int, name: str, *operands: Any) -> int:
        """The number of the result of one of OPERATIONS."""
        if name not in OPERATIONS:
            raise ProtocolError(f"there is no operation {name!r} here")
        return self.keep(getattr(self._evaluator(evaluator), f"_{name}")(*map(self.local, operands)))

    def promised(self, evaluator: int) -> Bootstrapping:
        """What bootstrapping takes and gives."""
        return self._evaluator(evaluator)._bootstrapping()

    def rotate_many(
        self, evaluator: int, ciphertext: Ciphertext, steps: list[int]
    ) -> tuple[list[Ciphertext], Counter[str]]:
        """The library's own, if it has one; what was counted comes along."""
        found = self._evaluator(evaluator)
        return self._counted(found, lambda: found.rotate_many(self.local(ciphertext), steps))

    def transform(self, transform: Transform) -> int:
        """The number of a transform, for `linear_transform`."""
        return self.keep(transform)

    def linear_transform(
        self, evaluator: int, inputs: list[Ciphertext], transform: int, weights: list[Any]
    ) -> tuple[list[Ciphertext], Counter[str]]:
        """The library's own, if it has one; what was counted comes along."""
        found = self._evaluator(evaluator)
        return self._counted(
            found, lambda: found.linear_transform(self.local(inputs), self.get(transform), self.local(weights))
        )

    def _counted(
        self, evaluator: Evaluator, compute: Callable[[], list[Ciphertext]]
    ) -> tuple[list[Ciphertext], Counter[str]]:
        evaluator.counts.clear()
        results = [Ciphertext(self.keep(ct.handle), ct.level, ct.scale, ct.size) for ct in compute()]
        return results, evaluator.counts

    def _evaluator(self, number: int) -> Evaluator:
        found: Evaluator = self.get(number)
        return found

    def _engine(self, number: int) -> Engine:
        found: Engine = self.get(number)
        return found
