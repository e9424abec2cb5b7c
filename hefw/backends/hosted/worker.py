"""A worker's process: one side of one backend, which answers calls until the process that started it goes away."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from hefw.backends.hosted.calls import Calls
from hefw.backends.hosted.channel import LARGEST_CALL, Call, Channel
from hefw.core import codec
from hefw.core.errors import HefwError, ProtocolError, line
from hefw.core.process import end_with
from hefw.core.progress import Progress

#: Which calls a side answers. Imported by that side alone: the evaluator's never has what holds keys.
SIDES = {
    "key holder": "hefw.backends.hosted.holding:KeyHolderCalls",
    "evaluator": "hefw.backends.hosted.evaluating:EvaluatorCalls",
}


class Worker:
    """Answers calls one after the other. The first says which backend this is, and which side of it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.calls: Calls | None = None

    def work(self) -> None:
        """Until the other side is gone."""
        while (received := self.channel.receive(LARGEST_CALL)) is not None:
            try:
                self._send("answer", self.answer(codec.decode(received[1], Call)))
            except HefwError as error:
                self._send("error", (type(error).__name__, line(error)))
            except Exception as error:  # a library may raise anything
                text = line(f"{type(error).__name__}: {error}")
                if isinstance(error, MemoryError) or "bad_alloc" in text:  # nothing is to be relied on after that
                    print(f"out of memory: {text}", file=sys.stderr, flush=True)
                    os._exit(1)
                self._send("error", (None, text))

    def answer(self, call: Call) -> Any:
        """What a call gives."""
        name, released, arguments = call
        if self.calls is None:
            if name != "start":
                raise ProtocolError(f"call {name!r} came before 'start'")
            side, target, options = arguments
            self.calls = begin(side, target, options, self._tell)
            return None
        self.calls.forget(released)
        if name not in self.calls.NAMES:
            raise ProtocolError(f"there is no call {name!r} here")
        return getattr(self.calls, name)(*arguments)

    def _tell(self, progress: Progress) -> None:
        self._send("progress", progress)

    def _send(self, kind: str, value: Any) -> None:
        self.channel.send(kind, codec.parts(value))


def begin(side: str, target: str, options: dict[str, Any] | None, tell: Callable[[Progress], None]) -> Calls:
    """The calls of a side of the backend that `target`, "package.module:Class", makes of its options."""
    make, calls = _load(target), _load(SIDES[side])
    made: Calls = calls(make(None if options is None else SimpleNamespace(**options)), tell)
    return made


def main() -> int:
    """Exit code 0 when the other side is gone."""
    parser = argparse.ArgumentParser(prog="hefw.backends.hosted.worker")
    parser.add_argument("--fd", type=int, required=True, help="an open socket for calls and answers")
    parser.add_argument("--lifeline", type=int, required=True, help="an open socket whose far end closes at the end")
    arguments = parser.parse_args()
    end_with(arguments.lifeline)
    with contextlib.suppress(ProtocolError):  # who asked is gone
        Worker(Channel(socket.socket(fileno=arguments.fd))).work()
    return 0


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
