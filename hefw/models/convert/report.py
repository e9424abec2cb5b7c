"""What each replacement cost, in quality and depth, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

#: Stands for an operator where a row is about all replacements of a stage.
STAGE = "(stage)"


@dataclass(frozen=True)
class Row:
    """One replacement, or a stage of them.

    Attributes:
        place: path of the module ("#2": its second call), or what the stage is.
        operator: what was there, or `STAGE`.
        replacement: what is there now.
        error: mean squared difference to the original's predictions, beside their mean square, on states of its own
            trajectories that nothing was fitted to; with all replacements so far.
        levels: multiplicative depth that the replacements so far take.
        metric: the user's, of the network so far; at stages only.
    """

    place: str
    operator: str
    replacement: str
    error: float
    levels: int
    metric: float | None = None


@dataclass(frozen=True)
class Report:
    """Rows in the order in which the replacements were made."""

    rows: tuple[Row, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Report:
        """What `to_dict` gave."""
        return Report(tuple(Row(**row) for row in data["rows"]), dict(data["settings"]))

    def __str__(self) -> str:
        """A table."""
        lines = [("place", "operator", "replacement", "error", "added", "levels", "metric")]
        previous = 0.0
        for row in self.rows:
            metric = "" if row.metric is None else f"{row.metric:.4g}"
            error, added = f"{row.error:.2e}", f"{row.error - previous:+.1e}"
            lines.append((row.place, row.operator, row.replacement, error, added, str(row.levels), metric))
            previous = row.error
        return "\n".join(_line(line, _widths(lines)) for line in lines)


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    aligned = (
        cell.ljust(width) if k < 3 else cell.rjust(width)
        for k, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(aligned).rstrip()
