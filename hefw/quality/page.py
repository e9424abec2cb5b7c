"""`quality.html`: one self-contained page about a model's pictures, in words, pictures and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hefw.quality.record import IntervalRecord, QualityRecord, SetRecord
from hefw.report.html import fill
from hefw.report.words import counted

TEMPLATE = Path(__file__).with_name("quality.html.jinja")


def render(record: QualityRecord, pictures: Mapping[str, bytes], columns: Sequence[str]) -> str:
    """The page's HTML: no script, no remote asset, the pictures embedded.

    Args:
        record: all figures.
        pictures: quality.png and quality-dark.png.
        columns: the titles of their columns.
    """
    drawn = [item for item in columns if item not in ("nearest", "real")]
    return fill(
        TEMPLATE,
        pictures,
        {"figure": figure, "share": share, "db": db, "named": named},
        record=record,
        title=f"How good the pictures of {record.model} are",
        summary=summary(record),
        columns=columns,
        drawn=len(drawn),
        private=[item for item in record.sets if item.twin is not None],
        real=record.of("real"),
        over_original=over_original,
    )


def summary(record: QualityRecord) -> list[str]:
    """The findings, a sentence a set."""
    return [about(record, item) for item in record.sets if item.kind != "real"]


def over_original(record: QualityRecord, item: SetRecord) -> float | None:
    """How many times the original's Fréchet distance a set of as many pictures and steps has; None without one."""
    first = record.of("original", item.steps)
    if item.kind == "original" or first is None or first.distance is None or item.distance is None:
        return None
    return item.distance.value / first.distance.value if item.pictures == first.pictures else None


def named(item: SetRecord) -> str:
    """A set in words."""
    return item.kind if item.steps is None else f"{item.kind}, {counted(item.steps, 'step')}"


def figure(found: IntervalRecord | None) -> str:
    """A distance with its interval."""
    return "" if found is None else f"{found.value:.1f} ({found.low:.1f} to {found.high:.1f})"


def share(found: IntervalRecord | None) -> str:
    """A share of 0 to 1 with its interval."""
    return "" if found is None else f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})"


def db(value: float | None) -> str:
    """A PSNR."""
    return "equal" if value is None else f"{value:.1f} dB"


def about(record: QualityRecord, item: SetRecord) -> str:
    """One set of generated pictures in a sentence."""
    assert item.accuracy is not None
    by = f", on {item.backend}" if item.backend else ""
    found = [
        f"{named(item)}{by}: of {counted(item.pictures, 'picture')}, {item.accuracy.value:.1%} are classified as their "
        "label"
    ]
    if item.distance is not None and item.floor is not None:
        ratio = over_original(record, item)
        tail = "" if ratio is None else f", {ratio:.2f} times the original's"
        found.append(
            f"Fréchet distance {item.distance.value:.1f}{tail}, of as many real pictures {item.floor.value:.1f}"
        )
    if (met := item.ranges) is not None:
        largest = "not finite" if met.largest is None else f"{met.largest:.1f}"
        found.append(f"inputs of polynomials reach {largest}, beyond {met.limit:g} in {counted(met.beyond, 'sample')}")
    if (pair := item.twin) is not None:
        found.append(
            f"PSNR against the plaintext twin {db(pair.psnr_db)}, lowest {db(pair.lowest_psnr_db)}; "
            f"{pair.label_agreement} are classified as their twins are"
        )
    found.append(f"{item.diverged or 'none'} diverged")
    text = "; ".join(found)
    return f"{text[0].upper()}{text[1:]}."
