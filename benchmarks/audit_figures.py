"""The measured section of docs/explanation/threat-model.md, from `audit-*.json` of benchmarks.audits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hefw.audit.page import percent
from hefw.audit.record import AuditRecord, IntervalRecord
from hefw.config import Config
from hefw.record import MachineRecord


def threat_model(results: Path) -> str:
    """A row for each audit, and what the thresholds of its curves come to."""
    records = {
        path.stem: AuditRecord.model_validate_json(path.read_text()) for path in sorted(results.glob("audit-*.json"))
    }
    first = next(iter(records.values()))
    lines = [
        f"`python -m benchmarks.audits`: model `digits`, {first.steps} steps, {first.images} pictures each, seed "
        f"{first.seed}, on {_machine(first.machine)}. The best attack by each metric, with 95 % bootstrap intervals.",
        "",
        "| protocol | strategy | noise predictions | entries shown, a step | label named | PSNR (dB) | SSIM | by |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        _end("*sees nothing*", "0 %", {name: found.value for name, found in first.nothing.items()}),
        *(_row(record) for record in records.values()),
        _end("*sees everything*", "100 %", first.everything),
        "",
    ]
    (curved,) = (record for record in records.values() if record.curves is not None)
    return "\n".join([*lines, _thresholds(curved)])


def _end(name: str, shown: str, found: Mapping[str, IntervalRecord]) -> str:
    cells = [name, "", "", shown, _share(found["label"]), _number(found["psnr"], 1), _number(found["ssim"], 2), ""]
    return f"| {' | '.join(cells)} |"


def _row(record: AuditRecord) -> str:
    config = Config(**record.config)
    cells = [f"`{record.protocol}`", f"`{config.strategy.name}`", _predictions(record), percent(record.shown.latents)]
    if not record.beyond_prior:
        cells += ["nothing beyond the prior was found", "", "", "no attack"]
        return f"| {' | '.join(cells)} |"
    best = {metric: record.best(metric) for metric in ("label", "psnr", "ssim")}
    found = {metric: item for metric, item in best.items() if item is not None}
    names = dict.fromkeys(f"`{name}`" for name, _ in found.values())
    cells += [
        _share(found["label"][1].value),
        _number(found["psnr"][1].value, 1),
        _number(found["ssim"][1].value, 2),
        ", ".join(names),
    ]
    return f"| {' | '.join(cells)} |"


def _predictions(record: AuditRecord) -> str:
    if record.protocol == "end-to-end":
        return "none"
    return "all in plaintext" if record.noise_prediction == "plaintext" else "encrypted likewise"


def _thresholds(record: AuditRecord) -> str:
    """How often labels are named at each threshold, by the strategies compared at equal cost."""
    assert record.curves is not None
    points = record.curves.points
    leader = [point for point in points if point.strategy == "min_distortion"]
    control = [point for point in points if point.strategy == "random"]
    lines = [
        f"`{record.protocol}`, over thresholds ({record.curves.images} pictures each), beside `random` places of the "
        "same number:",
        "",
        "| threshold | entries encrypted | label named | PSNR (dB) | label named, `random` | PSNR (dB), `random` |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for ours, other in zip(leader, control, strict=True):
        cells = [f"{ours.options['threshold']:g}", percent(ours.encrypted)]
        for point in (ours, other):
            cells += [_share(point.best["label"].value), _number(point.best["psnr"].value, 1)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(found: IntervalRecord) -> str:
    return f"{percent(found.mean)} ({100 * found.low:.3g} to {100 * found.high:.3g})"


def _number(found: IntervalRecord, places: int) -> str:
    return f"{found.mean:.{places}f} ({found.low:.{places}f} to {found.high:.{places}f})"


def _machine(machine: MachineRecord) -> str:
    return f"one core of an {machine.cpu}"
