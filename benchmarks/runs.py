"""Saved runs of the benchmarks side by side, each median as a multiple of the run's own baseline.

    python -m benchmarks.runs [--last 2] [--folder .benchmarks]
    python -m benchmarks.runs --publish     # the primitives of the newest into results/suite.json

Seconds of two runs say little about the code: the machine was busy otherwise, or is another one. So every median is
divided by that of `test_baseline` in the same run, which is SEAL alone, before runs are compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hefw.core.files import write_atomically
from hefw.record import machine_info

RESULTS = Path(__file__).with_name("results") / "suite.json"
BASELINE = "test_baseline"
NOTABLE = 0.2  # a change of more is marked


def relative(run: dict[str, Any]) -> dict[str, float]:
    """Of each benchmark by its full name: median over the baseline's median."""
    medians = {item["fullname"].removeprefix("benchmarks/"): item["stats"]["median"] for item in run["benchmarks"]}
    base = next((median for name, median in medians.items() if name.endswith(f"::{BASELINE}")), None)
    if base is None:
        raise SystemExit(f"a run without {BASELINE} cannot be compared: run the whole suite, `make bench`")
    return {name: median / base for name, median in medians.items()}


def table(paths: list[Path]) -> Table:
    """A row a benchmark; the last column is the newest run over the one before."""
    runs = [relative(json.loads(path.read_text(encoding="utf-8"))) for path in paths]
    shown = Table(title="medians over the baseline's of the same run")
    shown.add_column("benchmark")
    for path in paths:
        shown.add_column(path.stem.split("_")[0], justify="right")
    shown.add_column("newest over the one before", justify="right")
    for name in sorted(set().union(*runs)):
        values = [run.get(name) for run in runs]
        *_, before, newest = [None, *values]
        change = "" if before is None or newest is None else f"{newest / before:.2f}"
        style = "bold" if before and newest and abs(newest / before - 1) > NOTABLE else None
        shown.add_row(escape(name), *("" if value is None else f"{value:.3g}" for value in values), change, style=style)
    return shown


def primitives(run: dict[str, Any]) -> dict[str, Any]:
    """Seconds of every primitive, a column for each backend and level."""
    rows: dict[str, dict[str, float]] = {}
    for item in run["benchmarks"]:
        if "test_primitives" in item["fullname"] and item["params"]["primitives"] != "simulator":
            backend, level = item["params"]["primitives"], item["params"]["level"]
            name = item["name"].split("[")[0].removeprefix("test_").replace("_", " ")
            rows.setdefault(name, {})[f"{backend}, level {level}"] = item["stats"]["median"]
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    return {
        "what": "medians at N = 2^14 by the clock, one thread",
        "command": "make bench",
        "columns": columns,
        "rows": {name: [row.get(column) for column in columns] for name, row in rows.items()},
        "machine": machine_info().model_dump(),
    }


def main() -> None:
    """Print the table of the last runs, or publish the newest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--last", type=int, default=2, help="runs to show")
    parser.add_argument("--folder", type=Path, default=Path(".benchmarks"))
    parser.add_argument("--publish", action="store_true", help=f"write the primitives of the newest to {RESULTS.name}")
    given = parser.parse_args()
    paths = sorted(given.folder.glob("*/*.json"), key=lambda path: path.stat().st_mtime)[-given.last :]
    if not paths:
        sys.exit(f"no saved run in {given.folder}: run `make bench` first")
    if given.publish:
        found = primitives(json.loads(paths[-1].read_text(encoding="utf-8")))
        write_atomically(RESULTS, (json.dumps(found, indent=2) + "\n").encode())
        return
    Console(width=140 if not sys.stdout.isatty() else None).print(table(paths))


if __name__ == "__main__":
    main()
