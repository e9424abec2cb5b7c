"""Subjects small enough for tests: the model `digits`, and runs that are pure arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np

from hefw import plugins
from hefw.audit.attacker import Attacker
from hefw.audit.measure import Ends, Outcome, ends, measure
from hefw.audit.statistics import Bootstrap
from hefw.audit.subject import LabelSubject
from hefw.audit.trajectories import Array, Trajectories
from hefw.audit.view import Rules, View, look
from hefw.models.schedules import LinearUpdate
from hefw.models.training import one_thread
from hefw.strategies.base import Strategy

END_TO_END = Rules(rounded=True)
UPDATE_ONLY = Rules(updates=True)
PUBLISHED = Rules(updates=True, predictions=True)
#: One step back in predictions and in latents, random noise at none of them.
MULTISTEP = [
    LinearUpdate(900.0, 1.0, 0.9, (-0.2,)),
    LinearUpdate(600.0, 1.0, 0.8, (-0.3, 0.1)),
    LinearUpdate(300.0, 1.0, 0.7, (-0.4, 0.2), earlier_samples=(0.1,)),
]
ONE_STEP = [LinearUpdate(900.0, 1.0, 0.9, (-0.2,)), LinearUpdate(600.0, 1.0, 0.8, (-0.3,))]


class Fixed:
    """Selects by masks made beforehand, one a call."""

    packed = False

    def __init__(self, masks: Any) -> None:
        self.masks = [mask for step in masks for mask in step]

    def select(self, latent: Array) -> Any:
        return self.masks.pop(0)


def arithmetic(updates: list[LinearUpdate], images: int = 2, seed: int = 0) -> Trajectories:
    """Runs whose predictions are random numbers, of latents (2, 3, 3)."""
    rng = np.random.default_rng(seed)
    shape = (images, 2, 3, 3)
    predictions = rng.normal(size=(len(updates), *shape))
    latents = [rng.normal(size=shape)]
    for step, update in enumerate(updates):
        noise = rng.normal(size=shape) if update.noise else 0.0
        latents.append(np.sum(list(update.terms(latents[::-1], predictions[step::-1])), axis=0) + noise)
    return Trajectories(np.stack(latents), predictions)


def strategy(name: str, **options: Any) -> Strategy:
    registry = plugins.registry()
    made: Strategy = registry.load("strategy", name)(registry.entry("strategy", name).options(**options))
    return made


def digits(steps: int = 5, seed: int = 0) -> LabelSubject:
    registry = plugins.registry()
    model = registry.load("model", "digits")(registry.entry("model", "digits").options())
    kind = registry.load("scheduler", "ddim")
    return LabelSubject(model, lambda: model.scheduler(kind, {}), steps, seed)


def attack_one(
    subject: LabelSubject, name: str, chosen: Strategy, rules: Rules, images: int = 20, own: int = 200
) -> tuple[Outcome, Ends, View, Trajectories]:
    """One attack on pictures of a subject under a strategy and rules."""
    attack = plugins.registry().load("attack", name)(None)
    with one_thread():
        runs, theirs = subject.audited(images), subject.own(own)
        view = look(runs, chosen, subject.updates, rules)
        attacker = Attacker(chosen, rules, subject.updates, subject.labels, subject.denoiser, theirs)
        between = ends(subject, runs, theirs, 0)
        (outcome,) = measure(subject, {name: attack}, runs, view, attacker, between, Bootstrap(images, 0), 0)
    return outcome, between, view, runs
