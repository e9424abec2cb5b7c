"""A schedule begun from a picture: where it begins, and how much of picture and noise there is at each timestep."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hefw.core.errors import ConfigError, SchedulerError
from hefw.models.schedules import TOLERANCE, begin_at, noise_shares, read_updates, with_timesteps
from hefw.models.seeded import seeded

Array = NDArray[np.float64]

#: Latents that a scheduler's updates are tried on.
PROBE = (1, 1, 4, 4)


@dataclass(frozen=True)
class Noising:
    """Of the steps that are done: before step k, and after the last one, a latent is signal[k] x_0 + noise[k] n.

    `begin` is the index of the first step in the scheduler's timesteps; `signal` and `noise` are (steps + 1,).
    """

    begin: int
    signal: Array
    noise: Array

    @property
    def steps(self) -> int:
        """Evaluations of the network that are left."""
        return len(self.signal) - 1

    def at(self, step: int, latents: Array, noise: Array) -> Array:
        """Clean latents with the noise of the state before a step (`steps`: after the last one)."""
        return np.asarray(self.signal[step] * latents + self.noise[step] * noise)


def noising(scheduler: Any, steps: int, strength: float) -> Noising:
    """The schedule of diffusers' image-to-image pipelines: the last int(steps * strength) of the scheduler's steps.

    Args:
        scheduler: a diffusers scheduler; it is copied, not changed.
        steps: asked of `set_timesteps`.
        strength: share of the steps that is done, from 0 to 1.

    Raises:
        ConfigError: no step is left.
        SchedulerError: the scheduler cannot add noise to a picture.
    """
    left = min(int(steps * strength), steps)
    if left < 1:
        raise ConfigError(
            f"strength {strength:g} of {steps} steps is less than one step; give at least {1 / steps:.3g}, or "
            "more steps"
        )
    ready = with_timesteps(scheduler, steps)
    begin = (steps - left) * int(getattr(ready, "order", 1))
    shares = [noise_shares(ready, index) for index in range(begin, len(ready.timesteps))]
    signal, noise = np.array([*shares, (1.0, 0.0)]).T
    return Noising(begin, signal, noise)


def check_changes(scheduler: Any, steps: int, begin: int = 0) -> None:
    """SchedulerError if a scheduler's updates do not hold for latents that are changed between its steps.

    Such methods keep what their step returned, and take it for the latent that they are given next.
    """
    ready = with_timesteps(scheduler, steps)
    begin_at(ready, begin)
    updates = read_updates(ready, begin, stochastic=True)
    still = copy.deepcopy(ready)  # takes zeros: what it returns is the scheduler's random noise
    rng = np.random.default_rng(0)
    samples: list[Array] = []
    predictions: list[Array] = []
    for update, timestep in zip(updates, ready.timesteps[begin:], strict=True):
        samples, predictions = [rng.normal(size=PROBE), *samples], [rng.normal(size=PROBE), *predictions]
        added = _step(still, timestep, np.zeros(PROBE), np.zeros(PROBE))
        found = _step(ready, timestep, samples[0], predictions[0]) - added
        terms = list(update.terms(samples, predictions))
        if not float(np.abs(found - sum(terms)).max()) <= TOLERANCE * sum(float(np.abs(x).max()) for x in terms):
            raise SchedulerError(
                f"{type(scheduler).__name__} takes for its latent what its step before returned, but a mask changes "
                "latents between steps; use ddim or euler, or leave the mask out"
            )


def _step(scheduler: Any, timestep: Any, sample: Array, prediction: Array) -> Array:
    """One step of the scheduler, its noise the same at every call."""
    x, v = torch.from_numpy(sample), torch.from_numpy(prediction)
    getattr(scheduler, "scale_model_input", lambda x, _: x)(x, timestep)  # some keep count in it
    with seeded(0):
        result = scheduler.step(v, timestep, x, return_dict=False)[0]
    return np.asarray(result.double().numpy())
