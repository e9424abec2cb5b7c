"""What a server sees of runs in plaintext, and what follows from it by the scheduler's public arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hefw.audit.trajectories import Trajectories
from hefw.models.schedules import LinearUpdate
from hefw.protocol.parts import rounded
from hefw.strategies.base import Strategy

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Rules:
    """What a protocol shows besides the masks and the entries of x_t that a strategy does not select.

    Attributes:
        rounded: shown entries are rounded to 8 bits, since they come from a decryption (`end-to-end`).
        updates: the server is given the predictions of shown entries and computes their update in the clear
            (`update-only`).
        predictions: every entry of every prediction is shown (`update-only` as published).
        every: steps between two messages; nothing of the latents between them is shown.
    """

    rounded: bool = False
    updates: bool = False
    predictions: bool = False
    every: int = 1


@dataclass(frozen=True, eq=False)
class View:
    """What the server knows of some images.

    The final latent is never sent. In `update-only` the server computes those entries of it that it updates in the
    clear.

    Attributes:
        updates: the scheduler's, one a step; public.
        masks: (steps, images, channels, height, width), True where an entry is encrypted.
        latents: (steps + 1, images, channels, height, width): entries of x_T .. x_0 that were shown or that follow by
            the updates' arithmetic from what was shown; nan elsewhere.
        predictions: (steps, images, channels, height, width): likewise.
    """

    updates: tuple[LinearUpdate, ...]
    masks: Mask
    latents: Array
    predictions: Array

    def __len__(self) -> int:
        return int(self.latents.shape[1])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of a latent."""
        channels, height, width = self.latents.shape[2:]
        return channels, height, width

    @property
    def random(self) -> bool:
        """Whether the scheduler adds random noise that the server does not know where an entry is encrypted."""
        return any(update.noise for update in self.updates)

    @property
    def latest(self) -> Array:
        """(images, channels, height, width): the entries known of the latest latent of which any is, per image."""
        found = np.full(self.latents.shape[1:], np.nan)
        for latent in self.latents:
            some = np.isfinite(latent).any(axis=(1, 2, 3))
            found[some] = latent[some]
        return found


def look(runs: Trajectories, strategy: Strategy, updates: Sequence[LinearUpdate], rules: Rules) -> View:
    """What the server knows of runs under a strategy and a protocol, which change nothing in the runs themselves."""
    masks = np.ones(runs.predictions.shape, dtype=np.bool_)
    latents = np.full_like(runs.latents, np.nan)
    for step in range(0, len(updates), rules.every):
        for image, latent in enumerate(runs.latents[step]):
            mask = strategy.select(latent)
            masks[step, image] = mask
            # an image at a time, the finest: a message of several may be coarser
            shown = rounded(latent, mask)[0] if rules.rounded else latent
            latents[step, image] = np.where(mask, np.nan, shown)
    predictions = np.full_like(runs.predictions, np.nan)
    if rules.updates:
        predictions = runs.predictions if rules.predictions else np.where(masks, np.nan, runs.predictions)
        _follow(latents, predictions, masks, runs, updates)
    return View(tuple(updates), masks, latents, predictions)


def _follow(
    latents: Array, predictions: Array, masks: Mask, runs: Trajectories, updates: Sequence[LinearUpdate]
) -> None:
    """Fill in the entries of latents that the updates give: each from those before it, then from the one after it.

    An entry follows where all others of its update are known, random noise included, which the key holder gives in the
    clear where the latent is.
    """
    for step, update in enumerate(updates):
        noise = ~masks[step] if update.noise else np.ones_like(masks[step])
        known = np.isfinite(_sum(latents, predictions, update, step)) & noise
        latents[step + 1] = np.where(known, runs.latents[step + 1], latents[step + 1])
    for step, update in reversed(list(enumerate(updates))):
        if update.noise or not update.sample:
            continue
        others = latents.copy()
        others[step] = np.where(np.isfinite(latents[step]), latents[step], 0.0)
        known = np.isfinite(_sum(others, predictions, update, step)) & np.isfinite(latents[step + 1])
        latents[step] = np.where(known, runs.latents[step], latents[step])


def _sum(latents: Array, predictions: Array, update: LinearUpdate, step: int) -> Array:
    """x_{t-1} without noise by the update of a step; nan where something is not known."""
    total = np.zeros_like(latents[step])
    for back, factor in enumerate((update.sample, *update.earlier_samples)):
        total += factor * latents[step - back] if factor else 0.0
    for back, factor in enumerate(update.predictions):
        total += factor * predictions[step - back] if factor else 0.0
    return np.asarray(total)
