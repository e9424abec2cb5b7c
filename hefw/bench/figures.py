"""From the runs of a folder to the figures of a comparison."""

from __future__ import annotations

import datetime
import shlex
import statistics
from collections.abc import Callable, Iterable, Sequence

from hefw import __version__
from hefw.bench.comparison import GIGABYTE, Plan
from hefw.bench.expansion import HEFW, Cell
from hefw.bench.front import fronts
from hefw.bench.intervals import interval
from hefw.bench.measurement import Judged, Measured, Measurement
from hefw.bench.record import (
    CellRecord,
    ComparisonRecord,
    Figures,
    ImpossibleRecord,
    RunRow,
    SeenRow,
    ShareRecord,
)
from hefw.bench.store import Store
from hefw.config import format_labels
from hefw.quality.statistics import share
from hefw.record import BytesRecord, RunRecord
from hefw.report.levels import COPY
from hefw.report.sight import seen

#: Of run.json's stages those that are not parts of the private run.
OUTSIDE = ("twin", "total")


def record_of(planned: Plan, store: Store, command: str) -> ComparisonRecord:
    """Everything about the cells of a plan that its folder knows."""
    settings = planned.matrix.settings
    cells = [_cell(number, cell, planned, store) for number, cell in enumerate(planned.cells, 1)]
    on_front = fronts([cell for cell in cells if cell.figures is not None])
    memory = settings.limits.memory_gb
    return ComparisonRecord(
        title=settings.title,
        written=datetime.datetime.now(datetime.timezone.utc),
        command=command,
        hefw=__version__,
        machine=store.manifest.machine,
        keys=planned.keys,
        repeats=settings.repeats,
        seeds=settings.seeds,
        seconds_limit=settings.limits.seconds,
        memory_limit_bytes=None if memory is None else memory * GIGABYTE,
        audit_images=settings.audit,
        reports=settings.reports,
        cells=tuple(cell.model_copy(update={"front": cell.number in on_front}) for cell in cells),
        impossible=tuple(
            ImpossibleRecord(name=planned.name(cell), settings=_settings(cell, planned), reason=reason)
            for cell, reason in planned.impossible
        ),
    )


def runs_of(cell: Cell, planned: Plan, store: Store) -> list[Measurement]:
    """The kept runs of a cell in the order of seeds and repeats."""
    names = (job.name for job in planned.jobs if job.cell is cell)
    found = [store.runs[name] for name in names if name in store.runs]
    return sorted(found, key=lambda run: (run.seed, run.repeat))


def command_of(cell: Cell, seed: int) -> str:
    """What repeats one run of a cell."""
    if cell.way == HEFW:
        return cell.config.model_copy(update={"seed": seed}).command()
    config = cell.config
    words = ["python", "-m", "hefw.bench.paper", cell.way.removeprefix("published ")]
    words += ["--model", config.model.name, "--scheduler", config.scheduler.name, "--seed", str(seed)]
    words += ["--labels", format_labels(config.labels)] + (
        [] if config.steps is None else ["--steps", str(config.steps)]
    )
    return shlex.join(words)


def _cell(number: int, cell: Cell, planned: Plan, store: Store) -> CellRecord:
    settings = planned.matrix.settings
    runs = runs_of(cell, planned, store)
    wanted = settings.repeats * len(settings.seeds)
    lost = next((run for run in runs if run.outcome != "measured"), None)
    done = len(runs) == wanted and lost is None
    audit = planned.audit(cell)
    audited = None if audit is None else store.audits.get(audit.digest)
    profiled = store.profiles.get(cell.digest) if cell in planned.profiled else None
    return CellRecord(
        number=number,
        name=planned.name(cell),
        digest=cell.digest,
        way=cell.way,
        settings=_settings(cell, planned),
        config=cell.config.to_dict(),
        command=command_of(cell, settings.seeds[0]),
        outcome="measured" if done else "not yet measured" if lost is None else lost.outcome,
        reason=_reason(runs, wanted, lost),
        wanted=wanted,
        runs=tuple(_row(run) for run in runs),
        figures=_figures(runs) if done else None,
        audit=None if audited is None else audited.figures,
        audit_reason=None if audited is None else audited.reason,
        profile=None if profiled is None else profiled.figures,
        profile_reason=None if profiled is None else profiled.reason,
        front=False,
    )


def _settings(cell: Cell, planned: Plan) -> dict[str, str]:
    return {key: cell.facts[key] for key in planned.keys}


def _reason(runs: Sequence[Measurement], wanted: int, lost: Measurement | None) -> str | None:
    if lost is not None:
        before = sum(run.outcome == "measured" for run in runs)
        return f"{lost.reason}" + (f" (after {before} of {wanted} runs that did not)" if before else "")
    return None if len(runs) == wanted else f"{len(runs)} of {wanted} runs are there"


def _row(run: Measurement) -> RunRow:
    return RunRow(
        seed=run.seed,
        repeat=run.repeat,
        outcome=run.outcome,
        started=run.started,
        seconds=None if run.measured is None else run.measured.record.seconds.total,
        peak_memory_bytes=run.peak_memory_bytes,
    )


def _figures(runs: Sequence[Measurement]) -> Figures:
    found = [run.measured for run in runs if run.measured is not None]
    records = [item.record for item in found]
    first = records[0]
    stages = [name for name in type(first.seconds).model_fields if name not in OUTSIDE]
    stages = [name for name in stages if all(getattr(record.seconds, name) is not None for record in records)]
    known = [record.psnr_db for record in records if record.psnr_db is not None]
    sizes = {
        name: round(statistics.median(getattr(record.bytes, name) for record in records))
        for name in BytesRecord.model_fields
    }
    by_seed = {run.seed: run.measured for run in reversed(runs) if run.measured is not None}
    return Figures(
        images=first.count,
        evaluations=first.evaluations,
        messages=first.messages,
        protocol=first.protocol,
        simulated=first.simulated,
        insecure=first.insecure,
        seconds=interval([record.seconds.total for record in records]),
        seconds_per_image=interval([record.seconds.total / record.count for record in records]),
        seconds_per_image_step=interval([record.seconds_per_image_step for record in records]),
        stages={name: interval([getattr(record.seconds, name) for record in records]) for name in stages},
        regions=_regions(records),
        psnr_db=interval(known) if known else None,
        max_abs_error=max(record.max_abs_error or 0.0 for record in records),
        accuracy=_share(by_seed.values(), lambda judged: judged.as_asked),
        twin_accuracy=_share(by_seed.values(), lambda judged: judged.twins_as_asked),
        as_twins=_share(by_seed.values(), lambda judged: judged.as_twins),
        shown=statistics.median(record.ledger.server_plaintext_fraction for record in records),
        peak_memory_bytes=interval([run.peak_memory_bytes for run in runs]),
        bytes=BytesRecord(**sizes),
        counts=first.counts,
        params=first.params,
        scheduler=first.model.scheduler,
        model_digest=first.model.digest,
        seen=tuple(
            SeenRow(**{name: row[name] for name in SeenRow.model_fields})  # added up over the run's messages
            for row in seen(first)
        ),
        versions=first.versions,
    )


def _regions(records: Sequence[RunRecord]) -> dict[str, float]:
    """Of the server's operations: copies of a region in the steps of a message are one, and so are all its steps."""
    found: dict[str, list[float]] = {}
    for number, record in enumerate(records):
        for item in record.trace:
            name = COPY.sub("", item.operation)
            found.setdefault(name, [0.0] * len(records))[number] += item.seconds
    return {name: statistics.median(values) for name, values in found.items()}


def _share(found: Iterable[Measured], hits: Callable[[Judged], int]) -> ShareRecord | None:
    """Over one run of each seed: repeats draw the same pictures."""
    judged = [item.judged for item in found if item.judged is not None]
    if not judged:
        return None
    pictures = sum(item.pictures for item in judged)
    got = share(sum(map(hits, judged)), pictures)
    return ShareRecord(value=got.value, low=got.low, high=got.high, pictures=pictures)
