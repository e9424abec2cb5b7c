"""Plaintext runs of a model by an unmodified scheduler: every latent and every prediction, step by step."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.models.base import Model, PromptModel, Wish

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Runs of several images.

    Attributes:
        latents: (steps + 1, images, channels, height, width): x_T first, the final latent last.
        predictions: (steps, images, channels, height, width).
        labels: (images,), or None where the model takes none.
    """

    latents: Array
    predictions: Array
    labels: Labels | None = None

    def __len__(self) -> int:
        return int(self.latents.shape[1])

    @property
    def final(self) -> Array:
        """(images, channels, height, width)."""
        return np.asarray(self.latents[-1])

    def part(self, begin: int, end: int) -> Trajectories:
        """Some of the images."""
        labels = None if self.labels is None else self.labels[begin:end]
        return Trajectories(self.latents[:, begin:end], self.predictions[:, begin:end], labels)


def joined(parts: Sequence[Trajectories]) -> Trajectories:
    """Runs of one schedule as one."""
    labels = [part.labels for part in parts if part.labels is not None]
    return Trajectories(
        np.concatenate([part.latents for part in parts], axis=1),
        np.concatenate([part.predictions for part in parts], axis=1),
        np.concatenate(labels) if labels else None,
    )


def record(model: Model, scheduler: Any, start: Array, labels: Labels, steps: int) -> Trajectories:
    """Runs from x_T `start` (images, channels, height, width) for the labels (images,)."""
    with _watched(scheduler) as calls:
        final = model.twin(start, labels, scheduler, steps, lambda step, latents: None)
    return calls.runs(final, labels)


def record_prompts(model: PromptModel, scheduler: Any, wish: Wish) -> Trajectories:
    """The runs that a prompt model draws for a wish."""
    with _watched(scheduler) as calls:
        final = model.draw(wish, scheduler, lambda step, latents: None)
    return calls.runs(final, None)


@dataclass
class _Calls:
    """What goes through a scheduler's `step`."""

    samples: list[Array] = field(default_factory=list)
    predictions: list[Array] = field(default_factory=list)

    def runs(self, final: Array, labels: Labels | None) -> Trajectories:
        return Trajectories(np.stack([*self.samples, final]), np.stack(self.predictions), labels)


@contextmanager
def _watched(scheduler: Any) -> Iterator[_Calls]:
    """Notes the latents and predictions given to `scheduler.step`, which computes what it always does."""
    calls, original = _Calls(), scheduler.step

    @functools.wraps(original)  # pipelines look at its parameters
    def step(model_output: Any, timestep: Any, sample: Any, *args: Any, **options: Any) -> Any:
        calls.samples.append(_copy(sample))
        calls.predictions.append(_copy(model_output))
        return original(model_output, timestep, sample, *args, **options)

    scheduler.step = step
    try:
        yield calls
    finally:
        del scheduler.step


def _copy(tensor: Any) -> Array:
    """A torch tensor on any device, as float64 that nobody else changes."""
    return np.array(tensor.detach().cpu().double().numpy())
