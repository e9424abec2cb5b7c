"""Short distillation: the converted network learns to predict what the original does, on the way it will be used."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from hefw.models.convert.converted import Converted
from hefw.models.convert.states import Predict, Sampler, States, join
from hefw.models.training import Progress, Recipe, fit, one_thread, range_penalty

#: When the copy's own trajectories join, as shares of the training.
OWN_TRAJECTORIES = (0.5, 0.65, 0.8)
#: Samples that are further out than this, beside the largest of the original's, teach nothing.
DIVERGED = 2.0
STRANGE_EVERY, STRANGE_IMAGES, STRANGE_NOISE = 4, 16, 1.5


@dataclass(frozen=True)
class Distillation:
    """How a converted network is trained.

    Attributes:
        iterations: optimiser steps; 0 for none.
        learning_rate: of AdamW, at its peak.
        batch: states a step.
        images: trajectories of the original to learn from, and as many noised final samples a timestep.
        own_images: trajectories of the copy's own, each time.
        ramp: share of the training over which polynomials take over from the activations.
        limit: what polynomials read is penalised beyond this.
        penalty: weight of that.
    """

    iterations: int = 1_500
    learning_rate: float = 8e-4
    batch: int = 64
    images: int = 1_000
    own_images: int = 300
    ramp: float = 0.3
    limit: float = 4.0
    penalty: float = 0.05


def distil(
    network: Converted,
    original: Predict,
    sampler: Sampler,
    how: Distillation,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Converted:
    """The trained network: moving average of the weights. The same for the same arguments, on one kind of machine."""
    generator = torch.Generator().manual_seed(seed)
    network = network.to(memory_format=torch.channels_last)  # faster on a processor
    own, final = sampler.trajectories(original, how.images, generator)
    parts = [own]
    many = final.repeat(math.ceil(len(own) / len(final)), *[1] * (final.dim() - 1))[: len(own)]
    noised = sampler.noised(original, many, sampler.labels(len(many)), generator)
    parts += [] if noised is None else [noised]
    states = join(parts)
    largest = DIVERGED * float(own.samples.abs().max())
    timesteps = sampler.timesteps()
    due = [math.ceil(share * how.iterations) for share in OWN_TRAJECTORIES]

    def loss(copy: Converted, iteration: int, generator: torch.Generator) -> torch.Tensor:
        nonlocal states
        if iteration in due:
            states = join([states, _own(copy, original, sampler, how, largest, generator)])
        copy.blend = min(1.0, iteration / (how.ramp * how.iterations)) if how.ramp else 1.0
        batch = states[torch.randint(len(states), (how.batch,), generator=generator)]
        found, penalty = _penalised(copy, batch.samples, batch.timesteps, batch.labels, how.limit)
        total = functional.mse_loss(found, batch.predictions) + how.penalty * penalty
        if iteration % STRANGE_EVERY == 0:
            strange = STRANGE_NOISE * torch.randn((STRANGE_IMAGES, *sampler.shape), generator=generator)
            t = timesteps[torch.randint(len(timesteps), (STRANGE_IMAGES,), generator=generator)]
            _, penalty = _penalised(copy, strange, t, sampler.labels(STRANGE_IMAGES), how.limit)
            total = total + how.penalty * penalty
        return total

    recipe = Recipe(how.iterations, how.learning_rate, warm_up=50, average_decay=0.99)
    with one_thread():
        trained: Converted = fit(network, loss, recipe, seed=seed, progress=progress, what="distillation: loss")
    trained.blend = 1.0
    trained.to(memory_format=torch.contiguous_format)
    return trained


def _penalised(
    copy: Converted, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor | None, limit: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The prediction, and how far beyond the limit polynomials read."""
    copy.read = []
    found = copy(x, t, y).sample
    read, copy.read = copy.read, None
    return found, range_penalty(read, limit) if read else found.new_zeros(())


def _own(
    copy: Converted, original: Predict, sampler: Sampler, how: Distillation, largest: float, generator: torch.Generator
) -> States:
    """States of the copy's own trajectories, with the original's predictions; those that diverged are left out."""
    copy.eval()
    copy.blend = 1.0
    own: States = sampler.trajectories(lambda x, t, y: copy(x, t, y).sample, how.own_images, generator, original)[0]
    copy.train()
    return own[own.samples.flatten(1).abs().amax(1) <= largest]
