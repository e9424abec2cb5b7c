"""Two parties in one process, a session that is ready for a step, and recorded frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import toy_model

from hefw.core.backend import Backend
from hefw.core.engine import Weights
from hefw.core.graph import Graph
from hefw.core.lower import Request
from hefw.core.program import Program
from hefw.protocol import wire
from hefw.protocol.client import Client
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


@pytest.fixture(scope="session")
def graph() -> Graph:
    return toy_model.graph()


@pytest.fixture(scope="session")
def model_file(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "toy.hefw"
    graph.save(path)
    return path


@pytest.fixture(scope="session")
def backend() -> Backend:
    return toy_model.backend()


@pytest.fixture(scope="session")
def programs() -> dict[Request, tuple[Program, Weights]]:
    """Planned once for all servers of these tests, as a server does for its sessions."""
    return {}


@pytest.fixture
def loop(graph: Graph, backend: Backend, programs: dict[Request, tuple[Program, Weights]]) -> Loop:
    return Loop(Server(graph, backend, programs))


@pytest.fixture(scope="session")
def recorded(graph: Graph, backend: Backend, programs: dict[Request, tuple[Program, Weights]]) -> Loop:
    """One whole session: the frames of both directions."""
    found = Loop(Server(graph, backend, programs))
    client = Client(found, backend)
    client.open(graph.digest, toy_model.REQUEST)
    client.generate(toy_model.inputs(3))
    client.close()
    return found


@pytest.fixture
def session(loop: Loop, recorded: Loop) -> Iterator[Session]:
    """A new server to which nothing has been sent yet, and the frames of a session with such a server."""
    yield Session(loop.server, recorded.sent)
