"""A comparison in a few sentences."""

from __future__ import annotations

from collections.abc import Sequence

from hefw.bench.front import OBJECTIVES, accuracy, group, psnr, work
from hefw.bench.record import CellRecord, ComparisonRecord
from hefw.record import INSECURE, SIMULATED
from hefw.report.words import counted, duration, listed, size


def summary(record: ComparisonRecord) -> list[str]:
    """What was measured and what was not; then for each front what is fastest, shows least, and is closest."""
    sentences = [_counts(record)]
    groups = _groups(record)
    return sentences + [_about(cells) for cells in groups] + (_across(record) if len(groups) > 1 else [])


def banner(record: ComparisonRecord) -> str | None:
    """What the page must say first: which cells are simulated or insecure; None where none is."""
    found = []
    for text, name in ((SIMULATED, "simulated"), (INSECURE, "insecure")):
        marked = [cell for cell in record.measured if getattr(cell.figures, name)]
        if marked:
            every = len(marked) == len(record.measured)
            found.append(("" if every else f"{counted(len(marked), 'cell')} of {len(record.measured)} ") + text)
    return "; ".join(found) or None


def percent(share: float) -> str:
    """A share of 0 to 1: 'none' and 'all' are exact."""
    return "none" if share == 0 else "all" if share == 1 else f"{100 * share:.3g} %"


def db(cell: CellRecord) -> str:
    """A cell's PSNR."""
    assert cell.figures is not None
    return "equal" if cell.figures.psnr_db is None else f"{cell.figures.psnr_db.median:.1f} dB"


def _counts(record: ComparisonRecord) -> str:
    total = len(record.cells)
    text = f"{counted(len(record.measured), 'cell')} of {total} measured, "
    runs = record.repeats * len(record.seeds)
    text += f"{counted(runs, 'run')} each" if runs > 1 else "one run each"
    if runs > 1:
        text += f" ({counted(record.repeats, 'repeat')}, {counted(len(record.seeds), 'seed')})"
    for outcome, words in (
        ("failed", "failed"),
        ("over time", "passed the limit of time"),
        ("over memory", "passed the limit of memory"),
        ("not yet measured", "not measured yet"),
    ):
        if cells := record.of(outcome):
            text += f"; {len(cells)} {words}"
    if record.impossible:
        text += f"; {counted(len(record.impossible), 'combination')} cannot be"
    return text + "."


def _groups(record: ComparisonRecord) -> list[list[CellRecord]]:
    """Cells of one model, encrypted or simulated, in the order of the table."""
    names = dict.fromkeys(group(cell) for cell in record.measured)
    return [[cell for cell in record.measured if group(cell) == name] for name in names]


def _across(record: ComparisonRecord) -> list[str]:
    """Over all that is drawn on ciphertext, where that is more than one thing."""
    cells = [cell for cell in record.measured if cell.figures is not None and not cell.figures.simulated]
    if len({work(cell) for cell in cells}) < 2:
        return []
    fastest = min(cells, key=lambda cell: OBJECTIVES["time"].cost(cell.figures) if cell.figures else 0)
    found = f"Of all that are encrypted, the fastest an image is {fastest.number} ({fastest.name})"
    read = [cell for cell in cells if cell.figures is not None and cell.figures.accuracy is not None]
    best = max((accuracy(cell.figures) for cell in read if cell.figures is not None), default=0.0)
    right = [str(cell.number) for cell in read if cell.figures is not None and accuracy(cell.figures) == best]
    if len(right) == len(read):
        found += f"; {best:.1%} of the labels are right in each" if read else ""
    else:
        found += f"; most labels are right, {best:.1%}, in {listed(right)}"
    return [f"{found}."]


def _about(cells: Sequence[CellRecord]) -> str:
    """What to choose among the cells of one front."""
    model, simulated = group(cells[0])
    where = f"Model {model}" + (", simulated" if simulated else "")
    if len(cells) == 1:
        return f"{where}: one cell, {cells[0].number} ({cells[0].name}), {_facts(cells[0])}."
    costs = {name: [OBJECTIVES[name].cost(cell.figures) for cell in cells if cell.figures] for name in OBJECTIVES}
    fastest = cells[costs["time"].index(min(costs["time"]))]
    slowest = cells[costs["time"].index(max(costs["time"]))]
    assert fastest.figures is not None
    assert slowest.figures is not None
    ratio = slowest.figures.seconds_per_image.median / fastest.figures.seconds_per_image.median
    found = [
        f"{where}: the fastest is {fastest.number} ({fastest.name}), {_facts(fastest)}; the slowest, {slowest.number} "
        f"({slowest.name}), takes {ratio:.2g} times as long.",
        _overlap(fastest, cells),
    ]
    least = [cell for cell in cells if cell.figures and cell.figures.shown == min(costs["leak"])]
    share = f"{percent(min(costs['leak']))} of the private numbers"
    if len(least) == len(cells):
        found.append(f"The server saw {share} in plaintext in each cell.")
    elif fastest in least:
        found.append(f"No cell shows the server less than the fastest: {share}.")
    else:
        best = min(least, key=lambda cell: OBJECTIVES["time"].cost(cell.figures) if cell.figures else 0)
        found.append(
            f"Least is shown to the server in {best.number} ({best.name}): {share}; the fastest shows "
            f"{percent(fastest.figures.shown)}."
        )
    if len(set(costs["quality"])) > 1:
        closest = max(cells, key=lambda cell: psnr(cell.figures) if cell.figures else 0)
        found.append(f"Closest to plaintext is {closest.number} ({closest.name}): {db(closest)}.")
    numbers = [str(cell.number) for cell in cells if cell.front]
    found.append(f"On the front of time, quality, leak and memory: {listed(numbers)}.")
    return " ".join(filter(None, found))


def _overlap(fastest: CellRecord, cells: Sequence[CellRecord]) -> str:
    """Which cells cannot be told from the fastest by these runs."""
    assert fastest.figures is not None
    high = fastest.figures.seconds_per_image.high
    near = [
        str(cell.number)
        for cell in cells
        if cell is not fastest and cell.figures is not None and cell.figures.seconds_per_image.low <= high
    ]
    return f"Its interval meets that of {listed(near)}: more repeats would tell them apart." if near else ""


def _facts(cell: CellRecord) -> str:
    figures = cell.figures
    assert figures is not None
    return (
        f"{duration(figures.seconds_per_image.median)} an image, {size(figures.peak_memory_bytes.median)} of memory, "
        f"PSNR {db(cell)}"
    )
