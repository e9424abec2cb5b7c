"""Selecting entries of a latent of noise, of Stable Diffusion's size: processor time of a call, and what it leaves.

python -m benchmarks.selection     # writes results/selection.json
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import numpy as np

from hefw.core.files import write_atomically
from hefw.record import machine_info, versions_info
from hefw.strategies.min_distortion import MinDistortion
from hefw.strategies.plugin import MinDistortionOptions

RESULTS = Path(__file__).with_name("results") / "selection.json"
SHAPE = (4, 64, 64)
CALLS = 200


def measure() -> dict[str, float]:
    """Seconds of a call of `min_distortion`: the fastest, the median, and what nine of ten stay below; and the share of
    the entries that is shown."""
    latent = np.random.default_rng(0).normal(size=SHAPE)
    strategy, seconds = MinDistortion(MinDistortionOptions()), []
    for _ in range(CALLS):
        started = time.process_time()
        strategy.select(latent)
        seconds.append(time.process_time() - started)
    return {
        "shown_share": float(1 - strategy.select(latent).mean()),
        "fastest_seconds": min(seconds),
        "median_seconds": statistics.median(seconds),
        "nine_of_ten_seconds": statistics.quantiles(seconds, n=10)[-1],
    }


def main() -> None:
    """Measure and write."""
    found = {
        "what": f"min_distortion on N(0, 1) of {' x '.join(map(str, SHAPE))}, processor time of {CALLS} calls",
        "command": "python -m benchmarks.selection",
        **measure(),
        "machine": machine_info().model_dump(),
        "versions": versions_info(("hefw", "numpy")),
    }
    write_atomically(RESULTS, (json.dumps(found, indent=2) + "\n").encode())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
