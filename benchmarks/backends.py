"""One configuration and seed on several HE libraries: the same pictures, at what cost.

    python -m benchmarks.backends                      # tenseal and openfhe with loops and without, pyfhel
    python -m benchmarks.backends --rounds 2 lattigo   # a plugin's backend too, where it is installed

Backends take turns, so that a slow hour of the machine meets them all. Times are those of the fastest round.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hefw
from hefw.run import Result

RESULTS = Path(__file__).with_name("results") / "backends.json"
HOSTED = "tenseal, hosted"
#: By nothing but the library's calls.
OWN = "{}, own calls"
BACKENDS: dict[str, Any] = {
    "tenseal": "tenseal",
    HOSTED: {"name": "tenseal", "hosted": True},
    OWN.format("tenseal"): {"name": "tenseal", "loops": False},
    "openfhe": "openfhe",
    OWN.format("openfhe"): {"name": "openfhe", "loops": False},
    "pyfhel": "pyfhel",
}


def grey(images: NDArray[np.float64]) -> NDArray[np.int64]:
    """Levels from 0 (black) to 255 (white), as a picture's file has them."""
    return np.clip(np.rint((images + 1) * 127.5), 0, 255).astype(np.int64)


def measure(backends: dict[str, Any], rounds: int, steps: int) -> dict[str, Any]:
    """Runs by backend, and the largest difference of grey levels between any two."""
    best: dict[str, Result] = {}
    for _ in range(rounds):
        for name, backend in backends.items():
            result = hefw.generate(backend=backend, steps=steps, labels="0-9,0-5")
            print(f"{name}: {result.record.seconds.evaluate:.2f} s of evaluation", file=sys.stderr, flush=True)
            if name not in best or result.record.seconds.evaluate < best[name].record.seconds.evaluate:
                best[name] = result
    pictures = np.stack([grey(result.images) for result in best.values()])
    reference = best["tenseal"].record.seconds
    rows = []
    for name, result in best.items():
        record = result.record
        rows.append(
            {
                "backend": name,
                "seconds": record.seconds.model_dump(),
                "evaluation_over_tenseal": record.seconds.evaluate / reference.evaluate,
                "whole_over_tenseal": record.seconds.total / reference.total,
                "max_abs_error": record.max_abs_error,
                "psnr_db": record.psnr_db,
                "evaluation_keys": record.bytes.evaluation_keys,
                "peak_rss_bytes": record.peak_rss_bytes,
                "params": record.params.model_dump(mode="json"),
                "processes": [process.model_dump(exclude={"process"}) for process in record.processes],
            }
        )
    machine = next(iter(best.values())).record.machine.model_dump()
    return {
        "what": f"16 digits, {steps} steps, the same seed, fastest of {rounds} rounds by turns",
        "largest_grey_difference": int((pictures.max(axis=0) - pictures.min(axis=0)).max()),
        "machine": machine,
        "rows": rows,
    }


def main() -> None:
    """Measure, print, and write the results file."""
    parser = argparse.ArgumentParser(prog="benchmarks.backends", description=__doc__.splitlines()[0])
    parser.add_argument("more", nargs="*", help="names of further backends")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    found = measure(BACKENDS | {name: name for name in arguments.more}, arguments.rounds, arguments.steps)
    text = json.dumps(found, indent=2) + "\n"
    arguments.out.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
