"""Leak against cost as a chart: a panel a metric, a line a strategy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hefw.audit.record import AuditRecord, PointRecord
from hefw.report.levels import DARK, LIGHT, Colours, style, svg

WIDTH, HEIGHT = 6.4, 2.5  # inches of 72 points; the height of a row of two panels
MARKERS = "osv^Dp"
CAP = 2.5


def draw(record: AuditRecord, *, dark: bool = False) -> bytes:
    """The chart as an SVG file, for light or dark surroundings; the same bytes for the same record."""
    assert record.curves is not None
    colours = DARK if dark else LIGHT
    metrics = list(record.metrics)
    rows = -(-len(metrics) // 2)
    with matplotlib.rc_context(style(colours)):
        figure = Figure((WIDTH, HEIGHT * rows + 0.4), layout="constrained")
        panels = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, metric in zip(panels, metrics, strict=False):
            _plot(axes, list(lines(record.curves.points)), metric, record.metrics[metric].title, colours)
        for axes in panels[len(metrics) :]:
            axes.set_visible(False)
        figure.supxlabel("entries encrypted", fontsize=10)
        figure.supylabel("leak", fontsize=10)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False)
        return svg(figure)


def lines(points: Sequence[PointRecord]) -> Iterator[tuple[str, list[PointRecord]]]:
    """Strategies with their points, the cheapest first; those that cost and leak the same share a line."""
    found: dict[str, list[PointRecord]] = {}
    for point in points:
        found.setdefault(point.strategy, []).append(point)
    while found:
        own = next(iter(found.values()))
        same = [other for other, its in found.items() if list(map(_place, its)) == list(map(_place, own))]
        for other in same:
            del found[other]
        yield ", ".join(same), sorted(own, key=lambda point: point.encrypted)


def _place(point: PointRecord) -> tuple[object, ...]:
    return point.encrypted, point.best


def _plot(
    axes: Axes, strategies: list[tuple[str, list[PointRecord]]], metric: str, title: str, colours: Colours
) -> None:
    axes.set_axisbelow(True)
    axes.grid(axis="y")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=10, loc="left")
    cycle = (colours.level, colours.bootstrap, colours.ink, colours.faint)
    for number, (name, points) in enumerate(strategies):
        leaks = [
            (point.encrypted, leak)
            for point in points
            if metric in point.best and (leak := point.best[metric].leak) is not None
        ]
        axes.errorbar(
            [share for share, _ in leaks],
            [leak.mean for _, leak in leaks],
            [
                [max(0.0, leak.mean - leak.low) for _, leak in leaks],
                [max(0.0, leak.high - leak.mean) for _, leak in leaks],
            ],
            marker=MARKERS[number % len(MARKERS)],
            color=cycle[number % len(cycle)],
            capsize=CAP,
            markersize=max(4, 11 - 3 * number),  # so that points in one place can be told
            label=name,
        )
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.05, 1.05)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
