"""The chart of a run's levels: where the server spent them, and who gave them back."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hefw.record import RunRecord, TraceRecord

MAX_REFRESHES = 16  # more teeth than that are not told apart
WIDTH, HEIGHT = 6.4, 2.9  # inches of 72 points
FONT = 10  # points
BANNER_WIDTH = 64  # characters a line
BOOTSTRAP = "bootstrap "  # what the operations begin with that give levels back on the server
COPY = re.compile(r"@(\d+)")


@dataclass(frozen=True)
class Colours:
    """Of one scheme, those of the page around it."""

    paper: str
    ink: str
    faint: str
    grid: str
    level: str
    bootstrap: str


LIGHT = Colours("#ffffff", "#16181d", "#555b66", "#d5d9e0", "#2457c5", "#e8890c")
DARK = Colours("#15171b", "#e8eaee", "#a5acb8", "#383d47", "#7ea6ff", "#f0a13a")
ALARM, ON_ALARM = "#b00020", "#ffffff"


@dataclass
class Course:
    """Levels over the time that the server's operations took, in seconds. Of the first batch.

    A level holds from its time on. `messages` are the times at which fresh ciphertext came, `steps` those at which a
    step of the schedule began on what was left, `bootstraps` (begin, end) of each bootstrapping. Of `refreshes` in the
    run, the first few are there.
    """

    times: list[float] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    messages: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    bootstraps: list[tuple[float, float]] = field(default_factory=list)
    shown: int = 0
    refreshes: int = 0


def course(record: RunRecord) -> Course:
    """What the chart of a run shows."""
    parts = list(_parts(record))
    found = Course(shown=min(len(parts), MAX_REFRESHES), refreshes=len(parts))
    several = record.every > 1
    now = 0.0
    for number, part in enumerate(parts[:MAX_REFRESHES]):
        if number == 0 or not _bootstraps(parts[number - 1][-1]):
            found.messages.append(now)
            found.times.append(now)
            found.levels.append(record.params.fresh_level)
        step = "1"
        for item in part:
            if _bootstraps(item):
                found.bootstraps.append((now, now + item.seconds))
            elif several and (copy := COPY.findall(item.operation)) and copy[-1] != step:
                step = copy[-1]
                found.steps.append(now)
            now += item.seconds
            found.times.append(now)
            found.levels.append(item.level)
    return found


def used(record: RunRecord) -> bool:
    """Whether levels were used up at all: an update of a scheduler takes none, and none is left where all is shown."""
    return any(item.level < record.params.fresh_level for item in record.trace)


def bootstrapped(record: RunRecord) -> bool:
    """Whether the server gave levels back."""
    return any(map(_bootstraps, record.trace))


def caption(record: RunRecord) -> str:
    """What the chart shows, and what a level is."""
    text = (
        "A ciphertext's level is the number of times that it can still be rescaled. Products use levels up; where none "
        "are left, the ciphertext cannot go on. "
    )
    if bootstrapped(record):
        text += "The server gave them back itself, by bootstrapping, on ciphertext."
    elif record.messages > 1:
        text += "The key holder gave them back: it decrypted the answer, and sent a fresh ciphertext."
    else:
        text += "One fresh ciphertext had enough of them for the whole run."
    if record.batches > 1:
        text += f" Shown is the first of {record.batches} batches."
    return text


def draw(record: RunRecord, *, dark: bool = False) -> bytes:
    """The chart as an SVG file, for light or dark surroundings; the same bytes for the same record."""
    colours = DARK if dark else LIGHT
    with matplotlib.rc_context(style(colours)):
        figure = Figure((WIDTH, HEIGHT), layout="constrained")
        _plot(figure.add_subplot(), course(record), colours)
        if record.banner:
            banner = textwrap.fill(record.banner, BANNER_WIDTH)
            figure.suptitle(banner, color=ON_ALARM, backgroundcolor=ALARM, fontsize=FONT + 1, fontweight="bold")
        return svg(figure)


def style(colours: Colours) -> dict[Any, Any]:
    """Settings of matplotlib's for a scheme, whatever the user's own are."""
    settings: dict[Any, Any] = dict(matplotlib.rcParamsDefault)
    settings |= {
        "font.size": FONT,
        "text.color": colours.ink,
        "axes.labelcolor": colours.ink,
        "axes.edgecolor": colours.faint,
        "axes.facecolor": colours.paper,
        "figure.facecolor": colours.paper,
        "xtick.color": colours.ink,
        "ytick.color": colours.ink,
        "grid.color": colours.grid,
        "legend.labelcolor": colours.ink,
        "svg.hashsalt": "hefw",
    }
    settings.pop("backend")
    return settings


def svg(figure: Figure) -> bytes:
    """The same bytes for the same figure."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _plot(axes: Axes, shown: Course, colours: Colours) -> None:
    axes.set_axisbelow(True)
    axes.grid(axis="y")
    axes.spines[["top", "right"]].set_visible(False)
    axes.step(shown.times, shown.levels, where="post", color=colours.level, linewidth=2, label="level")
    axes.fill_between(shown.times, shown.levels, step="post", color=colours.level, alpha=0.15, linewidth=0)
    for number, (begin, end) in enumerate(shown.bootstraps):
        label = "bootstrapping" if number == 0 else None
        axes.axvspan(begin, end, color=colours.bootstrap, alpha=0.35, linewidth=0, label=label)
    tops = [shown.levels[shown.times.index(time)] for time in shown.messages]
    axes.plot(
        shown.messages,
        [max(tops, default=0)] * len(tops),
        linestyle="none",
        marker="v",
        markersize=8,
        color=colours.ink,
        clip_on=False,
        label="message",
    )
    for number, time in enumerate(shown.steps):
        label = "next step" if number == 0 else None
        axes.axvline(time, color=colours.faint, linestyle=(0, (2, 2)), linewidth=1, label=label)
    axes.set_xlim(0, max(shown.times, default=0) or 1)
    axes.set_ylim(0, 1.12 * max([1, *shown.levels]))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("level")
    what = "refreshes" if shown.bootstraps else "messages"
    some = f" (first {shown.shown} of {shown.refreshes:,} {what})" if shown.shown < shown.refreshes else ""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=4, frameon=False, columnspacing=1.5)
    axes.set_xlabel(f"seconds of operations on the server{some}")


def _parts(record: RunRecord) -> Iterator[list[TraceRecord]]:
    """The operations of the first batch, from one refresh to the next: every step of a program begins alike."""
    part: list[TraceRecord] = []
    for item in record.trace:
        if part and item.operation == record.trace[0].operation:
            yield part
            if item.step == 0:  # the next batch
                return
            part = []
        part.append(item)
    if part:
        yield part


def _bootstraps(item: TraceRecord) -> bool:
    return item.operation.startswith(BOOTSTRAP)
