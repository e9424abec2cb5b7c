"""Which cells nobody need look past: the Pareto front of time, quality, leak and memory."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from hefw.bench.record import CellRecord, Figures

Key = TypeVar("Key", bound=Hashable)

#: In dB. A picture of 8 bits a channel is not nearer to its twin than its rounding: beyond, all are alike.
ENOUGH_DB = 59.0
#: Drawn for pictures that do not differ at all: single precision would give about as much.
EQUAL_DB = 150.0
#: Settings of how something is drawn, not of what.
HOW = (
    "backend",
    "strategy",
    "protocol",
    "noise_prediction",
    "refresh",
    "batch",
    "keys",
    "server_threads",
    "allow_insecure",
)


@dataclass(frozen=True)
class Objective:
    """One figure: less of `cost` is better."""

    name: str
    title: str
    unit: str
    value: Callable[[Figures], float]  # as it is drawn
    cost: Callable[[Figures], float]


def psnr(figures: Figures) -> float:
    """Against the plaintext twin, in dB."""
    return EQUAL_DB if figures.psnr_db is None else figures.psnr_db.median


def seconds(figures: Figures) -> float:
    """Of the whole private run, an image."""
    return figures.seconds_per_image.median


def shown(figures: Figures) -> float:
    """Share of the private numbers that the server saw."""
    return figures.shown


def accuracy(figures: Figures) -> float:
    """Share of the pictures that are classified as the label asked for; 0 without a classifier."""
    return 0.0 if figures.accuracy is None else figures.accuracy.value


def memory(figures: Figures) -> float:
    """In bytes."""
    return figures.peak_memory_bytes.median


OBJECTIVES: dict[str, Objective] = {
    "time": Objective("time", "Time an image", "s", seconds, seconds),
    "quality": Objective(
        "quality", "PSNR against the plaintext twin", "dB", psnr, lambda figures: -min(ENOUGH_DB, psnr(figures))
    ),
    "leak": Objective("leak", "Private numbers shown to the server", "%", lambda f: 100 * shown(f), shown),
    "memory": Objective("memory", "Peak memory", "GB", lambda f: memory(f) / 1e9, memory),
}


#: Drawn against time where a classifier reads all pictures. No objective: among cells that draw the same it is PSNR's.
ACCURACY = Objective("accuracy", "Labels right", "%", lambda f: 100 * accuracy(f), lambda f: -accuracy(f))


def front(costs: Mapping[Key, tuple[float, ...]]) -> set[Key]:
    """The keys of those points that no other point dominates: as little in every cost, and less in one."""
    return {
        key
        for key, own in costs.items()
        if not any(
            all(a <= b for a, b in zip(other, own, strict=True)) and other != own
            for name, other in costs.items()
            if name != key
        )
    }


def work(cell: CellRecord) -> str:
    """What a cell draws and by which protocol, in words: what its figures may be compared within."""
    assert cell.figures is not None
    keys = [key for key in cell.settings if key not in HOW and not key.startswith("params.")]
    words = [cell.settings[key] if key == "model" else f"{key} {cell.settings[key]}" for key in keys]
    return ", ".join([*words, cell.figures.protocol])


def group(cell: CellRecord) -> tuple[str, bool]:
    """Cells that do the same work, and so can stand on one front: what they draw, how, and whether they encrypt.

    In update-only the server does not evaluate the network: it has less to do. PSNR is taken against the twin of the
    same steps and scheduler: it says nothing of cells of others.
    """
    assert cell.figures is not None
    return work(cell), cell.figures.simulated


def fronts(cells: list[CellRecord]) -> set[int]:
    """The numbers of the cells on the front of their group."""
    found: set[int] = set()
    for name in {group(cell) for cell in cells}:
        costs = {
            cell.number: tuple(objective.cost(cell.figures) for objective in OBJECTIVES.values())
            for cell in cells
            if group(cell) == name and cell.figures is not None
        }
        found |= front(costs)
    return found
