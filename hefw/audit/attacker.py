"""The server as an attacker: what it knows besides its view, and the interfaces of attacks and of models to attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hefw.audit.trajectories import Array, Labels, Trajectories
from hefw.audit.view import Rules, View, look
from hefw.models.schedules import LinearUpdate
from hefw.strategies.base import Strategy


@runtime_checkable
class Judge(Protocol):
    """A model that can say which label a picture looks like: with it an audit tells whether labels are recovered."""

    def judge(self, images: Array) -> Labels:
        """Labels (images,) of images (images, channels, height, width), black -1 and white 1."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """A model whose network an attacker can run on its own latents, and take gradients through."""

    def denoise(self, latents: Any, timestep: float, labels: Any) -> Any:
        """The prediction for latents (images, channels, height, width), scaled as the network wants them.

        All are torch tensors, the latents float32 and the labels (images,) int64.
        """
        ...


@dataclass(eq=False)
class Attacker:
    """What an honest-but-curious server has besides its view: public things, and what it makes with the model.

    Attributes:
        strategy, rules, updates: public.
        labels: how many the model has; 0 where it takes none.
        denoiser: the model, where it can be run; the server owns it, or is assumed to.
        own: runs of the attacker's own, of random labels and fresh noise.
    """

    strategy: Strategy
    rules: Rules
    updates: Sequence[LinearUpdate]
    labels: int
    denoiser: Denoiser | None
    own: Trajectories

    @cached_property
    def own_view(self) -> View:
        """What the attacker would see of its own runs."""
        return look(self.own, self.strategy, self.updates, self.rules)

    @cached_property
    def latent_scale(self) -> NDArray[np.float64]:
        """(steps + 1,): the standard deviation of the latents at each step; it varies much with some schedulers."""
        return np.asarray(self.own.latents.std(axis=(1, 2, 3, 4)))

    @cached_property
    def noise_scale(self) -> NDArray[np.float64]:
        """(steps,): the standard deviation of the noise that the scheduler adds at each step."""
        latents, predictions = self.own.latents, self.own.predictions
        scales = np.zeros(len(self.updates))
        for step, update in enumerate(self.updates):
            if update.noise:
                terms = list(update.terms(list(latents[step::-1]), list(predictions[step::-1])))
                scales[step] = (latents[step + 1] - np.sum(terms, axis=0)).std()
        return scales


@dataclass(frozen=True, eq=False)
class Guess:
    """An attack's guess of the final latents (images, channels, height, width), and of the labels (images,) if any."""

    latents: Array
    labels: Labels | None = None


class Attack(Protocol):
    """Made from its declared options; stateless. Entry and hook: `hefw_attacks`."""

    #: Where it comes from: authors, year, section.
    reference: str

    def refusal(self, view: View, attacker: Attacker) -> str | None:
        """Why it cannot be tried on this view, or None."""
        ...

    def guess(self, view: View, attacker: Attacker, rng: np.random.Generator) -> Guess:
        """The guess for every image of the view; random numbers from `rng` only."""
        ...
