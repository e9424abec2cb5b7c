"""How long commands take to start: the whole of `hefw --help` and `hefw plugins`, and a second `hefw generate` until
its first region is evaluated, with a stored key and a warm cache.

    python -m benchmarks.start_up [--repeats 10] [--first-step] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hefw.record import machine_info

HEFW = [sys.executable, "-m", "hefw"]
#: What a run prints when the first region of its first step is done.
FIRST = "evaluating"
DRAW = ["generate", "--no-twin", "--steps", "10", "--labels", "0-9,0-5", "--backend", "tenseal"]


def whole(arguments: list[str]) -> float:
    """Seconds of a command."""
    started = time.perf_counter()
    subprocess.run([*HEFW, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def first_step(folder: Path, environment: dict[str, str]) -> float:
    """Seconds from the start of a run until the first region of its first step is evaluated; it is then ended."""
    started = time.perf_counter()
    command = [*HEFW, *DRAW, "--keys", "bench", "--out", str(folder / "run")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(FIRST):
                seconds = time.perf_counter() - started
                process.terminate()
                return seconds
    raise RuntimeError("the run ended before its first step")


def told(name: str, seconds: list[float]) -> dict[str, object]:
    """Print one row, and give it."""
    row = {"what": name, "best": min(seconds), "median": statistics.median(seconds), "repeats": len(seconds)}
    print(f"{name:44} best {row['best']:6.2f} s, median {row['median']:6.2f} s of {len(seconds)}", flush=True)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.start_up")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--first-step", action="store_true", help="also of a run with stored keys and a warm cache")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args()
    rows = [
        told("hefw " + " ".join(words), [whole(words) for _ in range(arguments.repeats)])
        for words in (["--help"], ["plugins"])
    ]
    if arguments.first_step:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            environment = os.environ | {"HEFW_HOME": str(folder / "home"), "HEFW_CACHE": str(folder / "cache")}
            subprocess.run([*HEFW, "keys", "new", "bench", *DRAW[2:]], env=environment, check=True, capture_output=True)
            first_step(folder, environment)  # warms the cache
            seconds = [first_step(folder, environment) for _ in range(arguments.repeats)]
            rows.append(told("hefw generate --keys, to the first region", seconds))
    if arguments.out:
        record = {"machine": machine_info().model_dump(mode="json"), "rows": rows}
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
