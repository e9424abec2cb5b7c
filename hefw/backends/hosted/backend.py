"""`HostedBackend`: any backend, in worker processes of this or of another interpreter."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hefw.backends.hosted.process import Handle, Side, Worker
from hefw.core.backend import (
    Backend,
    Bootstrapping,
    Capabilities,
    Evaluator,
    KeyHolder,
    KeyManifest,
    Provenance,
)
from hefw.core.engine import Engine
from hefw.core.errors import CapabilityError, ProtocolError
from hefw.core.params import CkksParams, Resolved
from hefw.core.program import Program
from hefw.core.runner import Weights

KEY_ID_BYTES = 16


class HostedBackend(Backend):
    """Key holders live in one worker, evaluators and engines in another; each is started when it is first needed.

    A worker that has ended takes with it what lived there; whoever asks for something new gets a new worker.
    """

    def __init__(
        self,
        name: str,
        target: str,
        options: Mapping[str, Any] | None = None,
        python: Sequence[str] = (sys.executable,),
        patience: float = 120.0,
    ) -> None:
        """Nothing is started yet.

        Parameters
        ----------
        name : the backend's own name, which is in every envelope.
        target : "package.module:Class", as in an `Entry`; imported by the workers only.
        options : what the class is given, as an object with these attributes, or None. Values as JSON has them.
        python : the command of an interpreter, 3.10 or newer, that has the library, numpy and msgpack.
        patience : seconds that a worker may take to start, or to answer what is quick.
        """
        super().__init__(options)
        self.name = name
        self.target = target
        self.python = tuple(python)
        self.patience = patience
        self._given = options
        self._lock = threading.RLock()
        self._workers: dict[Side, Worker] = {}
        self._told: Capabilities | None = None
        self._server = False

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # known when a worker was asked
        """What the library can do. Threads take turns; a forked child is refused."""
        if self._told is None:
            told: Capabilities = self._ask("capabilities", Capabilities)
            self._told = replace(told, threads=True, fork=False, plaintext_bytes=False)
        return self._told

    def resolve(self, params: CkksParams) -> Resolved:
        """The primes that the library takes; ParameterError if it cannot."""
        found: Resolved = self._ask("resolve", Resolved, params)
        if found.params != params or found.backend != self.name:
            raise ProtocolError(f"backend {self.name!r} resolved other parameters than it was asked for")
        return found

    def bootstrap_params(self, slots: int, levels: int, *, allow_insecure: bool = False) -> CkksParams:
        """Parameters under which `slots` values can be bootstrapped with `levels` rescales left afterwards."""
        worker = self._planner()
        found: CkksParams = worker.call("bootstrap_params", CkksParams, slots, levels, allow_insecure)
        return found

    def bootstrapping(self, params: Resolved) -> Bootstrapping:
        """What bootstrapping takes and gives under such parameters."""
        found: Bootstrapping = self._planner().call("bootstrapping", Bootstrapping, params)
        return found

    def keygen(self, params: Resolved, manifest: KeyManifest) -> KeyHolder:
        """A new secret key, in the key holder's worker."""
        return self._key_holder("keygen", params, manifest)

    def load_key_holder(self, params: Resolved, manifest: KeyManifest, path: Path) -> KeyHolder:
        """The key holder of a file that `save` wrote; the worker reads it."""
        return self._key_holder("load_key_holder", params, manifest, str(Path(path).absolute()))

    def evaluator(self, params: Resolved) -> Evaluator:
        """A server's side, operation by operation."""
        from hefw.backends.hosted.evaluator import HostedEvaluator

        return HostedEvaluator(params, self.capabilities, self._worker("evaluator"))

    def engine(self, program: Program, weights: Weights | None = None, threads: int = 1) -> Engine:
        """What runs a program in the evaluator's worker. Engines of the same `weights` share what is encoded there.

        The worker may fork, as `Backend.engine` does.
        """
        from hefw.backends.hosted.engine import HostedEngine

        worker = self._worker("evaluator")
        with self._lock:
            number = None if weights is None else worker.shared.get(weights)
            if number is None:
                budget = None if weights is None else weights.budget
                number = Handle(worker, worker.call("program", int, program, budget))
                if weights is not None:
                    worker.shared[weights] = number
        return HostedEngine(worker, number, threads)

    def provenance(self) -> Provenance:
        """The library in a worker, its interpreter, and the worker's process."""
        found: Provenance = self._ask("provenance", Provenance)
        return found

    def worker_memory(self) -> int:
        """That of all workers that are there, added."""
        with self._lock:
            there = [worker for worker in self._workers.values() if worker.alive]
        return sum(worker.call("memory", int, patience=self.patience) for worker in there)

    def drop_secrets(self) -> None:
        """From now on this is a server's: there is no key holder's worker any more."""
        with self._lock:
            self._server = True
            if (worker := self._workers.pop("key holder", None)) is not None:
                worker.end()

    def close(self) -> None:
        """End all workers."""
        with self._lock:
            for worker in self._workers.values():
                worker.end()
            self._workers.clear()

    def _key_holder(self, call: str, params: Resolved, manifest: KeyManifest, *rest: str) -> KeyHolder:
        from hefw.backends.hosted.keyholder import HostedKeyHolder

        worker = self._worker("key holder")
        number, key_id = worker.call(call, tuple[int, bytes], params, manifest, *rest)
        if len(key_id) != KEY_ID_BYTES:
            raise ProtocolError(f"{worker.name} sent a key id of {len(key_id)} bytes; it has {KEY_ID_BYTES}")
        return HostedKeyHolder(params, manifest, worker, number, key_id)

    def _ask(self, call: str, kind: Any, *arguments: Any) -> Any:
        return self._planner().call(call, kind, *arguments, patience=self.patience)

    def _planner(self) -> Worker:
        """The worker that is asked about the library: the one that this process is likely to need anyway."""
        return self._worker("evaluator" if self._server else "key holder")

    def _worker(self, side: Side) -> Worker:
        with self._lock:
            if side == "key holder" and self._server:
                raise CapabilityError(
                    f"backend {self.name!r} is a server's here and has no key holder; make keys in another process"
                )
            worker = self._workers.get(side)
            if worker is None or not worker.alive:
                worker = Worker(self.name, side, self.target, self._given, self.python, self.patience)
                self._workers[side] = worker
            return worker
