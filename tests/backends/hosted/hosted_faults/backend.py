"""The simulator with one fault, which option `fault` names, wherever a library's parser is given foreign bytes.

With option `when`, a path, only as long as that file exists.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import stat
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from hefw.backends.simulator.backend import SimulatorBackend
from hefw.backends.simulator.evaluator import SimulatorEvaluator
from hefw.core.errors import LevelError


def fail(fault: str, options: object) -> object:
    """Do what the option says, at the place that is named so."""
    chosen = getattr(options, "fault", "")
    when = getattr(options, "when", None)
    if not chosen.startswith(f"{fault} ") or (when is not None and not Path(when).exists()):
        return None
    return FAULTS[chosen.partition(" ")[2]](options)


def signalled(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def words(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
    os._exit(7)


def throw(error: BaseException) -> None:
    raise error


def garbage(data: bytes) -> None:
    """Writes to every socket that is open: one of them leads to the process that calls."""
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                os.write(number, data)


def see(options: object) -> None:
    """What this process has and could have."""
    seen = [*sys.modules, *(f"file {sys.modules[name].__file__}" for name in ("hefw", "hosted_faults", "numpy"))]
    seen += [f"path {folder}" for folder in sys.path]
    seen += [f"can import {name}" for name in ("benchmarks", "test_hosted_worker", "calls") if find_spec(name)]
    Path(options.seen).write_text("\n".join(seen))


FAULTS = {
    "SEGV": lambda _: signalled(signal.SIGSEGV),
    "KILL": lambda _: signalled(signal.SIGKILL),
    "TERM": lambda _: signalled(signal.SIGTERM),
    "abort": lambda _: os.abort(),
    "exit": lambda _: os._exit(0),
    "words": lambda _: words("first\nthe last \x1b[2Jword"),
    "terminate": lambda _: words("noise\nterminate called after throwing an instance\n  what():  std::bad_alloc"),
    "memory": lambda _: bytearray(2**62),
    "bad_alloc": lambda _: throw(RuntimeError("std::bad_alloc")),
    "raise": lambda _: throw(RuntimeError("two\nlines\x1b[2J")),
    "hefw": lambda _: throw(LevelError("level 3 is too high")),
    "sleep": lambda _: time.sleep(600),
    "native": lambda _: ctypes.PyDLL(None).sleep(600),  # PyDLL: Python's lock is held all the time
    "noise": lambda _: garbage(b"\0" * 1000),
    "promise": lambda _: garbage(b"HEFH\1" + (2**40).to_bytes(8, "big")),
    "answer": lambda _: garbage(b"HEFH\1" + (3).to_bytes(8, "big") + b"abc"),
    "text": lambda _: "a ciphertext",
    "object": lambda _: object(),
    "see": see,
}


class Faulty(SimulatorBackend):
    """Places: start, resolve, provenance, load (a ciphertext, on either side) and dump. "slow save": saves slowly."""

    def __init__(self, options: object) -> None:
        super().__init__(options)
        fail("start", options)

    def resolve(self, params):
        fail("resolve", self.options)
        return super().resolve(params)

    def provenance(self):
        return fail("provenance", self.options) or super().provenance()

    def keygen(self, params, manifest):
        from hosted_faults.keyholder import FaultyKeyHolder

        return FaultyKeyHolder.of(params, manifest, self.options)

    def load_key_holder(self, params, manifest, path):
        from hosted_faults.keyholder import FaultyKeyHolder

        key_id = super().load_key_holder(params, manifest, path).key_id
        return FaultyKeyHolder.of(params, manifest, self.options, key_id)

    def evaluator(self, params):
        evaluator = FaultyEvaluator(params, self.capabilities)
        evaluator.options = self.options
        return evaluator


class FaultyEvaluator(SimulatorEvaluator):
    options: object

    def _load(self, data, level, scale):
        fail("load", self.options)
        return super()._load(data, level, scale)

    def _dump(self, ciphertext):
        return fail("dump", self.options) or super()._dump(ciphertext)
