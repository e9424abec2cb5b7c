"""`predictions`: the picture from noise predictions that are sent in plaintext, as HE-Diffusion was published."""

from __future__ import annotations

import numpy as np
import torch

from hefw.audit.attacker import Attacker, Guess
from hefw.audit.attacks import network
from hefw.audit.attacks.inversion import search
from hefw.audit.trajectories import Array
from hefw.audit.view import View
from hefw.hookspecs import Options


class Predictions:
    """Least squares over all predictions of an entry, then the x_T from which the model makes these predictions.

    The scheduler's updates are linear and public, so that x_0 = F x_T + sum_k A_k eps_k with x_T alone unknown. Each
    eps_k is nearly a combination of x_T and x_0 in turn, by coefficients that depend on the step and on the kind of
    prediction. One regression over runs of the attacker's own finds the best combination of all of them, for every
    scheduler and prediction type. Where the network can be run, gradient descent from there on makes it exact.
    """

    reference = "the arithmetic of HE-Diffusion's update (arXiv 2403.05794); own derivation"

    def __init__(self, options: Options) -> None: ...

    def refusal(self, view: View, attacker: Attacker) -> str | None:
        if not attacker.rules.predictions:
            return "noise predictions are not shown in plaintext"
        return None

    def guess(self, view: View, attacker: Attacker, rng: np.random.Generator) -> Guess:
        own = attacker.own
        if network.refusal(attacker) or view.random:
            final = view.latents[-1]
            return Guess(np.where(np.isfinite(final), final, _regress(own.predictions, own.final, view.predictions)))
        start = _regress(own.predictions, own.latents[0], view.predictions)
        return search(view, attacker, torch.from_numpy(start.astype(np.float32)), rng)


def _regress(given: Array, wanted: Array, new: Array) -> Array:
    """Least squares from predictions (steps, images, ...) to latents (images, ...), alike for every entry."""
    rows = np.concatenate([given.reshape(len(given), -1), np.ones((1, wanted.size))])
    weights = np.linalg.lstsq(rows @ rows.T, rows @ wanted.ravel(), rcond=None)[0]
    return np.asarray(np.tensordot(weights[:-1], new, axes=1) + weights[-1])
