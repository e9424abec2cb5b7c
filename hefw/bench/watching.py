"""Progress of a comparison on stderr: bars on a terminal, a plain line a run elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TextIO

from hefw.bench.comparison import Watcher
from hefw.bench.supervise import Told
from hefw.report.terminal import STAGES
from hefw.report.words import duration


class PlainWatcher:
    """Prints a line when a run begins, with the time that is left, and one when it has ended."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._all = self._done = 0

    def begin(self, runs: int, kept: int) -> None:
        """So many runs in all, so many of them kept from before."""
        self._all, self._done = runs, kept
        if kept:
            self._say(f"{kept} of {runs} are measured already")

    def trying(self, backend: str) -> None:
        """A line."""
        self._say(f"trying {backend} first, unmeasured")

    def running(self, what: str, left: float | None) -> Told:
        """A line; stages are not told of."""
        rest = "" if left is None else f", about {duration(left)} left"
        self._say(f"{self._done + 1} of {self._all}: {what}{rest}")
        return lambda stage, done, total: None

    def ended(self, what: str, outcome: str, seconds: float) -> None:
        """A line."""
        self._done += 1
        self._say(f"  {outcome}, {duration(seconds)}")

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


@contextlib.contextmanager
def watch(stream: TextIO) -> Iterator[Watcher]:
    """Who shows a comparison's progress on `stream` while the context is open."""
    if not stream.isatty():
        yield PlainWatcher(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=2)),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False),
    )
    with Progress(*columns, console=Console(file=stream), expand=True) as progress:
        yield _Bars(progress)


class _Bars:
    """Two bars: all runs with the time left, and the stage of the one that is being measured."""

    def __init__(self, progress: object) -> None:
        from rich.progress import Progress

        assert isinstance(progress, Progress)
        self._progress = progress
        self._all = progress.add_task("all runs", total=None, left="")
        self._now = progress.add_task("", total=None, left="")

    def begin(self, runs: int, kept: int) -> None:
        self._progress.update(self._all, total=runs, completed=kept)

    def trying(self, backend: str) -> None:
        self._progress.update(self._now, description=f"trying {backend} first, unmeasured")

    def running(self, what: str, left: float | None) -> Told:
        self._progress.update(self._all, left="" if left is None else f"about {duration(left)} left")
        self._progress.reset(self._now, description=what, total=None)

        def told(stage: str, done: int, total: int) -> None:
            text = f"{what}: {STAGES.get(stage, stage)}"
            self._progress.update(self._now, description=text, completed=done, total=total)

        return told

    def ended(self, what: str, outcome: str, seconds: float) -> None:
        self._progress.advance(self._all)
        self._progress.update(self._all, left="")
        self._progress.console.print(f"{what}: {outcome}, {duration(seconds)}", markup=False, highlight=False)
