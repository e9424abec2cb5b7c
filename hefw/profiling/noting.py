"""What profiles of both protocols are made of: noted regions and spans, errors, and the simulator like a backend."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.core.backend import Backend, Capabilities
from hefw.core.params import CkksParams
from hefw.core.program import Op
from hefw.core.runner import Ciphertexts, Runner
from hefw.plugins import imported, registry
from hefw.profiling.record import Error, OperationRow
from hefw.profiling.timing import Event, Recorder, overhead
from hefw.running import Run

Array = NDArray[np.float64]
DATA_RANGE = 2.0
#: The event of a whole region, and what of it is in no operation: the framework's own work.
REGION, REST = "region", "(framework)"


class Noting(Runner):
    """A runner that tells the recorder which region its operations are of."""

    recorder: Recorder

    def _operation(self, op: Op, step: int, values: dict[str, Ciphertexts], spent: frozenset[str]) -> Ciphertexts:
        recorder = self.recorder
        recorder.region, recorder.step = op.name, step
        before = Counter(self.evaluator.counts)
        try:
            of = super()._operation
            result: Ciphertexts = recorder.call(REGION, lambda: of(op, step, values, spent))
            return result
        finally:
            recorder.region = ""
            recorder.counts.setdefault(op.name, Counter()).update(Counter(self.evaluator.counts) - before)


def span(recorder: Recorder, spans: list[Event], name: str, function: Callable[[], Any]) -> Any:
    """The result of a function, noted as one span of time."""
    local = Recorder(clock=recorder.clock)
    result = local.call(name, function)
    spans.append(replace(local.events[-1], step=recorder.step, level=None, scale_bits=None))
    return result


def seconds_of(spans: Sequence[Event]) -> dict[str, float]:
    """Seconds of all spans by name, in the order in which the names came."""
    found: dict[str, float] = defaultdict(float)
    for item in spans:
        found[item.name] += item.seconds
    return dict(found)


def facts(run: Run, params: CkksParams, recorder: Recorder, spans: Sequence[Event]) -> dict[str, Any]:
    """What a profile says of its run and parameters, and of all that was noted."""
    provenance = run.backend.provenance()
    return {
        "model": run.model.name,
        "backend": run.backend.name,
        "library": f"{provenance.library} {provenance.version}",
        "simulated": run.backend.capabilities.simulated,
        "insecure": params.insecure,
        "ring_dimension": params.ring_dimension,
        "log_qp": params.log_qp,
        "seconds": seconds_of(spans),
        "operations": tuple(operation_rows(recorder)),
        "overhead": overhead() * len(recorder.events),
        "events": tuple(recorder.events),
        "spans": tuple(spans),
    }


def error_of(off: Sequence[Array]) -> Error:
    """Of differences between decrypted and plaintext values, one array a message."""
    values = np.concatenate([array.ravel() for array in off])
    return Error(float(np.sqrt(np.mean(values**2))), float(np.abs(values).max()))


def psnr_db(squares: Sequence[float]) -> float | None:
    """Of the worst message, by its mean square difference; None where nothing differs."""
    worst = max(squares)
    return 20 * math.log10(DATA_RANGE / math.sqrt(worst)) if worst else None


def simulator_like(capabilities: Capabilities) -> Backend:
    """The simulator, with slots as another backend has them: its noise is the planner's model of that library's."""
    entry = registry().entry("backend", "simulator")
    simulator: Backend = imported("backend", entry)(entry.options())
    simulator.capabilities = replace(
        simulator.capabilities,
        alternating_imaginary=capabilities.alternating_imaginary,
        complex_values=capabilities.complex_values,
        fine_reals=capabilities.fine_reals,
        centred_digits=capabilities.centred_digits,
    )
    return simulator


def operation_rows(recorder: Recorder) -> list[OperationRow]:
    """By the time they took themselves, the longest first."""
    calls: Counter[str] = Counter()
    own: dict[str, float] = defaultdict(float)
    for event in recorder.events:
        name = REST if event.name == REGION else event.name
        calls[name] += 1
        own[name] += event.own
    longest = sorted(own.items(), key=lambda item: -item[1])
    return [OperationRow(name, calls[name], seconds) for name, seconds in longest]
