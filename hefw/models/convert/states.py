"""What a network meets when it is run: the states of its own trajectories, with its own predictions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

#: (samples, timesteps (batch,), labels (batch,) or None) -> predictions.
Predict = Callable[[torch.Tensor, torch.Tensor, "torch.Tensor | None"], torch.Tensor]
BATCH = 256


@dataclass(frozen=True)
class States:
    """Inputs (count, *sample_shape), timesteps (count,) and labels (count,), and what the original predicts."""

    samples: torch.Tensor
    timesteps: torch.Tensor
    labels: torch.Tensor | None
    predictions: torch.Tensor

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, rows: Any) -> States:
        labels = None if self.labels is None else self.labels[rows]
        return States(self.samples[rows], self.timesteps[rows], labels, self.predictions[rows])

    def batches(self, size: int = BATCH) -> Iterator[States]:
        """All of them, in order."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


def join(parts: Sequence[States]) -> States:
    """All states of several."""
    labels = None if parts[0].labels is None else torch.cat([s.labels for s in parts if s.labels is not None])
    return States(
        torch.cat([s.samples for s in parts]),
        torch.cat([s.timesteps for s in parts]),
        labels,
        torch.cat([s.predictions for s in parts]),
    )


@dataclass(frozen=True)
class Sampler:
    """How a network is run: its scheduler, the number of steps, the shape of a sample and the number of labels."""

    scheduler: Any
    steps: int
    shape: tuple[int, ...]
    classes: int | None

    def labels(self, images: int) -> torch.Tensor | None:
        """All labels in turn."""
        return None if self.classes is None else torch.arange(images) % self.classes

    def timesteps(self) -> torch.Tensor:
        """The timesteps (steps,) in order, each once."""
        scheduler = copy.deepcopy(self.scheduler)
        scheduler.set_timesteps(self.steps)
        return torch.as_tensor(list(dict.fromkeys(scheduler.timesteps.tolist())))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def trajectories(
        self, predict: Predict, images: int, generator: torch.Generator, judge: Predict | None = None
    ) -> tuple[States, torch.Tensor]:
        """States of so many trajectories, grouped by timestep, with what `judge` (or `predict`) says; final samples.

        Deterministic schedulers only: random noise is drawn for x_T alone.
        """
        scheduler = copy.deepcopy(self.scheduler)
        scheduler.set_timesteps(self.steps)
        labels = self.labels(images)
        x = torch.randn((images, *self.shape), generator=generator) * float(getattr(scheduler, "init_noise_sigma", 1.0))
        parts = []
        scale = getattr(scheduler, "scale_model_input", lambda sample, _: sample)
        for t in scheduler.timesteps:
            given = scale(x, t)
            states = States(given, t.expand(images), labels, torch.zeros_like(given))
            found = predictions(predict, states)
            told = found if judge is None else predictions(judge, states)
            parts.append(States(given, t.expand(images), labels, told))
            x = scheduler.step(found, t, x).prev_sample
        return join(parts), x

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def noised(
        self, predict: Predict, images: torch.Tensor, labels: torch.Tensor | None, generator: torch.Generator
    ) -> States | None:
        """Images (count, *shape) noised to random timesteps; None for a scheduler that does not say how."""
        scheduler = copy.deepcopy(self.scheduler)
        scheduler.set_timesteps(self.steps)
        add = getattr(scheduler, "add_noise", None) or getattr(scheduler, "scale_noise", None)
        if add is None:
            return None
        known = self.timesteps()
        t = known[torch.randint(len(known), (len(images),), generator=generator)]
        noise = torch.randn(images.shape, generator=generator)
        samples = add(images, noise, t) if hasattr(scheduler, "add_noise") else add(images, t, noise)
        scale = getattr(scheduler, "scale_model_input", None)
        if scale is not None and float(getattr(scheduler, "init_noise_sigma", 1.0)) != 1.0:
            samples = torch.cat([scale(sample[None], step) for sample, step in zip(samples, t, strict=True)])
        # a sampler's states are slightly off: some extra noise makes the copy forgive that
        extra = (torch.rand((len(images), *[1] * len(self.shape)), generator=generator) < 0.3).float()
        samples = samples + 0.1 * extra * torch.randn(images.shape, generator=generator)
        states = States(samples, t, labels, torch.zeros_like(samples))
        return States(samples, t, labels, predictions(predict, states))


@torch.no_grad()  # type: ignore[untyped-decorator]
def predictions(predict: Predict, states: States) -> torch.Tensor:
    """The network's predictions for states, whatever predictions these have."""
    return torch.cat([predict(s.samples, s.timesteps, s.labels) for s in states.batches()])


def error(predict: Predict, states: States) -> float:
    """Mean squared difference to the states' predictions, beside their mean square; infinite if one is not finite."""
    off = (predictions(predict, states) - states.predictions).square().mean()
    relative = float(off / states.predictions.square().mean())
    return relative if relative == relative else float("inf")
