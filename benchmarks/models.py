"""What the models cost: 16 pictures of each on ciphertext, in its own number of steps, asked for 40 dB, in one run.

    python -m benchmarks.models [NAME...] [--out benchmarks/results/models.json]

Some are drawn in another way, too: VARIANTS. Evaluation is measured twice: by the clock, and as processor time of the
server, which other programs on the machine hardly change. Rows that are not named keep their place in the file. How
good the pictures are is in models/NAME.json: quality.json of `hefw quality --model NAME`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import psutil

import hefw
from hefw.config import Config
from hefw.core.files import write_atomically
from hefw.core.progress import Progress
from hefw.plugins import registry
from hefw.record import machine_info

OUT = Path(__file__).with_name("results") / "models.json"
LABELS = "0-9,0-5"
PRECISION_DB = 40
#: Rows beside those of the models as they come, and what is asked for there.
VARIANTS: dict[str, dict[str, Any]] = {
    "mnist, 5 steps": {"model": "mnist", "steps": 5},
    "mnist-2step, one message": {"model": "mnist-2step", "refresh": "none"},
}


class ServerTime:
    """Processor time of the run's other processes when evaluation began, and at its latest sign of life."""

    def __init__(self) -> None:
        self.before = 0.0
        self.latest: float | None = None

    def __call__(self, progress: Progress) -> None:
        """Look at the clock; the server has nothing else to do while the key holder encrypts and decrypts."""
        if progress.stage == "evaluate":
            self.latest = _children()
        elif self.latest is None:
            self.before = _children()

    @property
    def seconds(self) -> float:
        """Of evaluation."""
        assert self.latest is not None  # a run evaluates
        return self.latest - self.before


def _children() -> float:
    return sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children(recursive=True))


def measure(name: str) -> dict[str, Any]:
    """Costs of one model."""
    clock = ServerTime()
    asked: dict[str, Any] = VARIANTS.get(name, {"model": name})
    asked = asked | {"backend": "tenseal", "labels": LABELS, "seed": 0, "params": {"precision_db": PRECISION_DB}}
    found = hefw.generate(progress=clock, **asked).record
    return {
        "command": Config(**found.config).command(),
        "machine": machine_info().model_dump(),
        "images": len(found.labels),
        "steps": found.config["steps"],
        "messages": found.messages,
        "depth": found.params.depth,
        "ring_dimension": found.params.ring_dimension,
        "log_qp": found.params.log_qp,
        "security_bits": found.params.security_bits,
        "seconds_evaluate": found.seconds.evaluate,
        "processor_seconds_evaluate": clock.seconds,
        "evaluation_keys": found.bytes.evaluation_keys,
        "encoded_weights": found.bytes.encoded_weights,
        "peak_rss_bytes": found.peak_rss_bytes,
        "psnr_db": found.psnr_db,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*(name for name in registry().names("model") if name != "stable-diffusion"), *VARIANTS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {'; '.join(names)}; all by default")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    rows: dict[str, Any] = json.loads(arguments.out.read_text())["models"] if arguments.out.exists() else {}
    for name in arguments.names or names:
        rows[name] = measure(name)
        print(name, json.dumps(rows[name]), flush=True)
        write_atomically(arguments.out, (json.dumps({"models": rows}, indent=2) + "\n").encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
