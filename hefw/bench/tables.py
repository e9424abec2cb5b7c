"""`results.csv` and `results.parquet`: a row a cell, the same columns in both."""

from __future__ import annotations

import csv
import io
from typing import Any

from hefw.bench.intervals import Interval
from hefw.bench.record import CellRecord, ComparisonRecord

INTERVALS = ("seconds", "seconds_per_image", "seconds_per_image_step", "psnr_db", "peak_memory_bytes")
SHARES = ("accuracy", "twin_accuracy", "as_twins")
AUDIT = ("ssim", "ssim_nothing", "leak", "label", "beyond_prior")


def rows(record: ComparisonRecord) -> list[dict[str, Any]]:
    """A mapping of column to value for each cell; None where there is no figure."""
    known = [cell.figures for cell in record.cells if cell.figures is not None]
    stages = list(dict.fromkeys(name for figures in known for name in figures.stages))
    counts = sorted({name for figures in known for name in figures.counts})
    return [_row(cell, record, stages, counts) for cell in record.cells]


def to_csv(record: ComparisonRecord) -> bytes:
    """The rows as CSV with a header; an empty field is no figure."""
    found = rows(record)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return file.getvalue().encode()


def to_parquet(record: ComparisonRecord) -> bytes:
    """The rows as a Parquet file."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    found = rows(record)
    columns = {name: arrow.array([row[name] for row in found], type=_type(arrow, name, found)) for name in found[0]}
    sink = arrow.BufferOutputStream()
    parquet.write_table(arrow.table(columns), sink)
    return bytes(sink.getvalue())


def _type(arrow: Any, name: str, found: list[dict[str, Any]]) -> Any:
    """Of a column: whole numbers and fractions are told apart over all rows, and a column without any is a fraction."""
    values = [row[name] for row in found if row[name] is not None]
    if values and all(isinstance(value, bool) for value in values):
        return arrow.bool_()
    if values and all(isinstance(value, int) for value in values):
        return arrow.int64()
    return arrow.string() if any(isinstance(value, str) for value in values) else arrow.float64()


def _row(cell: CellRecord, record: ComparisonRecord, stages: list[str], counts: list[str]) -> dict[str, Any]:
    figures, audit = cell.figures, cell.audit
    row: dict[str, Any] = {"cell": cell.number, "digest": cell.digest, "way": cell.way}
    row |= {key: cell.settings[key] for key in record.keys}
    row |= {"outcome": cell.outcome, "reason": cell.reason, "runs": len(cell.runs), "front": cell.front}
    for name in ("simulated", "insecure", "protocol_used", "images", "evaluations", "messages"):
        row[name] = getattr(figures, name.removesuffix("_used"), None)
    for name in INTERVALS:
        found: Interval | None = getattr(figures, name, None)
        for part in ("median", "low", "high"):
            row[f"{name}_{part}"] = None if found is None else getattr(found, part)
    row |= {"max_abs_error": figures and figures.max_abs_error, "shown": figures and figures.shown}
    for name in SHARES:
        share = getattr(figures, name, None)
        row[name] = None if share is None else share.value
    times = figures.stages if figures else {}
    row |= {f"seconds_{name}": times[name].median if name in times else None for name in stages}
    sizes = ("evaluation_keys", "upload_per_step", "download_per_step", "encoded_weights")
    row |= {f"bytes_{name}": getattr(figures.bytes, name) if figures else None for name in sizes}
    row |= {f"count_{name}": figures.counts.get(name, 0) if figures else None for name in counts}
    for name in ("ring_dimension", "log_qp", "security_bits", "depth", "scale_bits"):
        row[name] = getattr(figures.params, name) if figures else None
    row |= {f"audit_{name}": getattr(audit, name, None) for name in AUDIT}
    return row | {"command": cell.command}
