"""Sampling in plaintext, thousands of pictures in seconds: float32, in batches that fit a processor's cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hefw.audit.attacker import Denoiser
from hefw.models import labelled
from hefw.models.base import Model
from hefw.models.schedules import initial_noise

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

BATCH = 500


def start(model: Model, scheduler: Any, samples: int, steps: int, seed: int) -> Array:
    """x_T (samples, *latent_shape), as a run of `hefw.generate` with that seed has it."""
    noise = np.random.default_rng(seed).normal(size=(samples, *model.latent_shape))
    return np.asarray(noise * initial_noise(scheduler, steps))


def sample(
    model: Model,
    scheduler: Callable[[], Any],
    noise: Array,
    labels: Labels,
    steps: int,
    tell: Callable[[int], None] = lambda _: None,
) -> tuple[Array, Array]:
    """Final latents and pictures of x_T `noise` (samples, *latent_shape) and `labels` (samples,).

    A model without `denoise` is sampled by its own twin. `tell(samples done)` after each batch.
    """
    latents, images = [], []
    for first in range(0, len(noise), BATCH):
        part, classes = noise[first : first + BATCH], labels[first : first + BATCH]
        if isinstance(model, Denoiser):
            final = _denoised(model, scheduler(), part, classes, steps)
        else:
            final = model.twin(part, classes, scheduler(), steps, lambda *_: None)
        latents.append(final)
        images.append(np.asarray(model.decode(final)))
        tell(min(len(noise), first + BATCH))
    return np.concatenate(latents), np.concatenate(images)


def _denoised(model: Denoiser, scheduler: Any, noise: Array, labels: Labels, steps: int) -> Array:
    single, classes = noise.astype(np.float32), torch.from_numpy(labels)
    return labelled.sample(lambda x, t: model.denoise(x, t, classes), single, scheduler, steps, lambda *_: None)
