"""An evaluator that notes when each of its operations begins and ends. To see where time goes, not to claim a speed."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hefw.core.backend import Ciphertext, Evaluator

#: Public methods of an evaluator that are no work.
NOT_TIMED = frozenset({"require_keys", "threads_used"})
CALIBRATION_CALLS = 20_000


@dataclass(frozen=True)
class Event:
    """One operation, or one region. `start` is in seconds since the recorder began, `own` without what it calls."""

    name: str
    region: str  # empty outside of regions
    step: int
    start: float
    seconds: float
    own: float
    level: int | None = None
    scale_bits: float | None = None


@dataclass
class Recorder:
    """What was done so far. `region` and `step` are those that operations belong to; `inside` the depth of calls.

    `counts` are a region's operations on ciphertexts by the evaluator's own counting: one call may do several.
    """

    events: list[Event] = field(default_factory=list)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    region: str = ""
    step: int = 0
    clock: float = field(default_factory=time.perf_counter)
    _children: list[float] = field(default_factory=list)

    def call(self, name: str, function: Callable[[], Any], given: Any = None) -> Any:
        """The result of a function, which is noted as an operation, unless it is what it was given: a rotation by 0."""
        self._children.append(0.0)
        start = time.perf_counter()
        try:
            result = function()
        finally:
            seconds = time.perf_counter() - start
            inner = self._children.pop()
            if self._children:
                self._children[-1] += seconds
        if given is not None and result is given:
            if self._children:
                self._children[-1] -= seconds  # it is the caller's own
            return result
        level, scale_bits = _state(result)
        own = seconds - inner
        self.events.append(Event(name, self.region, self.step, start - self.clock, seconds, own, level, scale_bits))
        return result


def timed(evaluator: Evaluator, recorder: Recorder) -> None:
    """Have an evaluator note its operations, those that it calls itself among them."""
    kind: Any = type(evaluator)
    members = {name: _wrapped(getattr(kind, name), name, recorder) for name in operations(kind)}
    evaluator.__class__ = type(kind.__name__, (kind,), members)


def operations(kind: type[Evaluator]) -> list[str]:
    """The public methods that do an evaluator's work."""
    return [
        name
        for name in dir(kind)
        if not name.startswith("_") and name not in NOT_TIMED and callable(getattr(kind, name))
    ]


def overhead() -> float:
    """Seconds that noting one operation takes, measured now."""
    recorder = Recorder()

    def nothing() -> None:
        return None

    started = time.perf_counter()
    for _ in range(CALIBRATION_CALLS):
        recorder.call("nothing", nothing)
    noted = time.perf_counter() - started
    started = time.perf_counter()
    for _ in range(CALIBRATION_CALLS):
        nothing()
    return max(0.0, noted - (time.perf_counter() - started)) / CALIBRATION_CALLS


def _wrapped(method: Any, name: str, recorder: Recorder) -> Any:
    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        given = arguments[0] if arguments else None
        return recorder.call(name, functools.partial(method, self, *arguments, **named), given)

    return call


def _state(result: Any) -> tuple[int | None, float | None]:
    """Level and scale in bits of what an operation gave, if it is ciphertext."""
    found = result[0] if isinstance(result, list) and result else result
    return (found.level, found.scale_bits) if isinstance(found, Ciphertext) else (None, None)
