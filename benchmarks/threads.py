"""Evaluations by one thread and by several, by turns: how much faster several are.

    python -m benchmarks.threads                        # two minutes; writes results/threads.json
    python -m benchmarks.threads --threads 4 --rounds 30

The networks are those of the peers, planned as there; an engine takes bytes and gives bytes, and differs in nothing but
the number of threads. Times are of the clock: on a machine that others use, a thread that has no core is no help.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.nets import STACKS
from benchmarks.peers.ours import Hefw
from hefw.record import machine_info, versions_info

RESULTS = Path(__file__).with_name("results") / "threads.json"
PRECISION_DB = "60"
WARM = 2
CASES = (("digits", 16), *((stack, images) for stack in STACKS for images in (1, 32)))


def measure(network: str, images: int, threads: int, rounds: int) -> dict[str, Any]:
    """Seconds of one network by one thread and by several, and how many times faster those are."""
    side = Hefw("tenseal", network, str(images), PRECISION_DB)
    side.prepare()
    seconds: dict[int, list[float]] = {1: [], threads: []}
    for number in range(rounds + WARM):
        for count, found in seconds.items():
            side.engine.evaluator.threads = count
            started = time.perf_counter()
            side.run()
            if number >= WARM:
                found.append(time.perf_counter() - started)
            assert side.engine.figures().threads == count
    one, several = seconds.values()
    return {
        "network": network,
        "images": side.images,
        "seconds": {str(count): statistics.median(found) for count, found in seconds.items()},
        "least_seconds": {str(count): min(found) for count, found in seconds.items()},
        "times_faster": statistics.median(a / b for a, b in zip(one, several, strict=True)),
        "times_faster_at_best": min(one) / min(several),  # a busy machine only ever adds time
        "errors": side.finish(),
    }


def main() -> None:
    """Measure, print, and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.threads < 2:
        parser.error(f"--threads {given.threads}: at least 2 are compared with one; this machine has that many cores")
    torch.set_num_threads(1)
    rows = []
    for network, images in CASES:
        rows.append(measure(network, images, given.threads, given.rounds))
        print(f"{network}, {images}: {rows[-1]['times_faster_at_best']:.2f}", file=sys.stderr)
    result = {
        "what": "one evaluation on tenseal at N = 2^14 and 128 bits, bytes in and bytes out",
        "rounds": given.rounds,
        "threads": given.threads,
        "rows": rows,
        "machine": machine_info().model_dump(),
        "versions": versions_info(("hefw", "tenseal", "numpy")),
    }
    text = json.dumps(result, indent=2)
    given.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
