"""One contender in a process of its own: it prepares, then evaluates once whenever it is told to. Python's own only.

The driver and a worker speak lines of JSON: the worker says `ready` with its figures, then answers each `run` with
`done`, and `end` with what it found out about its results.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

Figures = Mapping[str, Any]


class Contender(Protocol):
    """What evaluates a network on ciphertext.

    `prepare` (keys, weights, encrypted images) returns figures, among them `images`, those that one run evaluates, and
    `keys_bytes`, evaluation keys as sent. `run` takes ciphertexts as bytes to ciphertexts as bytes. `finish` decrypts
    and returns figures, among them `rms_error`, `max_abs_error` and `rms_output`.
    """

    def prepare(self) -> Figures: ...

    def run(self) -> None: ...

    def finish(self) -> Figures: ...


def work(make: Callable[..., Contender]) -> None:
    """Serve the driver with the contender that `make` gives for this program's arguments."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print is no answer
    contender = make(*sys.argv[1:])

    def say(kind: str, figures: Figures) -> None:
        print(json.dumps({kind: figures}), file=answers, flush=True)

    say("ready", contender.prepare())
    for line in sys.stdin:
        if line.strip() == "end":
            say("end", contender.finish())
            return
        contender.run()
        say("done", {})


def errors(found: Any, expected: Any) -> dict[str, float]:
    """How far results are from plaintext (both: arrays of one shape)."""
    difference = found - expected
    return {
        "rms_error": float((difference**2).mean() ** 0.5),
        "max_abs_error": float(abs(difference).max()),
        "rms_output": float((expected**2).mean() ** 0.5),
    }
