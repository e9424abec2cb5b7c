"""`template`: what masks and shown entries tell, learnt from the attacker's own runs."""

from __future__ import annotations

import numpy as np

from hefw.audit.attacker import Attacker, Guess
from hefw.audit.trajectories import Array
from hefw.audit.view import View
from hefw.hookspecs import Options

#: Numbers of a view that a regression over a few thousand runs can take.
MOST = 4096
FEWEST_RUNS = 100
RIDGES = (10.0, 30.0, 100.0, 300.0, 1000.0)
HELD_OUT = 0.2


class Template:
    """Ridge regression from masks and shown entries of all steps to the picture and to the label.

    The server has the model and knows the strategy, so it draws as many pictures as it likes and sees what each of them
    would show. Masks count as data: where they depend on the picture, they tell of it though no entry is shown.
    """

    reference = "Chari, Rao and Rohatgi 2002, Template attacks; here by ridge regression"

    def __init__(self, options: Options) -> None: ...

    def refusal(self, view: View, attacker: Attacker) -> str | None:
        numbers = view.latents[:, 0].size + view.masks[:, 0].size
        if numbers > MOST:
            return f"a view of {numbers:,} numbers an image is too much to learn from a few runs; at most {MOST:,}"
        if len(attacker.own) < FEWEST_RUNS:
            return f"{len(attacker.own)} runs of the attacker's own are too few to learn from; at least {FEWEST_RUNS}"
        return None

    def guess(self, view: View, attacker: Attacker, rng: np.random.Generator) -> Guess:
        own = attacker.own
        given, new = _numbers(attacker.own_view, attacker), _numbers(view, attacker)
        wanted = own.final.reshape(len(own), -1)
        if own.labels is not None:
            wanted = np.concatenate([wanted, np.eye(attacker.labels)[own.labels]], axis=1)
        varied = given.std(axis=0) > 0
        found = _regress(given[:, varied], wanted, new[:, varied])
        entries = own.final[0].size
        latents = found[:, :entries].reshape(-1, *view.shape)
        if own.labels is None:
            return Guess(latents)
        scores = found[:, entries:]
        return Guess(latents, (scores + 1e-9 * rng.random(scores.shape)).argmax(axis=1))


def _numbers(view: View, attacker: Attacker) -> Array:
    """Everything that a view shows of each image, (images, numbers), with 0 where nothing is known."""
    latents = view.latents / attacker.latent_scale[:, None, None, None, None]
    parts = (view.masks.astype(np.float64), np.nan_to_num(latents), np.nan_to_num(view.predictions))
    return np.concatenate([np.moveaxis(part, 1, 0).reshape(len(view), -1) for part in parts], axis=1)


def _regress(given: Array, wanted: Array, new: Array) -> Array:
    """Ridge regression (images, numbers) -> (images, targets), its weight chosen on runs that are held out."""
    kept = len(given) - max(1, int(HELD_OUT * len(given)))
    trial, rest = slice(0, kept), slice(kept, None)
    errors = [
        float(np.square(_solve(given[trial], wanted[trial], given[rest], ridge) - wanted[rest]).sum())
        for ridge in RIDGES
    ]
    return _solve(given, wanted, new, RIDGES[int(np.argmin(errors))])


def _solve(given: Array, wanted: Array, new: Array, ridge: float) -> Array:
    middle, level = given.mean(axis=0), wanted.mean(axis=0)
    centred = given - middle
    normal = centred.T @ centred + ridge * np.eye(given.shape[1])
    return np.asarray((new - middle) @ np.linalg.solve(normal, centred.T @ (wanted - level)) + level)
