"""The tables of docs/reference/models.md, from models.json and models/NAME.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hefw.plugins import registry
from hefw.report.words import counted, size

NONE = "not measured"


def models(results: Path) -> str:
    """Costs and quality of every model that takes labels."""
    costs = json.loads((results / "models.json").read_text())["models"]
    quality = {
        name: json.loads(path.read_text())
        for name in registry().names("model")
        if (path := results / "models" / f"{name}.json").exists()
    }
    lines = [
        "Costs: 16 pictures on ciphertext with `tenseal`, in the model's own number of steps, asked for 40 dB "
        "(`python -m benchmarks.models`), on 2 cores that other programs used, too: processor time, and by the clock "
        "in brackets.",
        "",
        "| model | steps | messages | depth of a message | N | log2(QP) | evaluation of 16 | keys | encoded weights | "
        "peak memory | PSNR | processor |",
        "| --- " * 12 + "|",
        *(_cost(name, costs[name]) for name in sorted(costs)),
        "",
        "Quality: `hefw quality --model NAME`. Accuracy and Fréchet distance in plaintext, with 95 % intervals; the "
        "floor is the distance of as many real training pictures, and how many times it the model's distance is where "
        "both are to pictures that were kept out of training; the last columns are pictures on ciphertext beside their "
        "plaintext twins.",
        "",
        "| model | steps | pictures | classified as their label | Fréchet distance | floor | largest pre-activation | "
        "diverged | on ciphertext | PSNR | classified as their twins |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_quality(name, record) for name, record in quality.items()),
    ]
    return "\n".join(lines)


def _cost(name: str, row: dict[str, Any]) -> str:
    model, *way = name.split(", ")
    cells = [
        ", ".join([f"`{model}`", *way]),
        row["steps"],
        row["messages"],
        row["depth"],
        row["ring_dimension"],
        f"{row['log_qp']:.0f}",
        f"{row['processor_seconds_evaluate']:.1f} s ({row['seconds_evaluate']:.1f} s)",
        size(row["evaluation_keys"]),
        size(row["encoded_weights"]),
        size(row["peak_rss_bytes"]),
        "equal" if row["psnr_db"] is None else f"{row['psnr_db']:.0f} dB",
        row["machine"]["cpu"],
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _quality(name: str, record: dict[str, Any]) -> str:
    plain = max((item for item in record["sets"] if item["kind"] == "twin"), key=lambda item: int(item["steps"]))
    drawn = next((item for item in record["sets"] if item["kind"] == "encrypted"), None)
    twin = drawn and drawn["twin"]
    cells = [
        f"`{name}`",
        plain["steps"],
        plain["pictures"],
        _interval(plain["accuracy"], "{:.1%}"),
        _interval(plain["distance"], "{:.1f}"),
        _floor(plain, record["reference"]["held_out"]),
        NONE if plain["ranges"] is None else f"{plain['ranges']['largest']:.1f}",
        plain["diverged"],
        NONE if drawn is None else f"{drawn['pictures']} in {counted(drawn['steps'], 'step')}",
        NONE if not twin else f"{twin['psnr_db']:.0f} dB, lowest {twin['lowest_psnr_db']:.0f}",
        NONE if not drawn or not twin else f"{twin['label_agreement']} of {drawn['pictures']}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _floor(plain: dict[str, Any], held_out: bool) -> str:
    """The distance of as many real pictures, and how many times it the distance is where the reference is another."""
    if plain["floor"] is None:
        return NONE
    floor = plain["floor"]["value"]
    times = f", {plain['distance']['value'] / floor:.2f} times" if held_out and plain["distance"] else ""
    return f"{floor:.1f}{times}"


def _interval(found: dict[str, float] | None, form: str) -> str:
    if found is None:
        return NONE
    value, low, high = (form.format(found[key]) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
