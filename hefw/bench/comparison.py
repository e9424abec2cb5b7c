"""`hefw compare`: from a matrix to a folder of runs, tables and a page."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hefw.bench import schedule
from hefw.bench.audits import AuditJob, audit_of
from hefw.bench.expansion import HEFW, Cell, expand, label, varying
from hefw.bench.matrix import Matrix
from hefw.bench.measurement import Audited, Measured, Measurement, Profiled
from hefw.bench.possible import reasons
from hefw.bench.schedule import Job
from hefw.bench.store import Store
from hefw.bench.supervise import Told, supervise
from hefw.core.errors import ConfigError

GIGABYTE = 1e9


class Watcher(Protocol):
    """Who is told how a comparison goes on."""

    def begin(self, runs: int, kept: int) -> None:
        """So many runs in all, so many of them kept from before."""
        ...

    def trying(self, backend: str) -> None:
        """A backend is tried before it is measured."""
        ...

    def running(self, what: str, left: float | None) -> Told:
        """A run begins; what is left takes about so many seconds. Returns who is told of its stages."""
        ...

    def ended(self, what: str, outcome: str, seconds: float) -> None:
        """It ended."""
        ...


@dataclass(frozen=True)
class Plan:
    """The cells of a matrix: those to measure, numbered from 1 in this order, and those that cannot be, with why."""

    matrix: Matrix
    cells: tuple[Cell, ...]
    impossible: tuple[tuple[Cell, str], ...]
    keys: tuple[str, ...] = field(default=())

    def name(self, cell: Cell) -> str:
        """A cell in words."""
        return label(cell.facts, self.keys)

    @property
    def jobs(self) -> list[Job]:
        """All runs, in order."""
        settings = self.matrix.settings
        return list(schedule.jobs(self.cells, settings.repeats, settings.seeds))

    def audit(self, cell: Cell) -> AuditJob | None:
        """A cell's audit."""
        return audit_of(cell, self.matrix.settings.audit, self.matrix.settings.seeds[0])

    @property
    def audits(self) -> list[tuple[Cell, AuditJob]]:
        """All audits with the first cell of each."""
        found = {job.digest: (cell, job) for cell in reversed(self.cells) if (job := self.audit(cell)) is not None}
        return list(reversed(found.values()))

    @property
    def profiled(self) -> list[Cell]:
        """The cells whose server's operations are timed: the published ways have no server."""
        able = (cell for cell in self.cells if cell.way == HEFW)
        return list(able) if self.matrix.settings.profile else []


def plan(matrix: Matrix) -> Plan:
    """What can be measured of a matrix and what cannot. ConfigError if nothing can."""
    cells = expand(matrix)
    keys = varying(cells)
    able: list[Cell] = []
    impossible: list[tuple[Cell, str]] = []
    for cell, reason in zip(cells, reasons(cells), strict=True):
        if reason is None:
            able.append(cell)
        else:
            impossible.append((cell, reason))
    if not able:
        cell, reason = impossible[0]
        raise ConfigError(f"none of {len(cells)} cells can be measured; the first, {label(cell.facts, keys)}: {reason}")
    return Plan(matrix, tuple(able), tuple(impossible), keys)


def measure(planned: Plan, store: Store, watcher: Watcher) -> None:
    """Measure what is not kept yet. Interrupted at any time, what was measured stays, and nothing else is there."""
    every = planned.jobs
    done = _own(every, store)
    left = schedule.todo(every, done)
    audits = [(cell, job) for cell, job in planned.audits if job.digest not in store.audits]
    profiles = [cell for cell in planned.profiled if cell.digest not in store.profiles]
    total = len(every) + len(planned.audits) + len(planned.profiled)
    watcher.begin(total, total - len(left) - len(audits) - len(profiles))
    _try_backends([*(job.cell for job in left), *profiles], planned, watcher)
    while left:
        job = left[0]
        what = f"{planned.name(job.cell)} (round {job.repeat + 1}, seed {job.seed})"
        told = watcher.running(what, schedule.seconds_left(left, done))
        kept = _run(job, planned, store, told)
        store.keep(kept)
        watcher.ended(what, kept.outcome if kept.reason is None else f"{kept.outcome}: {kept.reason}", kept.seconds)
        done = _own(every, store)
        left = schedule.todo(every, done)
    others = [(f"audit of {planned.name(cell)}", _audit(audit)) for cell, audit in audits]
    others += [(f"profile of {planned.name(cell)}", _profile(cell, planned)) for cell in profiles]
    for what, other in others:
        found = other.do(planned, watcher.running(what, None))
        store.keep(found)
        watcher.ended(what, found.reason or found.outcome, found.seconds)


def forget_failed(planned: Plan, store: Store) -> int:
    """Runs, audits and profiles of these cells that failed are measured again; how many there were."""
    runs = [run for run in _own(planned.jobs, store).values() if run.outcome != "measured"]
    audits = [store.audits[job.digest] for _, job in planned.audits if job.digest in store.audits]
    profiles = [store.profiles[cell.digest] for cell in planned.profiled if cell.digest in store.profiles]
    lost: Sequence[Measurement | Audited | Profiled] = [
        *runs,
        *(kept for kept in audits if kept.outcome != "measured"),
        *(kept for kept in profiles if kept.outcome != "measured"),
    ]
    for kept in lost:
        store.remove(kept)
    return len(lost)


def _try_backends(cells: Sequence[Cell], planned: Plan, watcher: Watcher) -> None:
    """Have each backend do one of every operation, unmeasured: what it makes once on a machine is no cell's own time.

    What fails here fails in the cells, and is told of there.
    """
    for name in dict.fromkeys(cell.config.backend.name for cell in cells):
        watcher.trying(name)
        supervise({"kind": "try", "backend": name}, *_limits(planned), lambda stage, done, total: None)


def _own(every: Sequence[Job], store: Store) -> dict[str, Measurement]:
    """The kept runs of these jobs: a folder may hold those of another matrix, too."""
    return {job.name: store.runs[job.name] for job in every if job.name in store.runs}


def _limits(planned: Plan) -> tuple[float, float | None]:
    limits = planned.matrix.settings.limits
    return limits.seconds, None if limits.memory_gb is None else limits.memory_gb * GIGABYTE


def _run(job: Job, planned: Plan, store: Store, told: Told) -> Measurement:
    cell, settings = job.cell, planned.matrix.settings
    reported = settings.reports and cell.way == HEFW and job.repeat == 0 and job.seed == settings.seeds[0]
    started = datetime.datetime.now(datetime.timezone.utc)
    asked = {
        "config": cell.config.to_dict() | {"seed": job.seed},
        "way": cell.way,
        "folder": str(store.cell(cell.digest)) if reported else None,
        "kind": "run",
    }
    ended = supervise(asked, *_limits(planned), told)
    return Measurement(
        digest=cell.digest,
        key=cell.key,
        seed=job.seed,
        repeat=job.repeat,
        outcome=ended.outcome,
        reason=ended.reason,
        started=started,
        seconds=ended.seconds,
        peak_memory_bytes=ended.peak_memory_bytes,
        measured=None if ended.found is None else Measured.model_validate(ended.found),
    )


@dataclass(frozen=True)
class _Other:
    """What is measured besides runs: what a process is asked, and what is kept of its answer under a digest."""

    kind: type[Audited] | type[Profiled]
    digest: str
    key: dict[str, Any]
    asked: dict[str, Any]

    def do(self, planned: Plan, told: Told) -> Audited | Profiled:
        """Have it measured, within the limits of a run."""
        ended = supervise(self.asked, *_limits(planned), told)
        return self.kind.model_validate(
            {
                "digest": self.digest,
                "key": self.key,
                "outcome": ended.outcome,
                "reason": ended.reason,
                "seconds": ended.seconds,
                "figures": ended.found,
            }
        )


def _audit(job: AuditJob) -> _Other:
    return _Other(Audited, job.digest, job.key, {"kind": "audit", "config": job.config.to_dict(), "images": job.images})


def _profile(cell: Cell, planned: Plan) -> _Other:
    config = cell.config.to_dict() | {"seed": planned.matrix.settings.seeds[0]}
    return _Other(Profiled, cell.digest, cell.key, {"kind": "profile", "config": config})
