"""How good the pictures are: in plaintext against real digits, and on ciphertext against the plaintext twin."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from hefw.config import Config, format_labels
from hefw.core.errors import ConfigError
from hefw.core.progress import Progress, ProgressCallback
from hefw.models.digits import quality
from hefw.models.digits.model import Digits
from hefw.plugins import registry
from hefw.record import machine_info
from hefw.run import generate

SUPPORTED = "digits"
SAMPLE_SEED = 1


def measure(
    config: Config, *, samples: int, steps: Sequence[int], encrypted: int, progress: ProgressCallback
) -> dict[str, Any]:
    """Figures for quality.json.

    Parameters
    ----------
    samples : plaintext images for each number of steps in `steps`.
    encrypted : images drawn on ciphertext with `config`, paired with the plaintext twin's of the same noise.

    The Fréchet distance is in pixel space (64 grey values of 0..16), against all real digits; `held_out_distance` is
    that between two random halves of the real digits. It is biased upwards for few samples: compare equal numbers only.
    """
    if config.model.name != SUPPORTED:
        raise ConfigError(f"quality of model {config.model.name!r} cannot be judged yet; allowed: {SUPPORTED}")
    chosen = config.resolve()
    model: Digits = registry().load("model", SUPPORTED)(chosen["model"].options)
    plain = []
    for number, count in enumerate(steps):
        progress(Progress("sample", number, len(steps), f"{samples} images of {count} steps"))
        scheduler = model.scheduler(
            _scheduler_class(chosen["scheduler"].entry.name), chosen["scheduler"].options.model_dump()
        )
        plain += [
            dataclasses.asdict(row)
            for row in quality.measure(model.unet, scheduler, samples=samples, steps=[count], seed=SAMPLE_SEED)
        ]
    progress(Progress("sample", len(steps), len(steps), "done"))
    return {
        "model": config.model.name,
        "plaintext": plain,
        "held_out_distance": quality.held_out_distance(),
        "encrypted": _encrypted(config, encrypted, model.labels, progress) if encrypted else None,
        "machine": machine_info().model_dump(),
    }


def _encrypted(config: Config, count: int, classes: int, progress: ProgressCallback) -> dict[str, Any]:
    labels = tuple(k % classes for k in range(count))
    result = generate(config, progress=progress, labels=format_labels(labels))
    assert result.plain is not None  # digits has a twin
    wanted = torch.tensor(labels)
    drawn, twin = torch.from_numpy(result.images), torch.from_numpy(result.plain)
    errors = np.sqrt(np.mean((result.images - result.plain) ** 2, axis=(1, 2, 3)))
    record = result.record
    return {
        "backend": config.backend.name,
        "simulated": record.simulated,
        "insecure": record.insecure,
        "samples": count,
        "steps": config.steps,
        "label_agreement_with_twin": int((quality.predict(drawn) == quality.predict(twin)).sum()),
        "accuracy": quality.label_accuracy(drawn, wanted),
        "accuracy_of_twin": quality.label_accuracy(twin, wanted),
        "psnr_db": record.psnr_db,
        "lowest_psnr_db": float(20 * np.log10(2 / errors.max())) if errors.max() else None,
        "max_abs_error": record.max_abs_error,
        "seconds_evaluate": record.seconds.evaluate,
    }


def _scheduler_class(name: str) -> Any:
    return registry().load("scheduler", name)
