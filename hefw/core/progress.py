"""What a long operation tells its caller while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One step forward: `done` of `total` units of a stage are finished.

    `stage` is one of "plan", "keygen", "keys", "encode", "label", "evaluate", "twin", "sample",
    "train", "draw", "attack" or "curves"; `detail` names what is worked on (a step, a region) or is empty.
    """

    stage: str
    done: int
    total: int
    detail: str = ""


ProgressCallback = Callable[[Progress], None]
