"""What a server talks to: an engine takes bytes and gives bytes, wherever it lives."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hefw.core.backend import Backend, Ciphertext, Evaluator, Provenance
from hefw.core.memory import peak_rss_bytes
from hefw.core.program import Program
from hefw.core.progress import ProgressCallback
from hefw.core.runner import Ciphertexts, Runner, Shown, Weights

if TYPE_CHECKING:
    from hefw.core.encoded import WeightStore

Blobs = Mapping[str, Sequence[bytes]]


@dataclass(frozen=True)
class Trace:
    """One operation as it was run: where the ciphertext stood after it, and how long it took.

    `seconds` is wall time since the operation before it; `level` rescales remain at scale 2^`scale_bits`.
    """

    step: int
    operation: str
    level: int
    scale_bits: float
    seconds: float


@dataclass(frozen=True)
class Figures:
    """What an engine did so far. Sizes in bytes, times in seconds; memory is that of all its processes."""

    counts: Counter[str]
    encoded_weights: int
    encode_seconds: float
    peak_rss_bytes: int
    threads: int
    trace: list[Trace]
    provenance: Provenance


class Engine(ABC):
    """Runs one program for one key holder."""

    @abstractmethod
    def load_keys(self, blobs: Mapping[str, bytes]) -> None:
        """Take evaluation keys by name, as `KeyHolder.evaluation_keys` makes them."""

    @abstractmethod
    def prepare(self, progress: ProgressCallback | None = None, store: WeightStore | None = None) -> None:
        """Have the weights that are kept encoded; needs no key. They are taken from a store if the library can."""

    @abstractmethod
    def begin(self, inputs: Blobs, progress: ProgressCallback | None = None) -> None:
        """Start a request with its once-a-request inputs."""

    @abstractmethod
    def run(
        self, step: int, inputs: Blobs, progress: ProgressCallback | None = None, shown: Shown | None = None
    ) -> dict[str, list[bytes]]:
        """One message's worth of steps: named input ciphertexts to named output ciphertexts, envelopes all.

        `shown` are plaintext parts (images, features) by name, added to an input before and to an output after.
        """

    @abstractmethod
    def figures(self) -> Figures:
        """What was done so far."""

    def close(self) -> None:  # noqa: B027 (in this process there is nothing to end)
        """Free what the engine holds; ends its process if it has one of its own."""


class LocalEngine(Engine):
    """An engine in this process: so many threads work on an operation together, if the backend can have them do that.

    Encoded weights may be shared with other engines of the same program.
    """

    def __init__(self, program: Program, backend: Backend, weights: Weights | None = None, threads: int = 1) -> None:
        self.evaluator: Evaluator = backend.evaluator(program.params)
        self.evaluator.threads = threads
        self.runner = Runner(program, self.evaluator, weights)
        self._encode_seconds = 0.0
        self._trace: list[Trace] = []
        self._provenance = backend.provenance()

    def load_keys(self, blobs: Mapping[str, bytes]) -> None:
        """Take evaluation keys by name."""
        self.runner.load_keys(blobs)

    def prepare(self, progress: ProgressCallback | None = None, store: WeightStore | None = None) -> None:
        """Have the weights that are kept encoded."""
        from hefw.core import encoded  # which stands above engines: it writes values as bytes

        started = time.perf_counter()
        encoded.prepare(self.runner.weights, self.evaluator, store, progress)
        self._encode_seconds += time.perf_counter() - started

    def begin(self, inputs: Blobs, progress: ProgressCallback | None = None) -> None:
        """Start a request."""
        self.runner.begin(self._load(inputs), progress)

    def run(
        self, step: int, inputs: Blobs, progress: ProgressCallback | None = None, shown: Shown | None = None
    ) -> dict[str, list[bytes]]:
        """Run a message's steps."""
        last = time.perf_counter()

        def watch(at: int, name: str, value: Sequence[Ciphertext]) -> None:
            nonlocal last
            now = time.perf_counter()
            self._trace.append(Trace(at, name, value[0].level, value[0].scale_bits, now - last))
            last = now

        outputs = self.runner.run(step, self._load(inputs), progress, watch, shown)
        return {name: [self.evaluator.dump(ct) for ct in cts] for name, cts in outputs.items()}

    def figures(self) -> Figures:
        """What was done so far."""
        return Figures(
            Counter(self.evaluator.counts),
            self.runner.weights.kept_bytes,
            self._encode_seconds,
            peak_rss_bytes(),
            self.evaluator.threads_used,
            list(self._trace),
            self._provenance,
        )

    def _load(self, inputs: Blobs) -> dict[str, Ciphertexts]:
        return {name: [self.evaluator.load(item) for item in items] for name, items in inputs.items()}
