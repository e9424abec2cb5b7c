"""Runs a cell's process: within its limits of time and memory, or not to the end."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from hefw import cache
from hefw.bench import messages
from hefw.bench.measurement import Outcome
from hefw.core.errors import ProtocolError
from hefw.core.process import ChildProcess
from hefw.core.stream import ByteStream
from hefw.report.words import duration, size

#: Between two looks at the memory, in seconds; longer where looks take more than a share of a processor.
PERIOD, LONGEST, SHARE = 0.1, 1.0, 0.03
#: Told of a run's stage, and how far it is, as it goes on.
Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Ended:
    """How a process ended. `found` is what it gave, where `outcome` is 'measured'."""

    outcome: Outcome
    reason: str | None
    found: dict[str, Any] | None
    seconds: float
    peak_memory_bytes: int


def supervise(job: dict[str, Any], seconds: float, memory_bytes: float | None, told: Told) -> Ended:
    """Do a job of `hefw.bench.cell` in a process of its own; when this returns or raises, nothing of it is left."""
    return _Supervised(job, seconds, memory_bytes, told).go()


class _Supervised:
    def __init__(self, job: dict[str, Any], seconds: float, memory_bytes: float | None, told: Told) -> None:
        self.job, self.limit, self.memory_limit, self.told = job, seconds, memory_bytes, told
        self.peak = 0
        self.clock = time.monotonic()

    def go(self) -> Ended:
        command = [sys.executable, "-m", "hefw.bench.cell"]
        without = {cache.FOLDER: cache.OFF}  # every run is a first one, whatever ran before
        with tempfile.TemporaryDirectory(prefix="hefw-", ignore_cleanup_errors=True) as aside:
            child = ChildProcess("the cell's process", command, os.environ | without | {"TMPDIR": aside})
            try:
                outcome, reason, found = self._watched(child)
            finally:
                end_tree(child.pid)
                child.end()
                child.close()
        return Ended(outcome, reason, found, time.monotonic() - self.clock, self.peak)

    def _watched(self, child: ChildProcess) -> tuple[Outcome, str | None, dict[str, Any] | None]:
        stream = ByteStream(child.connection)
        root = psutil.Process(child.pid)
        look = 0.0
        try:
            messages.send(stream, self.job)
            while True:
                now = time.monotonic()
                if now - self.clock > self.limit:
                    return "over time", f"took longer than the limit of {duration(self.limit)}", None
                if now >= look:
                    worked = time.process_time()
                    self.peak = max(self.peak, memory := tree_memory(root))
                    if self.memory_limit is not None and memory > self.memory_limit:
                        return (
                            "over memory",
                            f"took {size(memory)} of memory, more than the limit of {size(self.memory_limit)}",
                            None,
                        )
                    took = time.process_time() - worked
                    look = time.monotonic() + min(LONGEST, max(PERIOD, took / SHARE))
                wait = max(0.0, min(look, self.clock + self.limit) - time.monotonic())
                if not select.select([child.connection], [], [], wait)[0]:
                    continue
                message = messages.receive(stream)
                if message is None:
                    raise child.died()
                if "progress" in message:
                    self.told(*message["progress"])
                elif "error" in message:
                    return "failed", str(message["error"]), None
                else:
                    return "measured", None, message["found"]
        except ProtocolError as error:
            reason = str(error) if "ended" in str(error) else str(child.died())
            return "failed", reason, None


def tree_memory(root: psutil.Process) -> int:
    """Proportional set sizes of a process and all below it, in bytes: pages that they share are counted once.

    Where the system does not tell these, what each has for itself alone.
    """
    total = 0
    with contextlib.suppress(psutil.Error):
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                told = process.memory_full_info()
                total += getattr(told, "pss", told.uss)
    return total


def end_tree(pid: int) -> None:
    """End a process and all below it at once."""
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes[1:], timeout=5)
