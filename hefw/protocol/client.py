"""The key holder's party: owns the secret key, the noise, the labels and the pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hefw.core.backend import Backend, KeyHolder, Provenance
from hefw.core.engine import Trace
from hefw.core.envelope import Envelope
from hefw.core.errors import ParameterError, ProtocolError, line
from hefw.core.graph import advance
from hefw.core.ledger import Form, Ledger
from hefw.core.lower import Request
from hefw.core.program import Interface, Port
from hefw.core.progress import Progress, ProgressCallback
from hefw.protocol import wire
from hefw.protocol.keysource import KeySource, NewKeys
from hefw.protocol.parts import Mask, Part, rounded
from hefw.protocol.wire import Message

Array = NDArray[np.float64]
Watch = Callable[[int, Mapping[str, Array]], "Mapping[str, Array] | None"]
Select = Callable[[Array], Mask]  # latents (images, features) -> True where an entry must be encrypted

#: The input that a strategy selects entries of, and the output that comes back as it.
LATENT = "latent"
#: Decrypted entries that are shown to a server under one key, at most.
SHOWN_LIMIT = 2**20
#: A latent beyond this is no picture any more: squares have diverged, or the server computed something else.
LARGEST_LATENT = 1e3
#: How much of each upload is kept to show what the server held, in bytes.
VIEW_BYTES = 1 << 16
#: A manifest that asks for more evaluation keys than this is refused before any is made, in bytes.
LARGEST_KEYS = 24 * 2**30
#: Evaluation keys that are kept here until the server has encoded its weights, in bytes.
WAITING_BYTES = 2**28


class Transport(Protocol):
    """What a client needs of a connection."""

    def send(self, frame: bytes) -> None: ...

    def receive(self) -> bytes: ...


STAGES = ("plan", "keygen", "encode_weights", "select", "encrypt", "evaluate", "transfer", "decrypt")


@dataclass
class Figures:
    """Wall times in seconds and sizes in bytes, over the whole session.

    `evaluate` is the server's own time by its own clock, `transfer` what the way between the parties took besides.
    """

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    evaluation_keys: int = 0
    upload_per_step: int = 0
    download_per_step: int = 0
    encoded_weights: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    server_peak_rss: int = 0
    server_threads: int = 1
    trace: list[Trace] = field(default_factory=list)
    key_holder: Provenance | None = None
    evaluator: Provenance | None = None


class Client:
    """One session with one server. `open`, then `generate` as often as wanted, then `close`."""

    def __init__(
        self,
        transport: Transport,
        backend: Backend,
        progress: ProgressCallback | None = None,
        keys: KeySource | None = None,
    ) -> None:
        """`keys` are new ones if none are given."""
        self.transport = transport
        self.backend = backend
        self.progress = progress or (lambda _: None)
        self.ledger = Ledger()
        self.figures = Figures()
        self.view: list[bytes] = []
        self._source = keys or NewKeys(backend)
        self._interface: Interface | None = None
        self._keys: KeyHolder | None = None
        self._requests = 0
        self._largest = LARGEST_LATENT

    @property
    def interface(self) -> Interface:
        """What the server told of its program; ProtocolError before `open`."""
        if self._interface is None:
            raise ProtocolError("the session is not open; call open first")
        return self._interface

    @property
    def shown(self) -> int:
        """Decrypted entries that a server was shown under this session's key."""
        return self._source.shown

    def open(self, graph_digest: str, request: Request, check: Callable[[Interface], None] | None = None) -> Interface:
        """Agree on a program, make or take keys for it, and send the evaluation keys. The secret key stays here.

        `check` may refuse what the server proposes, by raising, before any key is made.
        """
        started = time.perf_counter()
        answer = self._ask(
            "open",
            "manifest",
            graph_digest=graph_digest,
            backend=self.backend.name,
            precision_db=request.precision_db,
            ring_dimension=request.ring_dimension,
            params=None if request.params is None else request.params.to_dict(),
            allow_insecure=request.allow_insecure,
            every=request.every,
            bootstrap=request.bootstrap,
            images=request.images,
            pairs=request.pairs,
        )
        interface = Interface.unpack(wire.field(answer, "interface", bytes))
        self.figures.seconds["plan"] += time.perf_counter() - started
        self._check(interface, graph_digest, request)
        if check is not None:
            check(interface)
        self._interface = interface
        self.ledger.add("server", None, "parameters, schedule, shapes, counts and precision wanted", "public", 0, 0)
        self._send_keys(interface)
        return interface

    def generate(
        self,
        inputs: Mapping[str, Array],
        watch: Watch | None = None,
        units: tuple[int, int] = (0, 1),
        select: Select | None = None,
    ) -> dict[str, Array]:
        """Run all steps for one batch and return the outputs of the last, public factors applied.

        `inputs` and outputs map names to (images, features), at most `interface.images` images. `watch(message,
        outputs)` sees each message's decrypted outputs; what it returns by name takes their place. `units` is (number
        of this batch, batches) for progress. `select(latents)` says which of their entries are encrypted (True); the
        others are shown to the server, rounded to 8 bits. Of those the ciphertexts hold what rounding left, so that no
        strategy changes the picture.
        """
        interface = self.interface
        images = self._check_inputs(inputs)
        once = {name: port for name, port in interface.inputs.items() if port.once}
        asked = self._encrypt(once, inputs, None, images)
        self._round_trip(lambda: wire.encode("begin", inputs=asked), "done")
        # variance-exploding schedulers begin with latents of some thousands, which then shrink
        self._largest = max(LARGEST_LATENT, 2 * max(float(np.abs(values).max()) for values in inputs.values()))
        often = {name: port for name, port in interface.inputs.items() if not port.once}
        current = dict(inputs)
        outputs: dict[str, Array] = {}
        previous = {name: port.previous for name, port in interface.inputs.items()}
        for message in range(interface.messages):
            shown = {} if select is None else self._show(current[LATENT], select, message)
            encrypted = self._encrypt(often, current, message, images, shown)
            self._tell(message, {name: part.contents(name) for name, part in shown.items()})
            parts = {name: part.pack() for name, part in shown.items()}
            encode = partial(wire.encode, "step", step=message, inputs=encrypted, images=images, shown=parts)
            answer, self.figures.upload_per_step = self._round_trip(
                encode, "result", self._step_progress(message, units)
            )
            outputs = self._decrypt(answer, message, images)
            if watch is not None:
                outputs = {**outputs, **(watch(message, outputs) or {})}
            fed = {port.feedback: outputs[name] for name, port in interface.outputs.items() if port.feedback}
            current = advance(current, previous, fed)
        self._requests += 1
        return outputs

    def close(self) -> None:
        """End the session and take the server's figures. ProtocolError if it received other things than were sent."""
        answer = self._ask("close", "done")
        counts = wire.field(answer, "counts", dict)
        figures = {name: wire.field(answer, name, int) for name in ("encoded_weights", "peak_rss_bytes", "threads")}
        seconds = wire.field(answer, "encode_seconds", float)
        told = [*counts.values(), *figures.values()]
        if figures["threads"] == 0 or not all(type(n) is int and n >= 0 for n in told) or not 0 <= seconds < math.inf:
            raise ProtocolError("the server's figures are not counts, sizes and seconds")
        self.figures.counts = {line(name, 40): n for name, n in counts.items()}
        self.figures.encoded_weights = figures["encoded_weights"]
        self.figures.server_peak_rss = figures["peak_rss_bytes"]
        self.figures.server_threads = figures["threads"]
        self.figures.seconds["encode_weights"] = seconds
        self.figures.trace = [_trace(item) for item in wire.field(answer, "trace", list)]
        self.figures.evaluator = _provenance(wire.field(answer, "provenance", dict))
        self.figures.key_holder = self.backend.provenance()
        sent = [[e.item, e.step, e.bytes] for e in self.ledger.of("server") if e.bytes]
        if wire.field(answer, "received", list) != sent:
            raise ProtocolError("the server's list of what it received differs from what was sent")

    # -- what is checked ---------------------------------------------------------------------------------------------

    def _check(self, interface: Interface, graph_digest: str, request: Request) -> None:
        """A manifest is untrusted: it must not lower the security, nor be of another model."""
        if interface.graph_digest != graph_digest:
            raise ProtocolError(f"the server answers for another model: graph {interface.graph_digest[:8]}")
        if not interface.inputs or not interface.outputs:
            raise ProtocolError("the server's manifest is not that of this model: it has no inputs or no outputs")
        params = interface.params.params
        if params.insecure and not request.allow_insecure:
            raise ParameterError(f"the server proposes parameters below 128 bits: log2(QP) = {params.log_qp}")
        if interface.keys.bootstrap != request.bootstrap:
            raise ProtocolError(
                f"the server's manifest is for refresh: {'bootstrap' if interface.keys.bootstrap else 'client'}, "
                "which was not asked for"
            )
        if request.pairs is not None and interface.pairs != request.pairs:
            asked = "two images" if request.pairs else "one image"
            raise ProtocolError(f"the server's manifest does not have {asked} a slot, which was asked for")
        alternating = self.backend.capabilities.alternating_imaginary
        if interface.pairs and any(port.layout.alternating != alternating for port in interface.inputs.values()):
            raise ProtocolError(
                f"the server's manifest has i in the slots otherwise than backend {self.backend.name!r} has it"
            )
        if self.backend.resolve(params) != interface.params:
            raise ParameterError(
                f"the server's primes are not those of backend {self.backend.name!r} for these parameters"
            )
        _check_keys(interface)

    def _check_inputs(self, inputs: Mapping[str, Array]) -> int:
        wanted = {name: port.layout.features for name, port in self.interface.inputs.items()}
        given = {name: values.shape[1] for name, values in inputs.items()}
        if wanted != given:
            raise ProtocolError(f"the program takes inputs {wanted} (name: entries); given: {given}")
        counts = {len(values) for values in inputs.values()}
        if len(counts) != 1 or not 1 <= (images := counts.pop()) <= self.interface.images:
            raise ProtocolError(f"inputs must all have one number of images, 1 to {self.interface.images}")
        return images

    # -- keys, encryption, decryption ----------------------------------------------------------------------------------

    def _send_keys(self, interface: Interface) -> None:
        """Make the keys and send the evaluation keys one by one: all of them may be more than memory holds.

        The server encodes its weights while the first are made here, and loads a key while the next one is made: two
        processes, two cores. What sending a key takes here is transfer; the rest of its way takes no time of its own.
        """
        self.transport.send(wire.encode("prepare", again=self._source.kept))
        started = time.perf_counter()
        self._keys = self._source.holder(interface)
        total = len(interface.keys.names())
        waiting: list[tuple[str, bytes]] = []
        preparing, sending = True, 0.0
        for made, (name, blob) in enumerate(self._source.evaluation_keys(interface, self._keys), 1):
            self.progress(Progress(self._source.stage, made, total, name))
            waiting.append((name, blob))
            if preparing and made < total and sum(len(key) for _, key in waiting) < WAITING_BYTES:
                continue
            if preparing:
                self.figures.seconds["keygen"] += time.perf_counter() - started
            for sent, key in waiting:
                self._answer("done")  # to what was sent before: the weights, or a key
                if preparing:
                    preparing, started = False, time.perf_counter()
                ready = time.perf_counter()
                self.transport.send(wire.encode("key", name=sent, blob=key))
                sending += time.perf_counter() - ready
                self.ledger.add("server", None, f"evaluation key {sent}", "public", 0, len(key))
                self.figures.evaluation_keys += len(key)
            waiting.clear()
        self._answer("done")
        self.figures.seconds["keygen"] += time.perf_counter() - started - sending
        self.figures.seconds["transfer"] += sending

    def _show(self, latents: Array, select: Select, message: int) -> dict[str, Part]:
        """The plaintext part of latents that come from a decryption: rounded, counted, and refused beyond a limit."""
        started = time.perf_counter()
        mask = select(latents)
        values, unit = rounded(latents, mask)
        self.figures.seconds["select"] += time.perf_counter() - started
        entries = int((~mask).sum())
        if entries and not self._source.show(entries, SHOWN_LIMIT):
            raise ProtocolError(
                f"step {message} would show more than {SHOWN_LIMIT:,} decrypted entries under one key; at most so many "
                f"are shown, since each tells of the key a little: {self._source.next_step}"
            )
        return {} if mask.all() else {LATENT: Part(mask.ravel(), values.ravel(), unit=unit)}

    def _tell(self, step: int, contents: Mapping[str, Iterator[tuple[str, Form, int, int]]]) -> None:
        """Put into the ledger what the server is sent in plaintext."""
        for items in contents.values():
            for item, form, entries, size in items:
                self.ledger.add("server", step, item, form, entries, size)

    def _encrypt(
        self,
        ports: Mapping[str, Port],
        values: Mapping[str, Array],
        step: int | None,
        images: int,
        shown: Mapping[str, Part] | None = None,
    ) -> dict[str, list[bytes]]:
        assert self._keys is not None
        started = time.perf_counter()
        encrypted = {}
        for name, port in ports.items():
            hidden, entries = values[name], images * port.layout.features
            if shown and name in shown:
                hidden = hidden - shown[name].values.reshape(hidden.shape)
                entries = int(shown[name].mask.sum())
            elif port.previous is not None:
                entries = 0  # no number that was not sent before
            packed = port.layout.pack(hidden)
            encrypted[name] = [self._keys.encrypt_bytes(slots, port.level, port.scale) for slots in packed]
            size = sum(map(len, encrypted[name]))
            self.ledger.add("server", step, name, "ciphertext", entries, size)
            if step is not None and name == LATENT and self._requests == 0:
                self.view.append(encrypted[name][0][:VIEW_BYTES])
        self.figures.seconds["encrypt"] += time.perf_counter() - started
        return encrypted

    def _decrypt(self, answer: Message, message: int, images: int) -> dict[str, Array]:
        assert self._keys is not None
        started = time.perf_counter()
        step = self.interface.last_step(message)
        sent = wire.blobs(answer, "outputs")
        self.figures.download_per_step = sum(len(b) for items in sent.values() for b in items)
        outputs = {}
        for name, port in self.interface.outputs.items():
            items = sent.get(name, [])
            if len(items) != port.layout.ciphertexts:
                raise ProtocolError(
                    f"output {name!r} has {len(items)} ciphertexts; {port.layout.ciphertexts} are expected"
                )
            slots = np.stack([self._decrypt_one(item, name, port) for item in items])
            with np.errstate(over="ignore"):  # what is too large is refused below
                values = port.layout.unpack(slots, images) * port.factors[step]
            if not np.isfinite(values).all() or np.abs(values).max() > self._largest:
                raise ProtocolError(
                    f"output {name!r} of step {step} is no picture: values up to {np.abs(values).max():.3g}"
                )
            outputs[name] = values
            self.ledger.add("key holder", step, name, "plaintext", images * port.layout.features, sum(map(len, items)))
        self.figures.seconds["decrypt"] += time.perf_counter() - started
        return outputs

    def _decrypt_one(self, item: bytes, name: str, port: Port) -> NDArray[np.complex128]:
        """One output ciphertext's slots; it must be at the level and scale that were announced."""
        assert self._keys is not None
        envelope = Envelope.unpack(item)
        if envelope.level != port.level or envelope.scale != port.scale:
            raise ProtocolError(
                f"output {name!r} is at level {envelope.level} and scale {envelope.scale:g}; the manifest announced "
                f"level {port.level} and scale {port.scale:g}"
            )
        return self._keys.decrypt_bytes(item)

    # -- messages ------------------------------------------------------------------------------------------------------

    def _ask(self, kind: str, answer: str, **fields: Any) -> Message:
        self.transport.send(wire.encode(kind, **fields))
        return self._answer(answer)

    def _round_trip(
        self, encode: Callable[[], bytes], answer: str, progress: ProgressCallback | None = None
    ) -> tuple[Message, int]:
        """Send a message of a request; its answer, and the message's size in bytes.

        The server tells how long it worked. The rest of the round trip is transfer: framing, checksums, and the way of
        both messages, without clocks that agree.
        """
        started = time.perf_counter()
        frame = encode()
        self.transport.send(frame)
        message = self._answer(answer, progress)
        took = time.perf_counter() - started
        worked = wire.field(message, "seconds", float)
        if not 0 <= worked < math.inf:
            raise ProtocolError(f"the server says that it worked {worked} s on a message")
        worked = min(worked, took)  # clocks of two machines do not run alike
        self.figures.seconds["evaluate"] += worked
        self.figures.seconds["transfer"] += took - worked
        return message, len(frame)

    def _answer(self, kind: str, progress: ProgressCallback | None = None) -> Message:
        """The answer to the last message; progress on the way is passed on, an error of the server raised."""
        while True:
            message = wire.decode(self.transport.receive(), kind, "progress", "error")
            if message.kind == "error":
                wire.raise_error(message)
            if message.kind == kind:
                return message
            told = Progress(
                line(wire.field(message, "stage", str), 40),
                wire.field(message, "done", int),
                wire.field(message, "total", int),
                line(wire.field(message, "detail", str), 80),
            )
            (progress or self.progress)(told)

    def _step_progress(self, message: int, units: tuple[int, int]) -> ProgressCallback:
        """A server's progress within a message, as progress of the whole run."""
        batch, batches = units
        messages = self.interface.messages

        def told(p: Progress) -> None:
            where = f"message {message + 1} of {messages}, region {p.detail}" + (
                f", batch {batch + 1} of {batches}" if batches > 1 else ""
            )
            done = (batch * messages + message) * p.total + p.done
            self.progress(Progress("evaluate", done, batches * messages * p.total, where))

        return told


def _trace(item: Any) -> Trace:
    """One operation as the server tells of it; ProtocolError if it is none."""
    kinds = (int, str, int, float, float)
    if not isinstance(item, list) or [type(part) for part in item] != list(kinds):
        raise ProtocolError("the server's trace is no list of (step, operation, level, scale in bits, seconds)")
    step, operation, level, scale_bits, seconds = item
    if not (0 <= step < 2**31 and 0 <= level < 2**31 and abs(scale_bits) < 2**20 and 0 <= seconds < math.inf):
        raise ProtocolError(f"the server's trace has a step {step} at level {level}, scale {scale_bits}, {seconds} s")
    return Trace(step, line(operation, 80), level, scale_bits, seconds)


def _provenance(told: Mapping[str, Any]) -> Provenance:
    """Who did the server's work, by its own words; ProtocolError if they are none."""
    process = told.get("process")
    words = [told.get(name) for name in ("library", "version", "python")]
    if not all(isinstance(word, str) for word in words) or type(process) is not int or process < 0:
        raise ProtocolError("the server does not say which library, version, interpreter and process did the work")
    library, version, python = (line(word, 80) for word in words)
    return Provenance(library, version, python, process)


def _check_keys(interface: Interface) -> None:
    params = interface.params
    primes, special, n = len(params.primes), len(params.special_primes), params.params.ring_dimension
    digits = -(-primes // special)
    size = len(interface.keys.names()) * digits * 2 * (primes + special) * n * 8
    if size > LARGEST_KEYS:
        raise ParameterError(
            f"the server asks for {len(interface.keys.names())} evaluation keys of about {size / 1e9:.1f} GB in all; "
            f"at most {LARGEST_KEYS / 1e9:.1f} GB are made"
        )
