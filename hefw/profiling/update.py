"""A profile of the protocol `update-only`: network, selection, encryption, the server's updates, and decryption."""

from __future__ import annotations

import math
import os
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw import cache
from hefw.core.backend import Backend, KeyHolder
from hefw.core.engine import Engine, LocalEngine
from hefw.core.errors import HefwError
from hefw.core.graph import Graph
from hefw.core.lower import Request
from hefw.core.program import Interface, Program
from hefw.core.progress import ProgressCallback
from hefw.core.runner import Weights
from hefw.models.encrypted import encrypted
from hefw.planned import program_of
from hefw.profiling.noting import REGION, Noting, error_of, facts, psnr_db, simulator_like, span
from hefw.profiling.record import Error, Profile, RegionRow
from hefw.profiling.timing import Event, Recorder, timed
from hefw.protocol import wire
from hefw.protocol.keysource import KeySource, NewKeys
from hefw.protocol.server import Server
from hefw.protocol.update_client import Tensor, UpdateClient
from hefw.run_update import Enough, UpdateOnly
from hefw.running import Run
from hefw.strategies.base import Strategy
from hefw.updating import Connection, Updating

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: Messages whose answer takes the server's time, and what that is called.
SPANS = {"prepare": "encode weights", "key": "load keys", "update": "server"}


def profile_update(run: Run, messages: int, told: ProgressCallback) -> Profile:
    """Profile the first updates of a run of `update-only`; the run ends with them."""
    assert isinstance(run, UpdateOnly)
    recorder, spans = Recorder(), list[Event]()
    updating = _Profiled(run, messages, told, recorder, spans)
    try:
        with suppress(Enough):
            run.draw(encrypted(run.scheduler(), updating), "network", updating)
    finally:
        updating.close()
    client, graph = updating.client, updating.graph
    assert client is not None  # the schedule has steps
    assert graph is not None
    interface = client.interface
    program = program_of(graph, run.backend, run.wanted(), cache.default())
    forecast = _forecast(updating, graph, interface, run.wanted())
    return Profile(
        **facts(run, interface.params.params, recorder, spans),
        images=updating.images,
        messages=len(updating.off),
        of_messages=updating.evaluations,
        forecast_db=interface.forecast_db,
        psnr_db=psnr_db([float(np.mean(off**2)) for off in updating.off]),
        regions=(_row(updating, program, recorder, forecast),),
    )


@dataclass(frozen=True)
class _Step:
    """What the client was asked in one step, to be asked again of a simulator."""

    tensors: Mapping[str, Tensor]
    shares: Mapping[str, float]
    listed: bool


class _Profiled(Updating):
    """Updates of which everything is noted, by a server in this process.

    Attributes:
        own: of each message, the result by the key holder's own arithmetic.
        off: what was decrypted and merged, less that.
        steps: what the client was asked.
        images: in the request.
    """

    def __init__(
        self, run: UpdateOnly, messages: int, told: ProgressCallback, recorder: Recorder, spans: list[Event]
    ) -> None:
        keys = _NotedKeys(run.backend, recorder, spans)
        strategy: Strategy = _NotedStrategy(run.strategy, recorder, spans)
        super().__init__(run.backend, {}, strategy, run.config.noise_prediction, run.wanted(), told, keys)
        self.own: list[Array] = []
        self.off: list[Array] = []
        self.steps: list[_Step] = []
        self.images = 0
        self._messages = messages
        self._recorder, self._spans = recorder, spans
        self._since = time.perf_counter()

    def begin(self, updates: Any, shape: tuple[int, ...]) -> None:
        """A new request: the network's time begins."""
        super().begin(updates, shape)
        self._since = time.perf_counter()

    def step(self, index: int, sample: Array, prediction: Array, noise: Array | None, own: Array) -> Array:
        """One update, noted; ends the loop after the last one that is wanted."""
        recorder = self._recorder
        now = time.perf_counter()
        recorder.step, self.images = index, len(sample)
        took = now - self._since
        self._spans.append(Event("network", "", index, self._since - recorder.clock, took, took))
        result = super().step(index, sample, prediction, noise, own)
        self.own.append(own)
        self.off.append(self.trajectory[-1] - own)
        if len(self.off) == self._messages:
            raise Enough
        self._since = time.perf_counter()
        return result

    def _server(self, path: Path, graph: Graph) -> Connection:
        return _Here(_NotedServer(graph, self.backend, self._recorder), self._recorder, self._spans)

    def _client_of(self, connection: Connection) -> UpdateClient:
        return _NotedClient(connection, self.backend, self.steps, self.progress, self.keys)


class _NotedClient(UpdateClient):
    """A client that keeps what it was asked."""

    def __init__(
        self,
        connection: Connection,
        backend: Backend,
        steps: list[_Step],
        progress: ProgressCallback | None,
        keys: KeySource | None,
    ) -> None:
        super().__init__(connection, backend, progress, keys)
        self._steps = steps

    def step(self, step: int, tensors: Mapping[str, Tensor], shares: Mapping[str, float], listed: bool) -> Array:
        """As any client's."""
        self._steps.append(_Step(tensors, shares, listed))
        return super().step(step, tensors, shares, listed)


class _NotedStrategy(Strategy):
    """A strategy whose selections are spans."""

    def __init__(self, strategy: Strategy, recorder: Recorder, spans: list[Event]) -> None:
        self._strategy, self._recorder, self._spans = strategy, recorder, spans
        self.packed = strategy.packed

    def select(self, latent: Array) -> Mask:
        """As the strategy does."""
        found: Mask = span(self._recorder, self._spans, "select", lambda: self._strategy.select(latent))
        return found


class _NotedKeys(NewKeys):
    """New keys whose making and use are spans."""

    def __init__(self, backend: Backend, recorder: Recorder, spans: list[Event]) -> None:
        super().__init__(backend)
        self._recorder, self._spans = recorder, spans

    def holder(self, interface: Interface) -> KeyHolder:
        """A new secret key."""
        made: Any = self._noted("make keys", super().holder)(interface)
        made.encrypt_bytes = self._noted("encrypt", made.encrypt_bytes)
        made.decrypt_bytes = self._noted("decrypt", made.decrypt_bytes)
        holder: KeyHolder = made
        return holder

    def _noted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: span(self._recorder, self._spans, name, lambda: method(*arguments))


class _NotedServer(Server):
    """A server in this process, whose evaluator notes its operations, wherever the library lives."""

    def __init__(self, graph: Graph, backend: Backend, recorder: Recorder) -> None:
        super().__init__(graph, backend)
        self._recorder = recorder

    def _make_engine(self, program: Program, weights: Weights) -> Engine:
        engine = LocalEngine(program, self.backend, weights)
        engine.runner = Noting(program, engine.evaluator, weights)
        engine.runner.recorder = self._recorder
        timed(engine.evaluator, self._recorder)
        return engine


class _Here:
    """The way to a server in this process. What it does with a message of a request is a span."""

    pid = os.getpid()

    def __init__(self, server: Server, recorder: Recorder, spans: list[Event]) -> None:
        self._server, self._recorder, self._spans = server, recorder, spans
        self._answers: deque[bytes] = deque()

    def send(self, frame: bytes) -> None:
        """Have a message answered."""

        def answer() -> bytes:
            return self._server.handle(frame, self._answers.append)

        known = SPANS.get(wire.decode(frame).kind)
        self._answers.append(span(self._recorder, self._spans, known, answer) if known else answer())

    def receive(self) -> bytes:
        """The next answer."""
        return self._answers.popleft()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.end()


def _forecast(updating: _Profiled, graph: Graph, interface: Interface, request: Request) -> Error | None:
    """Errors of the same messages by the simulator, under the very parameters."""
    simulator = simulator_like(updating.backend.capabilities)
    connection = _Here(Server(graph, simulator), Recorder(), [])
    client = UpdateClient(connection, simulator)
    params = interface.params.params
    off = []
    try:
        client.open(graph.digest, replace(request, params=params, allow_insecure=params.insecure))
        for index, (step, own) in enumerate(zip(updating.steps, updating.own, strict=True)):
            off.append(client.step(index, step.tensors, step.shares, step.listed) - own.ravel())
    except HefwError:
        return None
    return error_of(off)


def _row(updating: _Profiled, program: Program, recorder: Recorder, forecast: Error | None) -> RegionRow:
    """The update as the one region that there is; figures of a message."""
    (op,) = program.step
    messages = len(updating.off)
    calls: Counter[str] = Counter()
    own: dict[str, float] = defaultdict(float)
    seconds = 0.0
    for event in recorder.events:
        if event.name == REGION:
            seconds += event.seconds
        elif event.region:
            calls[event.name] += 1
            own[event.name] += event.own
    (port,) = program.interface.outputs.values()
    return RegionRow(
        name=op.name,
        kind="update",
        level=port.level,
        scale_bits=math.log2(port.scale),
        seconds=seconds / messages,
        operations={name: (count / messages, own[name] / messages) for name, count in calls.most_common()},
        counts={name: count / messages for name, count in recorder.counts.get(op.name, Counter()).items()},
        largest=max(float(np.abs(values).max()) for values in updating.own),
        noise=error_of(updating.off),
        forecast=forecast,
    )
