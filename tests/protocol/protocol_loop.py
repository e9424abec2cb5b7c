"""Both parties in one process, and recorded sessions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from hefw.protocol import wire
from hefw.protocol.server import Server


@dataclass
class Loop:
    """A transport to a server in this process. `change` may replace an answer on its way."""

    server: Server
    change: Callable[[bytes], bytes] = lambda frame: frame
    sent: list[bytes] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)
    waiting: deque[bytes] = field(default_factory=deque)

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)
        self.waiting.append(self.server.handle(frame, self.waiting.append))

    def receive(self) -> bytes:
        self.received.append(self.change(self.waiting.popleft()))
        return self.received[-1]


@dataclass
class Session:
    """A server with one key holder's frames, replayed as far as wanted."""

    server: Server
    frames: list[bytes]

    def replay(self, *kinds: str) -> None:
        for frame in self.frames:
            if wire.decode(frame).kind in kinds:
                assert self.ask(frame).kind != "error"

    def ask(self, frame: bytes) -> wire.Message:
        progress: list[bytes] = []
        answer = wire.decode(self.server.handle(frame, progress.append))
        assert all(wire.decode(frame).kind == "progress" for frame in progress)
        return answer

    def frame(self, kind: str) -> bytes:
        return next(frame for frame in self.frames if wire.decode(frame).kind == kind)
