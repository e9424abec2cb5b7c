"""What is audited: a model and its scheduler, of which runs can be had without encryption."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from hefw.audit.attacker import Denoiser, Judge
from hefw.audit.trajectories import Array, Labels, Trajectories, joined, record, record_prompts
from hefw.models.base import Model, PromptModel, Wish
from hefw.models.schedules import LinearUpdate, initial_noise, linear_updates
from hefw.models.seeded import seeded

#: Which random numbers: of the pictures that are audited, and of the attacker's own runs.
AUDITED, OWN = 0, 1
#: Runs that are computed together: more do not fit a processor's cache.
BATCH = 500


class Subject(ABC):
    """Runs with a seed: equal seeds and counts give equal runs."""

    model: Model | PromptModel
    updates: list[LinearUpdate]
    #: How many labels; 0 where the model takes none.
    labels: int
    #: Who reads labels off pictures, and the network as an attacker can run it; None where the model offers neither.
    judge: Judge | None
    denoiser: Denoiser | None

    def __init__(self, model: Model | PromptModel) -> None:
        self.model = model
        self.judge = model if isinstance(model, Judge) else None
        self.denoiser = model if isinstance(model, Denoiser) else None

    @abstractmethod
    def audited(self, count: int) -> Trajectories:
        """Runs of pictures to be audited."""

    @abstractmethod
    def own(self, count: int) -> Trajectories:
        """Runs of an attacker's own: random labels, or no prompt, and fresh noise."""

    def decode(self, latents: Array) -> Array:
        """Pictures (images, channels, height, width) of final latents."""
        return self.model.decode(latents)


class LabelSubject(Subject):
    """A model that takes labels. The pictures audited have all its labels in turn.

    `stochastic`: whether the scheduler may add noise, which not every protocol allows.
    """

    model: Model

    def __init__(
        self, model: Model, scheduler: Callable[[], Any], steps: int, seed: int, stochastic: bool = False
    ) -> None:
        super().__init__(model)
        self.labels = model.labels
        self.updates = linear_updates(scheduler(), steps, stochastic=stochastic)
        self._scheduler, self._steps, self._seed = scheduler, steps, seed

    def audited(self, count: int) -> Trajectories:
        return self._run(AUDITED, np.arange(count) % self.labels)

    def own(self, count: int) -> Trajectories:
        return self._run(OWN, np.random.default_rng([self._seed, OWN, 1]).integers(self.labels, size=count))

    def _run(self, which: int, labels: Labels) -> Trajectories:
        rng = np.random.default_rng([self._seed, which])
        start = rng.normal(size=(len(labels), *self.model.latent_shape))
        start *= initial_noise(self._scheduler(), self._steps)
        parts = [slice(first, first + BATCH) for first in range(0, len(labels), BATCH)]
        with seeded(int(rng.integers(2**62))):  # of noise that a scheduler adds
            runs = [record(self.model, self._scheduler(), start[part], labels[part], self._steps) for part in parts]
        return joined(runs)


class PromptSubject(Subject):
    """A model that takes prompts: those of the run in turn, each picture from a seed of its own."""

    model: PromptModel

    def __init__(self, model: PromptModel, scheduler: Callable[[], Any], wish: Wish) -> None:
        super().__init__(model)
        self.labels = 0
        self.updates = linear_updates(scheduler(), wish.steps, stochastic=True)
        self._scheduler, self._wish = scheduler, wish

    def audited(self, count: int) -> Trajectories:
        prompts = self._wish.prompts
        return self._draw(tuple(prompts[i % len(prompts)] for i in range(count)), 0)

    def own(self, count: int) -> Trajectories:
        return self._draw(("",) * count, 2**32)

    def _draw(self, prompts: tuple[str, ...], later: int) -> Trajectories:
        """One at a time: a picture takes far more memory in the networks than its latents do."""
        drawn = []
        for number, prompt in enumerate(prompts):
            wish = replace(self._wish, prompts=(prompt,), seed=self._wish.seed + later + number)
            with seeded(wish.seed):
                drawn.append(record_prompts(self.model, self._scheduler(), wish))
        return joined(drawn)
