"""A whole generation of Stable Diffusion's size, 50 PLMS steps of a 4x64x64 latent, on one core: what encryption adds.

    python -m benchmarks.generation                          # a minute; writes results/generation.json
    python -m benchmarks.generation --rounds 1 --steps 5 --out try.json

The pipeline is diffusers' StableDiffusionPipeline with small networks of random weights: what is not a network does the
same as with the real ones. It runs as it is and wrapped, by turns, from the same noise. All time is counted that UNet,
text encoder and VAE do not take; in a session's first picture also that for starting the server and making keys.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

import hefw
from benchmarks.one_core import on_one_core
from hefw.record import machine_info, versions_info
from hefw.testing.pipelines import tiny_pipeline

RESULTS = Path(__file__).with_name("results") / "generation.json"
SIZE = 64
PLAIN = "plain pipeline"
WAYS = [(strategy, sent) for sent in ("plaintext", "encrypted") for strategy in ("full", "min_distortion", "sparse")]


class Networks:
    """Seconds that a pipeline's networks take."""

    def __init__(self, pipe: Any) -> None:
        self.seconds = 0.0
        self._started = 0.0
        for network in (pipe.unet, pipe.text_encoder, pipe.vae.decoder):
            network.register_forward_pre_hook(self._enter)
            network.register_forward_hook(self._leave)

    def _enter(self, *_: Any) -> None:
        self._started = time.perf_counter()

    def _leave(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._started


def measure(rounds: int, steps: int) -> dict[str, Any]:
    """Figures of the pipeline as it is and of every way, from one run."""
    pipe = tiny_pipeline("v1", size=SIZE)
    networks = Networks(pipe)

    def draw(chosen: Any, count: int = steps) -> tuple[torch.Tensor, float]:
        """A picture, and the seconds beside the networks."""
        noise = torch.Generator().manual_seed(0)
        started, within = time.perf_counter(), networks.seconds
        picture = chosen("a red cat", num_inference_steps=count, generator=noise, output_type="pt").images
        return picture, time.perf_counter() - started - (networks.seconds - within)

    draw(pipe, 1)
    rows: dict[str, dict[str, Any]] = {}

    def add(name: str, **found: float) -> None:
        for key, value in found.items():
            rows.setdefault(name, {"way": name}).setdefault(key, []).append(value)
        print(f"{name}: {found['seconds']:.3f} s", file=sys.stderr, flush=True)

    for _ in range(rounds):
        plain, seconds = draw(pipe)
        add(PLAIN, seconds=seconds)
        for strategy, sent in WAYS:
            with hefw.wrap(pipe, strategy=strategy, noise_prediction=sent) as wrapped:
                _, first = draw(wrapped)
                picture, seconds = draw(wrapped)
                error = wrapped.hefw.largest_difference
            mean = float(((picture - plain) ** 2).mean())
            add(
                f"hefw {strategy}, eps {sent}",
                seconds=seconds,
                first_seconds=first,
                max_abs_error=error,
                psnr_db=-10 * math.log10(mean),
            )
    return {
        "what": f"A picture of {steps} PLMS steps from a 4 x {SIZE} x {SIZE} latent, without the networks' time",
        "rounds": rounds,
        "steps": steps,
        "machine": machine_info().model_dump(),
        "versions": versions_info(("hefw", "tenseal", "numpy", "torch", "diffusers", "transformers")),
        "rows": [summary(row) for row in rows.values()],
    }


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """The figures of one way: medians of seconds, and the worst of the rest."""
    kinds = {"seconds": statistics.median, "first_seconds": statistics.median, "max_abs_error": max, "psnr_db": min}
    return {"way": row["way"]} | {key: kind(row[key]) for key, kind in kinds.items() if key in row}


def main() -> None:
    """Measure on one core, print, and write the results file."""
    parser = argparse.ArgumentParser(prog="benchmarks.generation", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    on_one_core()
    text = json.dumps(measure(arguments.rounds, arguments.steps), indent=2) + "\n"
    arguments.out.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
