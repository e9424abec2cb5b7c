"""What the shape of a UNet costs on ciphertext, counted by the planner; nothing is encrypted.

    python -m benchmarks.design  # rewrites results/design.json

Networks of one kind are compiled and planned at 128-bit security. Weights are random: levels, rotations and products
depend on where weights are, not on what they are; forecasts of precision are of these very weights.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import nn
from torch.nn import functional

from hefw import inspecting
from hefw.backends.choose import make
from hefw.config import Choice, resolve
from hefw.core.files import write_atomically
from hefw.core.lower import Request, lower
from hefw.core.program import Program
from hefw.models.compiler.compile import compile
from hefw.models.schedules import linear_updates
from hefw.record import machine_info

OUT = Path(__file__).with_name("results") / "design.json"
PATCH, SIZE, CLASSES, IMAGES = 2, 8, 10, 16
STEPS, PRECISION_DB = 4, 60.0
PREDICTION = "v_prediction"
BASE: dict[str, int] = {"activations": 4, "width": 32, "degree": 2}
SWEEPS: dict[str, list[dict[str, int]]] = {
    "activations": [{"activations": count} for count in (1, 2, 4, 6)],
    "width": [{"width": width} for width in (16, 32, 64)],
    "degree": [{"degree": degree} for degree in (2, 4)],
}
UPDATES = (2, 5, 10, 20, 50)


class Stack(nn.Module):  # type: ignore[misc]
    """3x3 convolutions on the 4x4 patches of an 8x8 picture; a polynomial after each but the last; additive biases."""

    def __init__(self, activations: int, width: int, degree: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        widths = [PATCH**2, *[width] * activations]
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in itertools.pairwise(widths)
        )
        self.times = nn.ModuleList(nn.Linear(1, width) for _ in self.layers)
        self.labels = nn.ModuleList(nn.Embedding(CLASSES, width) for _ in self.layers)
        self.last = nn.Conv2d(width, PATCH**2, 3, padding=1)
        self.degree = degree

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        h = functional.pixel_unshuffle(x, PATCH)
        for layer, time, label in zip(self.layers, self.times, self.labels, strict=True):
            h = layer(h) + (time(t[:, None] / 1000) + 0.1 * label(y))[:, :, None, None]
            power, total = h, h
            for exponent in range(2, self.degree + 1):
                power = power * h
                total = total + 0.1 ** (exponent - 1) * power
            h = total
        return functional.pixel_shuffle(self.last(h), PATCH)


def scheduler(prediction: str) -> DDIMScheduler:
    """Linear betas, on which a prediction of the noise can be sampled from the first timestep on."""
    return DDIMScheduler(
        beta_start=1e-4,
        beta_end=0.02,
        prediction_type=prediction,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def planned(shape: dict[str, int]) -> Program:
    """The program of a network of this shape."""
    module = Stack(shape["activations"], shape["width"], shape["degree"]).eval()
    graph = compile(module, (1, SIZE, SIZE), scheduler=scheduler(PREDICTION), steps=STEPS, classes=CLASSES)
    chosen = resolve("backend", Choice("simulator"))
    request = Request(PRECISION_DB, images=IMAGES, pairs=False)
    return lower(graph, make(chosen.entry, chosen.options), request)


def updates() -> list[dict[str, Any]]:
    """The largest factor of a step's update, and what all steps make of an error of the first latent."""
    rows = []
    for prediction in (PREDICTION, "sample", "epsilon"):
        for steps in UPDATES:
            found = linear_updates(scheduler(prediction), steps)
            rows.append(
                {
                    "prediction": prediction,
                    "steps": steps,
                    "largest_factor": max(abs(f) for u in found for f in (u.sample, *u.predictions)),
                    "growth": math.prod(abs(u.sample) for u in found),
                }
            )
    return rows


def main() -> None:
    """Plan every network, and write the file."""
    torch.set_num_threads(1)
    known: dict[tuple[int, ...], dict[str, Any]] = {}
    sweeps: dict[str, list[dict[str, Any]]] = {}
    for name, changes in SWEEPS.items():
        sweeps[name] = []
        for change in changes:
            shape = BASE | change
            key = tuple(shape.values())
            if key not in known:
                known[key] = inspecting.costs(planned(shape))
            sweeps[name].append({"shape": shape, "costs": known[key]})
            print(name, change, file=sys.stderr, flush=True)
    result = {
        "what": f"3x3 convolutions on 4x4 patches of an 8x8 picture, {IMAGES} images, {STEPS} steps of DDIM, "
        f"{PRECISION_DB:g} dB, 128-bit security, planned for the simulator",
        "base": BASE,
        "sweeps": sweeps,
        "updates": updates(),
        "machine": machine_info().model_dump(),
    }
    write_atomically(OUT, (json.dumps(result, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
