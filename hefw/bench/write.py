"""Writes a comparison's files from what its folder keeps."""

from __future__ import annotations

from pathlib import Path

from hefw.bench import page, tables
from hefw.bench.comparison import Plan
from hefw.bench.figures import record_of, runs_of
from hefw.bench.record import ComparisonRecord
from hefw.bench.store import Store
from hefw.report.files import put

FILES = ("results.csv", "results.parquet", "report.html", "results.json")


def write_comparison(planned: Plan, store: Store, command: str) -> tuple[ComparisonRecord, list[Path]]:
    """Write the files of FILES and return the record with their paths.

    Each is whole or not there; results.json comes last, so a folder that has one holds one whole comparison.
    """
    record = record_of(planned, store, command)
    rows: dict[str, tuple[str, str]] = {}
    for cell in planned.cells:
        first = next((run.measured for run in runs_of(cell, planned, store) if run.measured is not None), None)
        if first is not None:
            rows[cell.digest] = (first.pictures, first.twins)
    contents = {
        "results.csv": tables.to_csv(record),
        "results.parquet": tables.to_parquet(record),
        "report.html": page.render(record, rows).encode(),
        "results.json": record.to_json().encode(),
    }
    return record, put(store.folder, contents, FILES)
