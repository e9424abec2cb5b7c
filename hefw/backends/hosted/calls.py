"""What a worker is asked about its backend, whichever side it is of, and the objects that it holds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

from hefw.core.backend import Backend, Bootstrapping, Capabilities, Ciphertext, Plaintext, Provenance
from hefw.core.memory import peak_rss_bytes
from hefw.core.params import CkksParams, Resolved
from hefw.core.progress import Progress


class Calls:
    """Calls by name. Objects stay here: the process that calls has their numbers."""

    NAMES: ClassVar[tuple[str, ...]] = (
        "capabilities",
        "provenance",
        "resolve",
        "bootstrap_params",
        "bootstrapping",
        "memory",
        "release",
    )

    def __init__(self, backend: Backend, tell: Callable[[Progress], None]) -> None:
        self.backend = backend
        self.tell = tell
        self._objects: dict[int, Any] = {}
        self._numbers = itertools.count(1)

    # -- objects -----------------------------------------------------------------------------------------------------

    def keep(self, item: Any) -> int:
        """The number under which an object is known from now on."""
        number = next(self._numbers)
        self._objects[number] = item
        return number

    def get(self, number: int) -> Any:
        """The object of a number."""
        return self._objects[number]

    def forget(self, numbers: list[int]) -> None:
        """Let go of objects."""
        for number in numbers:
            self._objects.pop(number, None)

    def local(self, operand: Any) -> Any:
        """An operand with the library's objects in place of their numbers."""
        if isinstance(operand, Ciphertext):
            return Ciphertext(self.get(operand.handle), operand.level, operand.scale, operand.size)
        if isinstance(operand, Plaintext):
            return Plaintext(self.get(operand.handle), operand.level, operand.scale)
        if isinstance(operand, (tuple, list)):
            return [self.local(item) for item in operand]
        return operand

    # -- calls -------------------------------------------------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        """Those of the backend."""
        return self.backend.capabilities

    def provenance(self) -> Provenance:
        """Its library, version and interpreter, and this process."""
        return self.backend.provenance()

    def resolve(self, params: CkksParams) -> Resolved:
        """The primes that the library takes."""
        return self.backend.resolve(params)

    def bootstrap_params(self, slots: int, levels: int, allow_insecure: bool) -> CkksParams:
        """Parameters to bootstrap with."""
        return self.backend.bootstrap_params(slots, levels, allow_insecure=allow_insecure)

    def bootstrapping(self, params: Resolved) -> Bootstrapping:
        """What bootstrapping takes and gives."""
        return self.backend.bootstrapping(params)

    def memory(self) -> int:
        """Peak resident memory of this process, in bytes."""
        return peak_rss_bytes()

    def release(self) -> None:
        """Nothing: every call brings the numbers of objects to let go of."""
