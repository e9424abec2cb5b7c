"""Progress of a run on stderr: a bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TextIO

from hefw.core.progress import Progress, ProgressCallback

STAGES = {
    "plan": "planning",
    "keygen": "making keys",
    "keys": "sending stored keys",
    "encode": "encoding weights",
    "label": "encrypting labels",
    "network": "network in plaintext",
    "evaluate": "evaluating",
    "twin": "plaintext twin",
    "train": "training",
    "sample": "sampling in plaintext",
    "ranges": "measuring ranges",
    "judge": "judging pictures",
    "draw": "drawing in plaintext",
    "attack": "attacking",
    "curves": "attacking other settings",
}
LINES_PER_STAGE = 10


@dataclass
class _Stage:
    """How far a stage was when it was first told of, and when its last line was printed."""

    started: float
    first: int
    tenth: int
    done: int


class PlainLines:
    """Prints a line when a stage begins, ends, or has moved on by a tenth, with the time left as far as is known.

    Stages may take turns.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._stages: dict[str, _Stage] = {}

    def __call__(self, progress: Progress) -> None:
        now = self._clock()
        tenth = LINES_PER_STAGE * progress.done // progress.total if progress.total else 0
        stage = self._stages.get(progress.stage)
        if stage is None or progress.done < stage.done:  # it begins, or begins again
            stage = self._stages[progress.stage] = _Stage(now, progress.done, -1, 0)
        stage.done = progress.done
        if tenth <= stage.tenth:
            return
        stage.tenth = tenth
        line = f"{STAGES.get(progress.stage, progress.stage)} {progress.done}/{progress.total}"
        if progress.detail:
            line += f", {progress.detail}"
        if stage.first < progress.done < progress.total:
            left = (now - stage.started) * (progress.total - progress.done) / (progress.done - stage.first)
            line += f", about {max(1, round(left))} s left"
        print(line, file=self._stream, flush=True)


@contextlib.contextmanager
def show_progress(stream: TextIO | None = None) -> Iterator[ProgressCallback]:
    """A callback that shows a run's progress on `stream` (stderr by default) while the context is open."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield PlainLines(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Bars(*columns, console=Console(file=stream)) as bars:
        tasks: dict[str, TaskID] = {}

        def update(progress: Progress) -> None:
            if progress.stage not in tasks:
                name = STAGES.get(progress.stage, progress.stage)
                tasks[progress.stage] = bars.add_task(name, total=progress.total, detail="")
            bars.update(tasks[progress.stage], completed=progress.done, total=progress.total, detail=progress.detail)

        yield update
