"""`zero_fill` and `mean_fill`: the entries that were shown last, and one value for all others."""

from __future__ import annotations

import numpy as np

from hefw.audit.attacker import Attacker, Guess
from hefw.audit.trajectories import Array
from hefw.audit.view import View
from hefw.hookspecs import Options


class ZeroFill:
    """What was not shown is taken for 0, the middle of a latent's range."""

    reference = "the least that any server can do"

    def __init__(self, options: Options) -> None: ...

    def refusal(self, view: View, attacker: Attacker) -> str | None:
        return None

    def guess(self, view: View, attacker: Attacker, rng: np.random.Generator) -> Guess:
        return Guess(np.nan_to_num(view.latest))


class MeanFill(ZeroFill):
    """What was not shown is taken for the mean of what was, in each image."""

    def guess(self, view: View, attacker: Attacker, rng: np.random.Generator) -> Guess:
        latest = view.latest
        return Guess(np.where(np.isfinite(latest), latest, means(latest)))


def means(latents: Array) -> Array:
    """The mean of the entries of each image that are not nan, (images, 1, 1, 1); 0 where there are none."""
    known = np.isfinite(latents)
    axes = (1, 2, 3)
    total = np.where(known, latents, 0.0).sum(axes, keepdims=True)
    return np.asarray(total / np.maximum(known.sum(axes, keepdims=True), 1))
