"""One update step of a latent of Stable Diffusion's size: HE-Diffusion as published beside hefw, on one core.

    python -m benchmarks.update                                # minutes; writes results/update.json
    python -m benchmarks.update --rounds 1 --elements 32 --out try.json

Ways take turns on the same latents, so that a slow minute of the machine meets them all. A step is select, encrypt,
update, decrypt and merge. What has one ciphertext an entry does one step a round, measured on `--elements` entries and
extrapolated; the others do nine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ways
from benchmarks.one_core import on_one_core
from benchmarks.ways import Update, Way
from hefw.bench.published import Step
from hefw.record import machine_info, versions_info

RESULTS = Path(__file__).with_name("results") / "update.json"
#: Steps of a round.
STEPS = 9
MOST_ROUNDS = 5
#: Ways that do one step a round.
SLOW = ("published full", "published partial")
#: How many times as long they take stands beside every way.
BASELINES = ("published full", "published sparse")


def measure(rounds: int, elements: int) -> dict[str, Any]:
    """Figures of all ways, from one run."""
    updates = list(ways.updates(ways.WARM_UP + rounds * STEPS))
    warm_up, measured = updates[: ways.WARM_UP], updates[ways.WARM_UP :]
    with no_output():  # TenSEAL's C++ prints advice
        rows = interleaved(ways.published(elements) | ways.hefw(warm_up), measured)
    return {
        "what": f"One update step of a latent of {' x '.join(map(str, ways.SHAPE))}, PLMS with four predictions",
        "rounds": rounds,
        "steps_a_round": STEPS,
        "machine": machine_info().model_dump(),
        "versions": versions_info(("hefw", "tenseal", "numpy", "torch", "diffusers")),
        "rows": with_ratios(rows),
    }


def interleaved(contenders: dict[str, Way], updates: Iterable[Update]) -> list[dict[str, Any]]:
    """A row for each way. They take turns at every update, `SLOW` ones at the first of each round."""
    steps: dict[str, list[Step]] = {name: [] for name in contenders}
    errors: dict[str, list[float]] = {name: [] for name in contenders}
    for number, update in enumerate(updates):
        for name, way in contenders.items():
            if name in SLOW and number % STEPS:
                continue
            step = way(update)
            steps[name].append(step)
            errors[name].append(float(np.nanmax(np.abs(step.latent - update.expected))))
            print(f"step {update.step}, {name}: {sum(step.seconds.values()):.4f} s", file=sys.stderr, flush=True)
    return [summary(name, steps[name], max(errors[name])) for name in contenders]


def summary(name: str, steps: list[Step], error: float) -> dict[str, Any]:
    """The figures of one way; `error` is the largest of its steps."""
    totals = [sum(step.seconds.values()) for step in steps]
    return {
        "way": name,
        "encrypted_entries": statistics.median(step.encrypted_elements for step in steps),
        "ciphertexts": statistics.median(step.ciphertexts for step in steps),
        "measured_entries": min(step.measured_elements for step in steps),
        "extrapolated": any(step.extrapolated for step in steps),
        "seconds": totals,
        "median_seconds": statistics.median(totals),
        "fastest_seconds": min(totals),
        "median_seconds_by_part": {
            part: statistics.median(step.seconds[part] for step in steps) for part in steps[0].seconds
        },
        "max_abs_error": error,
    }


def with_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that say how many times as long the baselines of the same run take, of medians and of fastest rounds."""
    baselines = [row for row in rows if row["way"] in BASELINES]
    return [
        row
        | {
            "times_faster": {
                base["way"]: {
                    "median": base["median_seconds"] / row["median_seconds"],
                    "fastest": base["fastest_seconds"] / row["fastest_seconds"],
                }
                for base in baselines
            }
        }
        for row in rows
    ]


@contextmanager
def no_output() -> Iterator[None]:
    """Nothing written to standard output, by whatever language, appears."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def main() -> None:
    """Measure on one core, print, and write the results file."""
    parser = argparse.ArgumentParser(prog="benchmarks.update", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=MOST_ROUNDS, choices=range(1, MOST_ROUNDS + 1))
    parser.add_argument("--elements", type=int, default=1024, help="entries that ways with one ciphertext each measure")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    on_one_core()
    found = measure(arguments.rounds, arguments.elements)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for row in found["rows"]:
        print(f"{row['way']}: {row['median_seconds']:.4f} s, error {row['max_abs_error']:.1e}")


if __name__ == "__main__":
    main()
