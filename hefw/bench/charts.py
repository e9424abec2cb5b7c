"""The drawings of a comparison's page: figures against each other with their Pareto fronts, and where time goes."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from hefw.bench.expansion import label
from hefw.bench.front import ACCURACY, OBJECTIVES, Objective, front, group, work
from hefw.bench.record import CellRecord, ComparisonRecord
from hefw.report.levels import DARK, LIGHT, Colours, style, svg
from hefw.report.words import listed

WIDTH, HEIGHT = 4.6, 3.4  # inches
BAR = 0.34  # inches a cell
LEGEND = 0.24  # inches a line
MOST_BARS = 40
#: Things that are drawn, each with drawings of its own, and cells that such drawings need.
MOST_SECTIONS, LEAST_CELLS = 4, 3
#: Okabe and Ito's, which also those who see few colours can tell apart; the last ones repeat with other markers.
CYCLE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
CYCLE_DARK = ("#56b4e9", "#f0803c", "#2fd6a5", "#e39ac5", "#f5bd41", "#8ec9f2")
MARKERS = "osD^vP*X"
HATCHES = ("", "///", "...", "xxx")
#: Stages of a run in the words of the page, in their order. What is not here is shown by its own name.
STAGES = {
    "plan": "plan and server start",
    "keygen": "key generation",
    "encode_weights": "encode weights",
    "select": "select",
    "encrypt": "encrypt",
    "evaluate": "evaluate",
    "transfer": "transfer",
    "decrypt": "decrypt",
    "model": "network in plaintext",
}
ALL_ELSE, OTHERS = "all else", "others"
MOST_OPERATIONS = 10  # by name
#: Runs while keys are made, in the server's process.
MEANWHILE = "encode_weights"
LEAST_SHARE = 1 / 300  # of the longest bar: less is not seen
LONGEST_LINE = 54  # characters above a bar
LEGEND_LETTERS = 50  # in a line of two labels
FRONT = "front"  # a legend's word for the line


@dataclass(frozen=True)
class Chart:
    """One drawing, in both schemes, with what it shows in words."""

    name: str
    alt: str
    caption: str
    light: bytes
    dark: bytes


@dataclass(frozen=True)
class Section:
    """Drawings of cells that can be compared: `title` says of what, where there are several sections."""

    title: str
    charts: tuple[Chart, ...]


def sections(record: ComparisonRecord) -> list[Section]:
    """Every two of time, quality, leak and memory that differ between cells, for each thing that is drawn.

    All together where these are many, or one of them has too few cells for a drawing of its own.
    """
    by_work: dict[str, list[CellRecord]] = {}
    for cell in record.measured:
        by_work.setdefault(work(cell), []).append(cell)
    if not 1 < len(by_work) <= MOST_SECTIONS or min(map(len, by_work.values())) < LEAST_CELLS:
        by_work = {"": record.measured}
    return [
        Section(title, tuple(_pair(x, y, cells, f"{x.name}-{y.name}-{number}") for x, y in _able(cells)))
        for number, (title, cells) in enumerate(by_work.items())
    ]


def _able(cells: Sequence[CellRecord]) -> list[tuple[Objective, Objective]]:
    able = [objective for objective in OBJECTIVES.values() if _differs(objective, cells)]
    found = list(itertools.combinations(able, 2))
    read = all(cell.figures is not None and cell.figures.accuracy is not None for cell in cells)
    return found + ([(OBJECTIVES["time"], ACCURACY)] if read and _differs(ACCURACY, cells) else [])


def alike(record: ComparisonRecord) -> list[Objective]:
    """What is the same in all cells, and so has no drawing."""
    return [objective for objective in OBJECTIVES.values() if not _differs(objective, record.measured)]


def stages(record: ComparisonRecord) -> Chart | None:
    """Median seconds by stage, a bar a cell; None where nothing was measured."""
    cells = record.measured[:MOST_BARS]
    if not cells:
        return None
    more = len(record.measured) - len(cells)
    caption = "Median seconds of each stage of a run. Weights are encoded while keys are made: no part here"
    caption += f". The first {MOST_BARS} cells; {more} more are in results.csv" if more else ""
    known = [*STAGES.values(), ALL_ELSE]
    bars = [(cell, dict(parts(cell))) for cell in cells]
    light, dark = (_bars(bars, known, colours, cycle) for colours, cycle in ((LIGHT, CYCLE), (DARK, CYCLE_DARK)))
    return Chart("stages", "A bar for each cell: where its time goes, by stage", caption, light, dark)


def operations(record: ComparisonRecord) -> Chart | None:
    """Seconds of the server's operations in one message, a bar a cell; None where nothing was profiled."""
    found = [(cell, cell.profile) for cell in record.cells if cell.profile is not None][:MOST_BARS]
    if not found:
        return None
    total: dict[str, float] = {}
    for _, profile in found:
        for name, item in profile.operations.items():
            total[name] = max(total.get(name, 0.0), item.seconds / profile.messages)
    names = sorted(total, key=lambda name: -total[name])[:MOST_OPERATIONS]
    bars = []
    for cell, profile in found:
        own = {name.replace("_", " "): profile.operations[name].seconds for name in names if name in profile.operations}
        own[OTHERS] = sum(item.seconds for item in profile.operations.values()) - sum(own.values())
        bars.append((cell, {name: seconds / profile.messages for name, seconds in own.items()}))
    known = [*(name.replace("_", " ") for name in names), OTHERS]
    light, dark = (_bars(bars, known, colours, cycle) for colours, cycle in ((LIGHT, CYCLE), (DARK, CYCLE_DARK)))
    caption = "Seconds of the server's operations in one message, each without what it calls, from a run of their own"
    return Chart("operations", "A bar for each cell: the server's time by operation", caption, light, dark)


def parts(cell: CellRecord) -> Iterator[tuple[str, float]]:
    """A cell's stages in words with their median seconds, what is left of the whole run last."""
    assert cell.figures is not None
    left = cell.figures.seconds.median
    known = cell.figures.stages
    for name in (*(name for name in STAGES if name in known), *(name for name in known if name not in STAGES)):
        if name == MEANWHILE:
            continue
        yield STAGES.get(name, name.replace("_", " ")), known[name].median
        left -= known[name].median
    yield ALL_ELSE, max(0.0, left)


def within(title: str) -> str:
    """A title within a sentence: PSNR stays what it is."""
    return title if title[:2].isupper() else title[0].lower() + title[1:]


def _differs(objective: Objective, cells: Sequence[CellRecord]) -> bool:
    return len({round(objective.value(cell.figures), 9) for cell in cells if cell.figures is not None}) > 1


def _pair(x: Objective, y: Objective, cells: Sequence[CellRecord], name: str) -> Chart:
    light, dark = (_scatter(x, y, cells, colours, cycle) for colours, cycle in ((LIGHT, CYCLE), (DARK, CYCLE_DARK)))
    numbers = [str(number) for number in sorted(_front_of(x, y, cells))]
    caption = f"{y.title} against {within(x.title)}. On the front of these two: {listed(numbers)}"
    return Chart(name, f"{y.title} against {x.title}, a point for each cell", caption, light, dark)


def _front_of(x: Objective, y: Objective, cells: Sequence[CellRecord]) -> set[int]:
    found: set[int] = set()
    for name in {group(cell) for cell in cells}:
        costs = {
            cell.number: (x.cost(cell.figures), y.cost(cell.figures))
            for cell in cells
            if group(cell) == name and cell.figures is not None
        }
        found |= front(costs)
    return found


def _scatter(x: Objective, y: Objective, cells: Sequence[CellRecord], colours: Colours, cycle: Sequence[str]) -> bytes:
    by_colour, by_marker = _told_by(cells)
    colour_values = list(dict.fromkeys(cell.settings[by_colour] for cell in cells))
    marker_values = list(dict.fromkeys(cell.settings[by_marker] for cell in cells)) if by_marker else []
    chosen = _front_of(x, y, cells)
    told = [_told(by_colour, text) for text in colour_values] + [_told(by_marker, text) for text in marker_values]
    columns = _columns([*told, FRONT])
    with matplotlib.rc_context(style(colours)):
        figure = Figure((WIDTH, HEIGHT + LEGEND * -(-(len(told) + 1) // columns)), layout="constrained")
        axes = figure.add_subplot()
        axes.set_axisbelow(True)
        axes.grid()
        axes.spines[["top", "right"]].set_visible(False)
        for name in dict.fromkeys(group(cell) for cell in cells):
            _line(axes, x, y, [cell for cell in cells if group(cell) == name and cell.number in chosen], colours)
        for cell in cells:
            assert cell.figures is not None
            colour, marker = _look(colour_values.index(cell.settings[by_colour]), cycle)
            if by_marker:
                marker = MARKERS[marker_values.index(cell.settings[by_marker]) % len(MARKERS)]
            place = (x.value(cell.figures), y.value(cell.figures))
            face = "none" if cell.figures.simulated else colour
            axes.plot(*place, marker=marker, markersize=8, color=colour, markerfacecolor=face, linestyle="none")
            if cell.number in chosen:
                axes.annotate(str(cell.number), place, (4, 4), textcoords="offset points", fontsize=9)
        for axis, objective, values in (
            (axes.xaxis, x, [x.value(cell.figures) for cell in cells if cell.figures]),
            (axes.yaxis, y, [y.value(cell.figures) for cell in cells if cell.figures]),
        ):
            axis.set_label_text(f"{objective.title} ({objective.unit})")
            if min(values) > 0 and max(values) > 20 * min(values):
                axis.axes.set(**{f"{axis.axis_name}scale": "log"})
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        handles: list[Line2D] = []
        for number, text in enumerate(colour_values):
            colour, marker = _look(number, cycle)
            shown = "s" if by_marker else marker
            handles.append(Line2D([], [], marker=shown, linestyle="none", color=colour, label=_told(by_colour, text)))
        handles += [
            Line2D(
                [],
                [],
                marker=MARKERS[place % len(MARKERS)],
                linestyle="none",
                color=colours.faint,
                label=_told(by_marker, text),
            )
            for place, text in enumerate(marker_values)
        ]
        handles.append(Line2D([], [], linestyle=(0, (3, 2)), color=colours.faint, label=FRONT))
        figure.legend(handles=handles, loc="outside upper left", ncols=columns, frameon=False, fontsize=9)
        return svg(figure)


def _look(place: int, cycle: Sequence[str]) -> tuple[str, str]:
    """Colour and marker of one value of many: colours repeat with other markers."""
    return cycle[place % len(cycle)], MARKERS[place // len(cycle) % len(MARKERS)]


def _line(axes: Axes, x: Objective, y: Objective, cells: Sequence[CellRecord], colours: Colours) -> None:
    """The front as a line through its cells."""
    points = sorted((x.value(cell.figures), y.value(cell.figures)) for cell in cells if cell.figures is not None)
    if len(points) > 1:
        axes.plot(*zip(*points, strict=True), linestyle=(0, (3, 2)), linewidth=1.2, color=colours.faint, zorder=1)


def _told_by(cells: Sequence[CellRecord]) -> tuple[str, str | None]:
    """The settings that colours and markers tell: the first two that vary."""
    keys = list(cells[0].settings)
    vary = [key for key in keys if len({cell.settings[key] for cell in cells}) > 1]
    return (vary[0] if vary else keys[0]), (vary[1] if len(vary) > 1 else None)


def _columns(labels: Sequence[str]) -> int:
    """Of a legend: two, where none of these labels is then cut off."""
    half = -(-len(labels) // 2)
    width = max(map(len, labels[:half])) + max(map(len, labels[half:]), default=0)
    return 2 if width <= LEGEND_LETTERS else 1


def _apart(cells: Sequence[CellRecord]) -> list[str]:
    """Cells by the settings that tell them apart, in at most two lines each."""
    keys = tuple(key for key in cells[0].settings if len({cell.settings[key] for cell in cells}) > 1)
    found = []
    for cell in cells:
        lines = textwrap.wrap(f"{cell.number}  {label(cell.settings, keys) if keys else cell.name}", LONGEST_LINE)
        found.append("\n".join(lines[:2]) + ("…" if len(lines) > 2 else ""))
    return found


def _told(key: str | None, text: str) -> str:
    """A setting in a legend: a plugin by its name, anything else with what it is."""
    return "" if key is None else label({key: text}, (key,))


def _bars(
    bars: Sequence[tuple[CellRecord, Mapping[str, float]]],
    known: Sequence[str],
    colours: Colours,
    cycle: Sequence[str],
) -> bytes:
    """A bar a cell of its parts in seconds by name; `known` names come first, in their order."""
    longest = max(sum(own.values()) for _, own in bars)
    seen = {name for _, own in bars for name, seconds in own.items() if seconds > LEAST_SHARE * longest}
    names = [name for name in (*known[:-1], *sorted(seen - {*known}), known[-1]) if name in seen]
    cells = [cell for cell, _ in bars]
    with matplotlib.rc_context(style(colours)):
        figure = Figure((WIDTH, 0.9 + BAR * 2 * len(cells) + LEGEND * ((len(names) + 1) // 2)), layout="constrained")
        axes = figure.add_subplot()
        axes.set_axisbelow(True)
        axes.grid(axis="x")
        axes.spines[["top", "right", "left"]].set_visible(False)
        left = [0.0] * len(cells)
        places = range(len(cells))
        for number, name in enumerate(names):
            widths = [own.get(name, 0.0) for _, own in bars]
            axes.barh(
                places,
                widths,
                0.42,
                left,
                color=cycle[number % len(cycle)],
                hatch=HATCHES[number // len(cycle)],
                edgecolor=colours.paper,
                linewidth=0.5,
                label=name,
            )
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for place, text in zip(places, _apart(cells), strict=True):
            axes.text(0, place - 0.24, text, va="bottom", fontsize=9, linespacing=1.1)
        axes.set_yticks([])
        axes.set_ylim(len(cells) - 0.5, -0.7)
        axes.set_xlabel("seconds")
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
        return svg(figure)
