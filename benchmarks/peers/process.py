"""A worker seen from the driver: told what to do, and watched from outside, where every library is measured alike."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import psutil

#: One thread for every library that counts the cores itself.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GOMAXPROCS", "TQDM_DISABLE"), "1"
)
EVERY = 0.2  # seconds between looks at memory
SHOWN = 2000  # characters of what a worker that failed has said


@dataclass(frozen=True)
class Run:
    """One evaluation: seconds by the clock and of all processors, memory (proportional set size) of all processes."""

    seconds: float
    processor_seconds: float
    memory_bytes: int


class WorkerError(RuntimeError):
    """A worker ended; what it said last is in the message."""


class Worker:
    """A process that is one contender, and those that it starts."""

    def __init__(self, command: Sequence[str]) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env={**os.environ, **ONE_THREAD},
        )
        self._seen = psutil.Process(self._process.pid)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in self._tree():
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        self._process.wait()

    def ready(self) -> dict[str, Any]:
        """Wait for its figures."""
        return self._answer("ready")

    def run(self) -> Run:
        """Let it evaluate once."""
        before, started, peak = self._processor(), time.perf_counter(), [0]
        with self._memory(peak):
            self._tell("run")
            self._answer("done")
            seconds = time.perf_counter() - started
        return Run(seconds, self._processor() - before, peak[0])

    def end(self) -> dict[str, Any]:
        """What it found out about its results; it ends."""
        self._tell("end")
        return self._answer("end")

    def _tell(self, what: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            print(what, file=self._process.stdin, flush=True)

    def _answer(self, kind: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._said.seek(0)
            said = self._said.read()[-SHOWN:].decode(errors="replace")
            raise WorkerError(f"{' '.join(self._process.args)} ended with {self._process.returncode}: {said}")
        return dict(json.loads(line)[kind])

    def _tree(self) -> list[psutil.Process]:
        return [self._seen, *self._seen.children(recursive=True)]

    def _processor(self) -> float:
        total = 0.0
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    @contextlib.contextmanager
    def _memory(self, peak: list[int]) -> Iterator[None]:
        """The most that all processes have together, into `peak`, while the context is open."""
        over = threading.Event()

        def watch() -> None:
            while True:
                total = 0
                for process in self._tree():
                    with contextlib.suppress(psutil.Error):
                        total += process.memory_full_info().pss
                peak[0] = max(peak[0], total)
                if over.wait(EVERY):
                    return

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
