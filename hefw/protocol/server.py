"""The server: owns the model, sees ciphertext and public keys. It imports no torch and no key holder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from hefw.core.backend import Backend, Ciphertext
from hefw.core.engine import Engine, Weights
from hefw.core.errors import CapabilityError, HefwError, KeyMismatchError, ParameterError, ProtocolError
from hefw.core.graph import Graph
from hefw.core.lower import Request, lower
from hefw.core.memory import peak_rss_bytes
from hefw.core.params import RING_DIMENSIONS, CkksParams
from hefw.core.program import Program
from hefw.core.progress import Progress, ProgressCallback
from hefw.protocol import wire
from hefw.protocol.wire import Emit, Message


class Server:
    """One key holder's session with one model: bytes in, bytes out, nothing else.

    Programs and encoded weights hold no key; they are shared by sessions through `programs`.
    """

    def __init__(
        self, graph: Graph, backend: Backend, programs: dict[Request, tuple[Program, Weights]] | None = None
    ) -> None:
        self.graph = graph
        self.backend = backend
        self.programs = {} if programs is None else programs
        self.received: list[tuple[str, int | None, int]] = []  # (item, step, bytes): the server's side of the ledger
        self._engine: Engine | None = None
        self._encode_seconds = 0.0

    def handle(self, frame: bytes, emit: Emit) -> bytes:
        """The answer to one message; `emit` takes progress messages before it. Bad bytes get an 'error' answer."""
        try:
            message = wire.decode(frame, "open", "prepare", "key", "begin", "step", "close")
            return self._answer(message, lambda p: emit(wire.encode("progress", **vars(p))))
        except HefwError as error:
            return wire.error(error)

    def _answer(self, message: Message, progress: ProgressCallback) -> bytes:
        if message.kind == "open":
            progress(Progress("plan", 0, 1, "levels, scales and layouts"))
            return self._open(message)
        if message.kind == "prepare":
            return self._prepare(progress)
        if message.kind == "key":
            return self._key(message)
        if message.kind == "begin":
            self._session.begin(self._inputs(message, None), progress)
            return wire.encode("done")
        if message.kind == "step":
            return self._step(message, progress)
        return self._close()

    @property
    def _session(self) -> Engine:
        if self._engine is None:
            raise ProtocolError("the session is not open; send an 'open' message first")
        return self._engine

    def _open(self, message: Message) -> bytes:
        wanted = wire.field(message, "graph_digest", str)
        if wanted != self.graph.digest:
            raise ProtocolError(
                f"another model: the key holder expects graph {wanted[:8]}, this server has {self.graph.digest[:8]}"
            )
        name = wire.field(message, "backend", str)
        if name != self.backend.name:
            raise CapabilityError(f"this server evaluates with backend {self.backend.name!r}, not {name!r}")
        request = _request(message)
        if request not in self.programs:
            program = lower(self.graph, self.backend.resolve, request)
            self.programs[request] = (program, Weights(program))
        program, weights = self.programs[request]
        self._engine = Engine(program, self.backend.evaluator(program.params), weights)
        return wire.encode("manifest", interface=program.interface.pack())

    def _prepare(self, progress: ProgressCallback) -> bytes:
        started = time.perf_counter()
        self._session.weights.encode_all(self._session.evaluator, progress)
        self._encode_seconds += time.perf_counter() - started
        return wire.encode("done")

    def _key(self, message: Message) -> bytes:
        name, blob = wire.field(message, "name", str), wire.field(message, "blob", bytes)
        if name not in self._session.program.interface.keys.names():
            raise KeyMismatchError(f"evaluation key {name[:40]!r} is not in the program's manifest")
        self.received.append(("evaluation key " + name, None, len(blob)))
        self._session.load_keys({name: blob})
        return wire.encode("done")

    def _step(self, message: Message, progress: ProgressCallback) -> bytes:
        step = wire.field(message, "step", int)
        outputs = self._session.run(step, self._inputs(message, step), progress)
        dump = self._session.evaluator.dump
        return wire.encode("result", outputs={name: [dump(ct) for ct in cts] for name, cts in outputs.items()})

    def _inputs(self, message: Message, step: int | None) -> Mapping[str, list[Ciphertext]]:
        ports = self._session.program.interface.inputs
        loaded = {}
        for name, items in wire.blobs(message, "inputs").items():
            if name not in ports or ports[name].once != (step is None):
                raise ProtocolError(f"input {name[:40]!r} is not one of a {message.kind!r} message of this program")
            if len(items) != ports[name].layout.ciphertexts:
                raise ProtocolError(
                    f"input {name!r} has {len(items)} ciphertexts; {ports[name].layout.ciphertexts} are expected"
                )
            self.received.append((name, step, sum(map(len, items))))
            loaded[name] = [self._session.evaluator.load(item) for item in items]
        return loaded

    def _close(self) -> bytes:
        engine = self._session
        return wire.encode(
            "done",
            counts=dict(engine.evaluator.counts),
            encoded_weights=engine.program.weight_bytes,
            encode_seconds=self._encode_seconds,
            peak_rss_bytes=peak_rss_bytes(),
            received=[list(item) for item in self.received],
        )


def _request(message: Message) -> Request:
    """How the key holder wants the model lowered; ParameterError if that is out of bounds."""
    precision = wire.field(message, "precision_db", (int, float))
    if not 0 < precision <= 200:
        raise ParameterError(f"precision_db {precision} is not allowed; choose 20 to 100")
    ring_dimension = message.fields.get("ring_dimension")
    if ring_dimension is not None and (type(ring_dimension) is not int or ring_dimension not in RING_DIMENSIONS):
        raise ParameterError(
            f"ring_dimension {str(ring_dimension)[:40]} is not allowed; choose none, or a power of two from "
            f"{RING_DIMENSIONS[0]} to {RING_DIMENSIONS[-1]}"
        )
    params = message.fields.get("params")
    insecure = wire.field(message, "allow_insecure", bool)
    return Request(
        float(precision), ring_dimension, None if params is None else CkksParams.from_dict(_mapping(params)), insecure
    )


def _mapping(value: Any) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ParameterError(f"params must be a mapping, not {type(value).__name__}")
    return value
