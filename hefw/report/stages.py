"""Stages of an install on stderr, each with the last line of the program at work: a spinner on a terminal, plain lines
elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

#: Between two plain lines of one stage, so that a log shows that it lives and stays short.
HEARTBEAT_SECONDS = 15.0
LONGEST_LINE = 100


class PlainStages:
    """Prints a line when a stage begins, and its last line with the time taken every quarter of a minute."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._stage, self._started, self._shown = "", 0.0, 0.0

    def __call__(self, stage: str, line: str) -> None:
        now = self._clock()
        if len(line) > LONGEST_LINE:
            line = f"{line[: LONGEST_LINE - 3]}..."
        if stage != self._stage:
            self._stage, self._started, self._shown = stage, now, now
            text = f"{stage}: {line}" if line else stage
        elif now - self._shown >= HEARTBEAT_SECONDS:
            self._shown = now
            text = f"{stage}, {now - self._started:.0f} s" + (f": {line}" if line else "")
        else:
            return
        print(text, file=self._stream, flush=True)


@contextlib.contextmanager
def show_stages(stream: TextIO | None = None) -> Iterator[Callable[[str, str], None]]:
    """A callback that shows stages on `stream` (stderr by default) while the context is open."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield PlainStages(stream)
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.table import Column

    columns = (
        SpinnerColumn(finished_text="-"),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[line]}", markup=False, style="dim", table_column=Column(no_wrap=True, ratio=1)),
    )
    with Progress(*columns, console=Console(file=stream), expand=True) as progress:
        tasks: dict[str, TaskID] = {}

        def update(stage: str, line: str) -> None:
            if stage not in tasks:
                for task in tasks.values():
                    progress.update(task, completed=1, line="")
                tasks[stage] = progress.add_task(stage, total=1, line="")
            progress.update(tasks[stage], line=line)

        yield update
        for task in tasks.values():
            progress.update(task, completed=1, line="")
