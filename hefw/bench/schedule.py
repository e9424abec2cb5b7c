"""What is measured in which order: round after round, so that a slow minute of the machine meets all cells alike."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hefw.bench.expansion import Cell
from hefw.bench.measurement import NAME, Measurement


@dataclass(frozen=True)
class Job:
    """One run of one cell."""

    cell: Cell
    seed: int
    repeat: int

    @property
    def name(self) -> str:
        """That of the file it is kept in."""
        return NAME.format(digest=self.cell.digest, seed=self.seed, repeat=self.repeat)


def jobs(cells: Sequence[Cell], repeats: int, seeds: Sequence[int]) -> Iterator[Job]:
    """All runs. A round is one run of every cell; every second round goes backwards, so that a steady drift cancels."""
    forwards = True
    for repeat in range(repeats):
        for seed in seeds:
            for cell in cells if forwards else reversed(cells):
                yield Job(cell, seed, repeat)
            forwards = not forwards


def failed(kept: Mapping[str, Measurement]) -> dict[str, Measurement]:
    """Runs that failed, by the digest of their cell: its other runs are not tried."""
    return {run.digest: run for run in kept.values() if run.outcome != "measured"}


def todo(all_jobs: Sequence[Job], kept: Mapping[str, Measurement]) -> list[Job]:
    """What is still to be measured."""
    lost = failed(kept)
    return [job for job in all_jobs if job.name not in kept and job.cell.digest not in lost]


def seconds_left(left: Sequence[Job], kept: Mapping[str, Measurement]) -> float | None:
    """How long the rest takes, by what runs of the same cells took, or else all; None before the first."""
    if not kept:
        return None
    known: dict[str, list[float]] = {}
    for run in kept.values():
        known.setdefault(run.digest, []).append(run.seconds)
    usual = statistics.mean(run.seconds for run in kept.values())
    return sum(statistics.mean(known.get(job.cell.digest, [usual])) for job in left)
