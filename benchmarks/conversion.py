"""What conversion costs: the bundled `digits-silu` beside the network that it was converted from, in plaintext.

    python -m benchmarks.conversion [--samples 900] [--many 5000] [--out benchmarks/results/conversion.json]

Nothing is trained. Accuracy is by scikit-learn's SVC, the Fréchet distance in pixel space, both as `hefw quality` has
them; x_T is from seed 1. A few minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hefw.models.digits.model import JudgedDigits
from hefw.models.digits_silu.model import DigitsSilu
from hefw.models.digits_silu.train import CONVERSIONS, STEPS
from hefw.models.frechet import frechet_distance
from hefw.models.plugin import DigitsSiluOptions
from hefw.models.training import one_thread
from hefw.record import machine_info

SEED, BATCH = 1, 250
#: A picture with a value beyond this has diverged; its range is -1 to 1.
DIVERGED = 5.0


@torch.no_grad()
def judged(model: JudgedDigits, samples: int, steps: int, seed: int = SEED) -> dict[str, Any]:
    """Label accuracy, distance to the real digits, pictures that diverged, and the largest input of a polynomial."""
    noise = torch.randn(samples, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(samples) % model.labels
    pictures, largest = [], 0.0
    for start in range(0, samples, BATCH):
        x, y = noise[start : start + BATCH], labels[start : start + BATCH]
        scheduler = model.scheduler(type(model._scheduler), {})
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            read: list[torch.Tensor] = []
            model.unet.read = read
            x = scheduler.step(model.denoise(x, t, y), t, x).prev_sample
            largest = max([largest, *(float(z.abs().max()) for z in read)])
        pictures.append(x)
    model.unet.read = None
    images = torch.cat(pictures).double().numpy()
    finite = np.nan_to_num(images)
    return {
        "samples": samples,
        "steps": steps,
        "accuracy": float((model.judge(finite) == labels.numpy()).mean()),
        "frechet_distance": frechet_distance(model.features(finite), model.reference().real),
        "diverged": int((~(np.abs(images).reshape(samples, -1).max(1) <= DIVERGED)).sum()),
        "largest_preactivation": largest or None,
    }


def measure(samples: int, many: int) -> dict[str, Any]:
    """All networks, and the reports of their conversions."""
    models = {str(levels): DigitsSilu(DigitsSiluOptions(levels=levels)) for levels in CONVERSIONS}
    original = next(iter(models.values())).original()
    base = judged(original, samples, STEPS)
    found: dict[str, Any] = {"original": [base]}
    for levels, model in models.items():
        at = judged(model, samples, STEPS)
        at["distance_to_original"] = at["frechet_distance"] / base["frechet_distance"]
        found[f"{levels} levels"] = [at, judged(model, many, STEPS), judged(model, samples, 2 * STEPS)]
    reports = {levels: model.unet.report.to_dict() for levels, model in models.items()}
    return {"figures": found, "reports": reports}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=900)
    parser.add_argument("--many", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/conversion.json"))
    options = parser.parse_args()
    started = time.monotonic()
    with one_thread():
        result = measure(options.samples, options.many)
    result |= {"machine": machine_info().model_dump(), "seconds": time.monotonic() - started}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, rows in result["figures"].items():
        for row in rows:
            print(name, {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})


if __name__ == "__main__":
    main()
