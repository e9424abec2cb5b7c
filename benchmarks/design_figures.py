"""The measured section of docs/explanation/design-a-unet.md, from `design.json` and `sweep.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hefw.quality.record import QualityRecord
from hefw.report.words import size

COSTS = (
    "depth",
    "levels",
    "N",
    "log2(QP)",
    "rotations",
    "products with weights",
    "products of ciphertexts",
    "rotation keys",
    "evaluation keys",
    "encoded weights",
)
#: Sweeps in order: what their first column is, and the key of a shape that it shows.
SWEEPS = {
    "activations": "squares in sequence",
    "width": "channels",
    "degree": "degree of the polynomial",
}


def design(results: Path) -> str:
    """A table for each thing that a designer chooses."""
    found = json.loads((results / "design.json").read_text(encoding="utf-8"))
    base = found["base"]
    lines = [
        f"`python -m benchmarks.design`: {found['what']}. Unless the table says otherwise {base['activations']} "
        f"polynomials of degree {base['degree']}, {base['width']} channels. Operations are those of "
        "a step, keys and weights at most those sizes in memory.",
        "",
    ]
    for name, head in SWEEPS.items():
        lines += _table((head, *COSTS), [_costs(row["shape"][name], row["costs"]) for row in found["sweeps"][name]])
    lines += [
        "The scheduler's update alone, of DDIM with linear betas from the first timestep on: the largest factor of a "
        "step, and what the factors of the latent in all steps together make of an error in the first one:",
        "",
    ]
    lines += _updates(found["updates"])
    return "\n".join([*lines, *_steps(results / "sweep.json")])


def _costs(value: int, costs: Mapping[str, Any]) -> list[str]:
    operations = costs["operations_per_step"]
    bits = sum(costs["modulus_bits"]) + sum(costs["special_bits"])
    numbers = [value, costs["depth"], costs["levels"], costs["ring_dimension"], bits]
    numbers += [operations.get(name, 0) for name in ("rotate", "mul_plain", "mul")]
    return [
        *(f"{n:,}" for n in (*numbers, costs["rotation_keys"])),
        size(costs["key_bytes"]),
        size(costs["weight_bytes"]),
    ]


def _updates(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    steps = sorted({row["steps"] for row in rows})
    kinds = list(dict.fromkeys(row["prediction"] for row in rows))
    by = {(row["prediction"], row["steps"]): row for row in rows}
    return _table(
        ("prediction", *(f"{count} steps" for count in steps), "an error of the first latent"),
        [
            [
                f"`{kind}`",
                *(f"{by[kind, count]['largest_factor']:.2f}" for count in steps),
                f"times {by[kind, steps[-1]]['growth']:.3g}",
            ]
            for kind in kinds
        ],
    )


def _steps(path: Path) -> list[str]:
    """Quality over the number of steps: of the model `digits`."""
    record = QualityRecord.model_validate_json(path.read_text(encoding="utf-8"))
    twins = [item for item in record.sets if item.kind == "twin"]
    head = ("steps", "classified as their label", "Fréchet distance", "largest input of a square")
    rows = []
    for item in twins:
        assert item.accuracy is not None
        assert item.distance is not None
        assert item.ranges is not None
        assert item.ranges.largest is not None
        rows.append(
            [
                str(item.steps),
                f"{item.accuracy.value:.2%}",
                f"{item.distance.value:.1f}",
                f"{item.ranges.largest:.1f}",
            ]
        )
    return [
        f"Quality over steps (`{record.command}`): {twins[0].pictures:,} plaintext samples each.",
        "",
        *_table(head, rows)[:-1],
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "| --- " * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows), ""]
