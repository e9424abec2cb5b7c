"""The server: owns the model, sees ciphertext and public keys. It imports no torch and no key holder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.cache import Cache
from hefw.core.backend import Backend
from hefw.core.engine import Engine
from hefw.core.errors import CapabilityError, EnvelopeError, HefwError, KeyMismatchError, ParameterError, ProtocolError
from hefw.core.graph import Graph
from hefw.core.lower import Request
from hefw.core.memory import peak_rss_bytes
from hefw.core.params import RING_DIMENSIONS, CkksParams
from hefw.core.program import Interface, Program
from hefw.core.progress import Progress, ProgressCallback
from hefw.core.runner import Weights
from hefw.planned import CachedWeights, program_of
from hefw.protocol import wire
from hefw.protocol.parts import Part
from hefw.protocol.updates import Update, Updates
from hefw.protocol.wire import Emit, Message

#: Of steps a message, and of images.
LARGEST_COUNT = 2**16


class Server:
    """One key holder's session with one model: bytes in, bytes out, nothing else.

    Programs and encoded weights hold no key; they are shared by sessions through `programs`. `threads` may work on an
    operation together.
    """

    def __init__(
        self,
        graph: Graph,
        backend: Backend,
        programs: dict[Request, tuple[Program, Weights]] | None = None,
        threads: int = 1,
        cache: Cache | None = None,
    ) -> None:
        self.graph = graph
        self.backend = backend
        self.threads = threads
        self.cache = cache
        self.programs = {} if programs is None else programs
        self.received: list[tuple[str, int | None, int]] = []  # (item, step, bytes): the server's side of the ledger
        self._opened: Engine | None = None
        self._request: Request | None = None
        self._interface: Interface
        self._updates: Updates | None = None

    def handle(self, frame: bytes, emit: Emit) -> bytes:
        """The answer to one message; `emit` takes progress messages before it. Bad bytes get an 'error' answer."""
        try:
            message = wire.decode(frame, "open", "prepare", "key", "begin", "step", "update", "close")
            return self._answer(message, lambda p: emit(wire.encode("progress", **vars(p))))
        except HefwError as error:
            return wire.error(error)

    def _answer(self, message: Message, progress: ProgressCallback) -> bytes:
        if message.kind == "open":
            progress(Progress("plan", 0, 1, "levels, scales and layouts"))
            return self._open(message)
        if message.kind == "prepare":
            return self._prepare(message, progress)
        if message.kind == "key":
            return self._key(message)
        if message.kind == "begin":
            return self._timed("done", lambda: self._begin(message, progress))
        if message.kind == "step":
            return self._timed("result", lambda: self._step(message, progress))
        if message.kind == "update":
            return self._timed("updated", lambda: self._update(message, progress))
        return self._close()

    @property
    def _engine(self) -> Engine:
        if self._opened is None:
            raise ProtocolError("the session is not open; send an 'open' message first")
        return self._opened

    def end(self) -> None:
        """Free the engine; a server ends with its connection."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

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
            program = program_of(self.graph, self.backend, request, self.cache)
            self.programs[request] = (program, Weights(program))
        program, weights = self.programs[request]
        self.end()
        self.received = []
        self._request = request
        self._interface = program.interface
        self._opened = self._make_engine(program, weights)
        self._updates = Updates(self.graph, program.interface) if program.interface.elementwise else None
        return wire.encode("manifest", interface=program.interface.pack())

    def _make_engine(self, program: Program, weights: Weights) -> Engine:
        return self.backend.engine(program, weights, self.threads)

    def _prepare(self, message: Message, progress: ProgressCallback) -> bytes:
        # Weights are kept for key holders that come again: one that makes its keys first is not waiting for them.
        again = self.cache is not None and message.fields.get("again") is True
        if again and self._request is not None:
            assert self.cache is not None
            store = CachedWeights(self.cache, self.graph, self.backend, self._request)
            self._engine.prepare(progress, store)
        else:
            self._engine.prepare(progress)
        return wire.encode("done")

    def _key(self, message: Message) -> bytes:
        engine = self._engine
        name, blob = wire.field(message, "name", str), wire.field(message, "blob", bytes)
        if name not in self._interface.keys.names():
            raise KeyMismatchError(f"evaluation key {name[:40]!r} is not in the program's manifest")
        self.received.append(("evaluation key " + name, None, len(blob)))
        engine.load_keys({name: blob})
        return wire.encode("done")

    def _timed(self, answer: str, work: Callable[[], Mapping[str, Any]]) -> bytes:
        """The answer to a message of a request, with how long it was worked on: its way is not in it."""
        started = time.perf_counter()
        fields = work()
        return wire.encode(answer, **fields, seconds=time.perf_counter() - started)

    def _begin(self, message: Message, progress: ProgressCallback) -> Mapping[str, Any]:
        self._engine.begin(self._inputs(message, None), progress)
        return {}

    def _step(self, message: Message, progress: ProgressCallback) -> Mapping[str, Any]:
        engine = self._engine
        step = wire.field(message, "step", int)
        inputs, shown = self._inputs(message, step), self._shown(message, step)
        return {"outputs": engine.run(step, inputs, progress, shown)}

    def _update(self, message: Message, progress: ProgressCallback) -> Mapping[str, Any]:
        engine = self._engine
        if self._updates is None:
            raise ProtocolError("this program evaluates a network: send 'step' messages, not 'update'")
        update = Update.unpack(message, self._interface)
        self.received += [(item, update.step, size) for item, _, _, size in update.contents()]
        ciphertexts, values = self._updates.run(update, engine, progress)
        return {"ciphertexts": ciphertexts, "values": values.astype("<f8").tobytes()}

    def _shown(self, message: Message, step: int) -> dict[str, NDArray[np.float64]]:
        """Plaintext parts of inputs, (images, features) each."""
        shown = {}
        images = wire.field(message, "images", int)
        if not 1 <= images <= self._interface.images:
            raise ProtocolError(f"{images} images came; at most {self._interface.images} fit")
        for name, data in wire.field(message, "shown", dict).items():
            port = self._interface.inputs.get(name)
            if port is None or port.once:
                raise ProtocolError(f"input {str(name)[:40]!r} is not one of a step of this program")
            part = Part.unpack(data, images * port.layout.features)
            if part.ciphertexts:
                raise EnvelopeError(f"the plaintext part of input {name!r} came with ciphertexts")
            self.received += [(item, step, size) for item, _, _, size in part.contents(name)]
            shown[name] = part.values.reshape(images, -1)
        return shown

    def _inputs(self, message: Message, step: int | None) -> Mapping[str, list[bytes]]:
        ports = self._interface.inputs
        inputs = wire.blobs(message, "inputs")
        for name, items in inputs.items():
            if name not in ports or ports[name].once != (step is None):
                raise ProtocolError(f"input {name[:40]!r} is not one of a {message.kind!r} message of this program")
            if len(items) != ports[name].layout.ciphertexts:
                raise ProtocolError(
                    f"input {name!r} has {len(items)} ciphertexts; {ports[name].layout.ciphertexts} are expected"
                )
            self.received.append((name, step, sum(map(len, items))))
        return inputs

    def _close(self) -> bytes:
        figures = self._engine.figures()
        provenance = figures.provenance
        elsewhere = provenance.process != os.getpid()
        return wire.encode(
            "done",
            counts=dict(figures.counts),
            encoded_weights=figures.encoded_weights,
            encode_seconds=figures.encode_seconds,
            peak_rss_bytes=figures.peak_rss_bytes + (peak_rss_bytes() if elsewhere else 0),
            threads=figures.threads,
            trace=[list(vars(item).values()) for item in figures.trace],
            provenance=vars(provenance),
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
    every, images = wire.field(message, "every", int), wire.field(message, "images", (int, type(None)))
    for name, count in (("every", every), ("images", images)):
        if count is not None and not 1 <= count <= LARGEST_COUNT:
            raise ParameterError(f"{name} {count} is not allowed; choose 1 to {LARGEST_COUNT}")
    fixed = None if params is None else CkksParams.from_dict(_mapping(params))
    bootstrap = wire.field(message, "bootstrap", bool)
    pairs = message.fields.get("pairs")
    if pairs is not None and type(pairs) is not bool:
        raise ParameterError(f"pairs {str(pairs)[:40]} is not allowed; choose true, false or none")
    return Request(float(precision), ring_dimension, fixed, insecure, every, bootstrap, images, pairs)


def _mapping(value: Any) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ParameterError(f"params must be a mapping, not {type(value).__name__}")
    return value
