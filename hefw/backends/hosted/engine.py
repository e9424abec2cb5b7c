"""An engine in a worker: a program is sent once and its weights are encoded there once, whoever runs it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from hefw.backends.hosted.channel import LARGE
from hefw.backends.hosted.process import Handle, Worker
from hefw.core.encoded import WeightStore
from hefw.core.engine import Blobs, Engine, Figures
from hefw.core.errors import ProtocolError
from hefw.core.progress import ProgressCallback
from hefw.core.runner import Shown


class HostedEngine(Engine):
    """One call to the worker for each method. Bytes from outside are parsed in the worker alone.

    A progress callback that raises, as by Ctrl-C, ends the worker: what a library is doing cannot be stopped otherwise.
    """

    def __init__(self, worker: Worker, program: Handle, threads: int) -> None:
        """`program` is the worker's number of a program with the weights that its engines share."""
        self._worker = worker
        self._program = program
        self._home: Handle | None = Handle(worker, worker.call("engine", int, program.number, threads))

    def load_keys(self, blobs: Mapping[str, bytes]) -> None:
        """Take evaluation keys by name, one after the other."""
        for name, blob in blobs.items():
            self._call("load_keys", type(None), {name: blob})

    def prepare(self, progress: ProgressCallback | None = None, store: WeightStore | None = None) -> None:
        """Encode the weights that are kept: in the worker, where no store is."""
        self._call("prepare", type(None), progress=progress)

    def begin(self, inputs: Blobs, progress: ProgressCallback | None = None) -> None:
        """Start a request."""
        self._call("begin", type(None), dict(inputs), progress=progress)

    def run(
        self, step: int, inputs: Blobs, progress: ProgressCallback | None = None, shown: Shown | None = None
    ) -> dict[str, list[bytes]]:
        """Run a message's steps."""
        kind = dict[str, list[bytes]]
        arguments = (step, dict(inputs), dict(shown or {}))
        found: dict[str, list[bytes]] = self._call("run", kind, *arguments, most=LARGE, progress=progress)
        return found

    def figures(self) -> Figures:
        """What was done so far, and by whom: the worker."""
        found: Figures = self._call("figures", Figures, patience=self._worker.patience)
        return found

    def close(self) -> None:
        """Free what the engine holds in the worker: keys and ciphertexts. Weights stay as long as their program."""
        with contextlib.suppress(ProtocolError):  # a worker that has ended holds nothing
            if self._home is not None and self._worker.alive:
                self._call("close", type(None), patience=self._worker.patience)
                self._home = None
                self._worker.flush()
        self._home = None

    def _call(self, name: str, kind: Any, *arguments: Any, **how: Any) -> Any:
        if self._home is None:
            raise ProtocolError("the engine is closed; make another one")
        return self._worker.call(name, kind, self._home.number, *arguments, **how)
