"""`report.html`: a comparison on one self-contained page, in words, a table, drawings and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hefw.bench import charts
from hefw.bench.intervals import Interval
from hefw.bench.record import ComparisonRecord, ShareRecord
from hefw.bench.words import banner, db, percent, summary
from hefw.report.html import fill
from hefw.report.words import duration, listed, size

TEMPLATE = Path(__file__).with_name("report.html.jinja")
MOST_REGIONS = 12  # of a cell, by name
SCRIPT = Path(__file__).with_name("report.js")


def render(record: ComparisonRecord, rows: Mapping[str, tuple[str, str]]) -> str:
    """The page's HTML with its script, drawings and pictures inside.

    Args:
        record: all figures.
        rows: by a cell's digest, its first pictures and those of its twin, PNGs in base64.
    """
    drawn = charts.sections(record)
    stages, operations = charts.stages(record), charts.operations(record)
    pictures: dict[str, bytes] = {}
    for chart in [
        *(chart for part in drawn for chart in part.charts),
        *(found for found in (stages, operations) if found),
    ]:
        pictures |= {f"{chart.name}.svg": chart.light, f"{chart.name}-dark.svg": chart.dark}
    filters = {
        "ci": _interval,
        "percent": percent,
        "share": _share,
        "db": db,
    }
    return fill(
        TEMPLATE,
        pictures,
        filters,
        title=record.title or "Comparison",
        record=record,
        banner=banner(record),
        summary=summary(record),
        columns=[(key, heading(key)) for key in record.keys],
        sections=[part for part in drawn if part.charts],
        stages=stages,
        operations=operations,
        parts=lambda cell: list(charts.parts(cell)),
        longest=_longest,
        stage_names=charts.STAGES,
        alike=_alike(record),
        rows=rows,
        judged=any(cell.figures and cell.figures.accuracy for cell in record.cells),
        audited=record.audit_images is not None,
        counts=_counts(record),
        coverage=min((cell.figures.seconds.coverage for cell in record.measured if cell.figures), default=0.0),
        versions=_versions(record),
        script=Markup(SCRIPT.read_text(encoding="utf-8")),  # hefw's own
    )


def heading(key: str) -> str:
    """A setting's name as a column's heading."""
    text = key.rpartition(".")[2].replace("_", " ")
    return text[0].upper() + text[1:]


def _longest(regions: Mapping[str, float]) -> list[tuple[str, float]]:
    """The regions that take most time, the others added up."""
    found = sorted(regions.items(), key=lambda item: -item[1])
    rest = found[MOST_REGIONS:]
    return found[:MOST_REGIONS] + ([(f"{len(rest)} others", sum(seconds for _, seconds in rest))] if rest else [])


def _interval(found: Interval, kind: str) -> Markup:
    """A median with its interval below it, in units that people read."""
    show: Any = {"s": duration, "B": size}.get(kind, lambda value: f"{value:.1f} {kind}")
    if found.runs == 1:
        return Markup("{}").format(show(found.median))
    return Markup("{}<small>{} to {}</small>").format(show(found.median), show(found.low), show(found.high))


def _share(found: ShareRecord | None) -> Markup:
    if found is None:
        return Markup("")
    return Markup("{:.1%}<small>{:.1%} to {:.1%} of {}</small>").format(
        found.value, found.low, found.high, found.pictures
    )


def _alike(record: ComparisonRecord) -> str | None:
    """What no drawing shows, since it is the same in all cells."""
    names = [charts.within(item.title) for item in charts.alike(record)]
    return f"The same in all cells, and so in no drawing: {listed(names)}." if names and record.measured else None


def _counts(record: ComparisonRecord) -> list[str]:
    """Operations that some cell has, the most frequent first."""
    found: dict[str, int] = {}
    for cell in record.measured:
        for name, count in (cell.figures.counts if cell.figures else {}).items():
            found[name] = max(found.get(name, 0), count)
    return sorted(found, key=lambda name: -found[name])


def _versions(record: ComparisonRecord) -> dict[str, str]:
    found: dict[str, str] = {}
    for cell in record.measured:
        found |= {} if cell.figures is None else cell.figures.versions
    return found
