"""One request with both parties in this process, every operation noted and every region's value decrypted."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw import cache
from hefw.config import Config
from hefw.core.backend import Capabilities, Evaluator, KeyHolder
from hefw.core.errors import HefwError
from hefw.core.graph import Graph, advance
from hefw.core.normalise import centre_squares, normalise
from hefw.core.program import Op, Port, Program, SquareOp
from hefw.core.progress import Progress, ProgressCallback
from hefw.core.runner import Ciphertexts, Weights
from hefw.core.unroll import unroll
from hefw.planned import program_of
from hefw.profiling.noting import REGION, Noting, error_of, facts, psnr_db, simulator_like, span
from hefw.profiling.record import Error, Profile, RegionRow
from hefw.profiling.timing import Event, Recorder, timed
from hefw.run import EndToEnd, prepared

Array = NDArray[np.float64]


def profile(config: Config, *, messages: int = 1, progress: ProgressCallback | None = None) -> Profile:
    """Profile the first messages of a configuration's run, with new keys, one process and one request.

    HefwErrors as `hefw.generate`.
    """
    told = progress or (lambda _: None)
    run = prepared(config.model_copy(update={"keys": None, "twin": False}), told)
    if not isinstance(run, EndToEnd):
        from hefw.profiling.update import profile_update  # needs torch, as the network of update-only does

        return profile_update(run, messages, told)
    graph, wanted = run.asking()
    told(Progress("plan", 0, 1, "levels, scales and layouts"))
    program = program_of(graph, run.backend, wanted, cache.default())
    interface = program.interface
    images = min(interface.images, len(run.asked))
    inputs = {name: np.zeros((images, port.layout.features)) for name, port in interface.inputs.items()}
    inputs |= run.model.inputs(run.start()[:images], run.asked[:images])
    flat = centre_squares(normalise(unroll(graph, wanted.every)))
    wanted_messages = min(messages, interface.messages)

    recorder = Recorder()
    spans: list[Event] = []
    session = _Session(program, flat, inputs, wanted_messages, recorder, spans, told)
    keys: KeyHolder = session.span("make keys", lambda: run.backend.keygen(program.params, interface.keys))
    evaluator = run.backend.evaluator(program.params)
    timed(evaluator, recorder)
    measured = session.go(evaluator, keys)
    able = run.backend.capabilities.under(program.params.params)
    simulated = None if interface.keys.bootstrap else _forecast(session, able)
    return Profile(
        **facts(run, program.params.params, recorder, spans),
        images=images,
        messages=wanted_messages,
        of_messages=interface.messages,
        forecast_db=interface.forecast_db,
        psnr_db=measured.psnr_db,
        regions=tuple(_rows(program, measured, simulated, recorder, wanted_messages)),
    )


@dataclass
class _Values:
    """What was decrypted of each region: errors (one array a message), level and scale, the largest plaintext value."""

    errors: dict[str, list[Array]] = field(default_factory=lambda: defaultdict(list))
    states: dict[str, tuple[int, float]] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    psnr_db: float | None = None

    def error(self, name: str) -> Error | None:
        return error_of(self.errors[name]) if name in self.errors else None


class _Exact:
    """The values of the graph in plaintext from the inputs of one message, step after step."""

    def __init__(self, flat: Graph, first: int, inputs: Mapping[str, Array]) -> None:
        self._flat = flat
        self._step = first
        self._values = flat.evaluate(first, inputs)
        self._inputs = dict(inputs)

    def at(self, step: int) -> Mapping[str, Array]:
        """All values of a step; steps are asked for in order."""
        flat = self._flat
        while self._step < step:
            fed = {
                output.feedback: self._values[output.node] * output.factors[self._step]
                for output in flat.outputs.values()
                if output.feedback is not None
            }
            self._inputs = advance(self._inputs, {n: node.previous for n, node in flat.inputs.items()}, fed)
            self._step += 1
            self._values = flat.evaluate(self._step, self._inputs)
        return self._values


@dataclass
class _Session:
    """The same messages, by any evaluator and the key holder of its keys."""

    program: Program
    flat: Graph
    inputs: Mapping[str, Array]
    messages: int
    recorder: Recorder
    spans: list[Event]
    told: ProgressCallback

    @property
    def images(self) -> int:
        return len(next(iter(self.inputs.values())))

    def span(self, name: str, function: Callable[[], Any]) -> Any:
        """The result of a function, noted as one span of time."""
        return span(self.recorder, self.spans, name, function)

    def go(self, evaluator: Evaluator, keys: KeyHolder) -> _Values:
        """Run all messages and decrypt every region."""
        interface = self.program.interface
        runner = Noting(self.program, evaluator, Weights(self.program))
        runner.recorder = self.recorder
        self._keys(evaluator, keys)
        self.span("encode weights", lambda: runner.weights.encode_all(evaluator, self.told))
        ports = interface.inputs
        often = {name: port for name, port in ports.items() if not port.once}
        self.recorder.step = 0
        runner.begin(self._sent(evaluator, keys, {n: p for n, p in ports.items() if p.once}, self.inputs))
        current, values, squares = dict(self.inputs), _Values(), [0.0]
        for message in range(self.messages):
            last = interface.last_step(message)
            exact = _Exact(self.flat, message, current)

            def watch(step: int, name: str, value: Ciphertexts, exact: _Exact = exact) -> None:
                self._decrypted(keys, exact.at(step), name, value, values)

            outputs = runner.run(message, self._sent(evaluator, keys, often, current), self._told(message), watch)
            plain = self._outputs(keys, outputs, last)
            for name, found in plain.items():
                wanted = exact.at(last)[self.flat.outputs[name].node] * interface.outputs[name].factors[last]
                squares.append(float(np.mean((found - wanted) ** 2)))
            fed = {port.feedback: plain[name] for name, port in interface.outputs.items() if port.feedback}
            current = advance(current, {name: port.previous for name, port in ports.items()}, fed)
        values.psnr_db = psnr_db(squares)
        return values

    def _keys(self, evaluator: Evaluator, keys: KeyHolder) -> None:
        total = len(self.program.interface.keys.names())
        blobs = keys.evaluation_keys()
        for done in range(1, total + 1):
            name, blob = self.span("make keys", functools.partial(next, blobs))
            self.span("load keys", functools.partial(evaluator.load_keys, {name: blob}))
            self.told(Progress("keygen", done, total, name))

    def _sent(
        self, evaluator: Evaluator, keys: KeyHolder, ports: Mapping[str, Port], values: Mapping[str, Array]
    ) -> dict[str, Ciphertexts]:
        """Inputs as the server has them, through the bytes that would be sent."""

        def encrypt() -> dict[str, list[bytes]]:
            return {
                name: [keys.encrypt_bytes(row, port.level, port.scale) for row in port.layout.pack(values[name])]
                for name, port in ports.items()
            }

        sent: dict[str, list[bytes]] = self.span("encrypt", encrypt)
        return {name: [evaluator.load(item) for item in items] for name, items in sent.items()}

    def _outputs(self, keys: KeyHolder, outputs: Mapping[str, Ciphertexts], step: int) -> dict[str, Array]:
        ports = self.program.interface.outputs

        def decrypt() -> dict[str, Array]:
            return {
                name: ports[name].layout.unpack(np.stack([keys.decrypt(ct) for ct in cts]), self.images)
                * ports[name].factors[step]
                for name, cts in outputs.items()
            }

        found: dict[str, Array] = self.span("decrypt", decrypt)
        return found

    def _decrypted(
        self, keys: KeyHolder, exact: Mapping[str, Array], name: str, value: Ciphertexts, values: _Values
    ) -> None:
        """Note a region's error. What lies between steps (bootstrapping) has no value in the graph."""
        values.states[name] = (value[0].level, value[0].scale_bits)
        layout = next((op.layout for op in self.program.step if op.name == name), None)
        if layout is None or name not in exact:
            return
        slots = np.stack([keys.decrypt(ct) for ct in value])
        values.errors[name].append(layout.unpack(slots, self.images) - exact[name])
        values.largest[name] = max(values.largest[name], float(np.abs(exact[name]).max()))

    def _told(self, message: int) -> ProgressCallback:
        def told(p: Progress) -> None:
            self.told(Progress("evaluate", message * p.total + p.done, self.messages * p.total, p.detail))

        return told


def _forecast(session: _Session, capabilities: Capabilities) -> _Values | None:
    """The same by the simulator, under the very parameters: its noise is the planner's model of the library's."""
    simulator = simulator_like(capabilities)
    interface = session.program.interface
    try:
        keys = simulator.keygen(interface.params, interface.keys)
        quiet = replace(session, recorder=Recorder(), spans=[], told=lambda _: None)
        return quiet.go(simulator.evaluator(interface.params), keys)
    except HefwError:
        return None


def _rows(
    program: Program, measured: _Values, simulated: _Values | None, recorder: Recorder, messages: int
) -> Iterator[RegionRow]:
    """The prelude's regions, then a step's, in order; figures of a message."""
    seconds: dict[str, float] = defaultdict(float)
    calls: dict[str, Counter[str]] = defaultdict(Counter)
    own: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for event in recorder.events:
        if event.name == REGION:
            seconds[event.region] += event.seconds
            measured.states.setdefault(event.region, (event.level or 0, event.scale_bits or 0.0))
        elif event.region:
            calls[event.region][event.name] += 1
            own[event.region][event.name] += event.own
    prelude = {op.name for op in program.prelude}
    for op in (*program.prelude, *program.step):
        name, times = op.name, 1 if op.name in prelude else messages
        level, scale_bits = measured.states[name]
        yield RegionRow(
            name=name,
            kind=_kind(op, name in prelude),
            level=level,
            scale_bits=scale_bits,
            seconds=seconds[name] / times,
            operations={o: (n / times, own[name][o] / times) for o, n in calls[name].most_common()},
            counts={o: n / times for o, n in recorder.counts.get(name, Counter()).items()},
            largest=measured.largest.get(name, 0.0),
            noise=measured.error(name),
            forecast=None if simulated is None else simulated.error(name),
        )


def _kind(op: Op, once: bool) -> str:
    kind = "square" if isinstance(op, SquareOp) else "affine"
    return f"{kind}, once" if once else kind
