"""The table of compiled UNets in docs/reference/models.md, from compiled.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hefw.report.words import size

NOT_RUN = "not run"


def compiled(results: Path) -> str:
    """What compiling costs, and one step on ciphertext beside the module."""
    found = json.loads((results / "compiled.json").read_text())
    machine = found["machine"]
    return "\n".join(
        [
            "Compiled by `hefw.compile`: how long that takes, how large the file is beside the weights at 32 bits, and "
            "one denoising step on ciphertext at 128 bits by `tenseal`, asked for 40 dB, beside the module in float64 "
            f"(`python -m benchmarks.compiled`), one thread of an {machine['cpu']}, processor time. Networks of "
            "diffusers have random weights; those with levels keep SiLU, norms and attention as they come and are "
            "converted, the others have quadratics.",
            "",
            "| network | compiled in | file | over weights | N | depth | rotations | a step, all images of a request | "
            "largest error | PSNR | peak memory |",
            "| --- " * 11 + "|",
            *map(_row, found["rows"]),
        ]
    )


def _row(row: dict[str, Any]) -> str:
    cells = [
        row["model"],
        f"{row['compile_processor_seconds']:.1f} s",
        size(row["file_bytes"]),
        f"{row['file_times_weights']:.2f}",
    ]
    if "step_seconds" in row:
        cells += [
            row["ring_dimension"],
            row["depth"],
            row["rotations"],
            f"{row['step_processor_seconds']:.1f} s, {row['images_a_request']} images",
            f"{row['max_error']:.1e}",
            f"{row['psnr_db']:.0f} dB",
            size(row["memory_bytes"]),
        ]
    else:
        cells += [NOT_RUN, *[""] * 5, size(row["compile_memory_bytes"])]
    return f"| {' | '.join(map(str, cells))} |"
