"""The toy model's parties, sessions with them, and recorded frames."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy_model
from protocol_loop import Loop, Session

from hefw.core.backend import Backend
from hefw.core.graph import Graph
from hefw.core.lower import Request
from hefw.core.program import Program
from hefw.core.runner import Weights
from hefw.protocol.client import Client
from hefw.protocol.server import Server


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
def session(loop: Loop, recorded: Loop) -> Session:
    """A new server to which nothing has been sent yet, and the frames of a session with such a server."""
    return Session(loop.server, recorded.sent)
