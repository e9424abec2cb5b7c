"""`inversion`: the x_T and the label from which the model reproduces everything that was shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hefw.audit.attacker import Attacker, Guess
from hefw.audit.attacks.network import BATCH, Known, choose, generator, refusal
from hefw.audit.view import View
from hefw.hookspecs import Options

#: Iterations for every label, how many labels are kept then, and iterations for those.
FIRST, KEPT, SECOND = 15, 2, 40
RATE = 0.2
#: Adam forgets fast here: there are few iterations, and no noise in the gradient.
BETAS = (0.8, 0.95)
#: Weight of |x_T|^2, the negative logarithm of its prior density: it decides what the shown entries leave open.
PRIOR = 3e-3
START = 0.1


class Inversion:
    """Gradient descent on x_T through all steps of the sampler, so that the run agrees with what is shown.

    A deterministic scheduler makes every latent a function of x_T and the label. So each step that shows some entries
    adds equations for the same few unknowns, and shares that are harmless once are not at every step.
    """

    reference = "Ben-Hamu et al. 2024, D-Flow, section 3; for a known trajectory"

    def __init__(self, options: Options) -> None: ...

    def refusal(self, view: View, attacker: Attacker) -> str | None:
        if view.random:
            return "the scheduler adds noise at every step, so that x_T does not determine the picture"
        return refusal(attacker)

    def guess(self, view: View, attacker: Attacker, rng: np.random.Generator) -> Guess:
        start = torch.randn((len(view), *view.shape), generator=generator(rng))
        return search(view, attacker, START * float(attacker.latent_scale[0]) * start, rng)


def search(view: View, attacker: Attacker, start: torch.Tensor, rng: np.random.Generator) -> Guess:
    """The best of all labels, from x_T `start` (images, channels, height, width) on; the hopeful ones longer."""
    everyone = np.arange(len(view))
    labels = np.tile(np.arange(attacker.labels)[:, None], len(view))
    first = reproduce(view, attacker, labels, start[None], FIRST)
    kept = choose(first.miss, KEPT, rng)
    second = reproduce(view, attacker, kept, first.start[kept, everyone], SECOND)
    best = choose(second.miss, 1, rng)[0]
    return Guess(second.final[best, everyone].numpy().astype(np.float64), kept[best, everyone])


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs that were fitted: (candidates, images, ...) each."""

    start: torch.Tensor  # x_T
    final: torch.Tensor
    miss: NDArray[np.float64]  # (candidates, images)


def reproduce(view: View, attacker: Attacker, labels: NDArray[np.int64], start: torch.Tensor, iterations: int) -> Runs:
    """Fit x_T to a view, for several candidate labels an image, (candidates, images).

    `start` is (candidates or 1, images, channels, height, width).
    """
    candidates, images = labels.shape
    deviation = float(attacker.latent_scale[0])
    x_T = start.expand(candidates, -1, -1, -1, -1).flatten(0, 1).clone()
    final = torch.empty_like(x_T)
    miss = np.empty(len(x_T))
    y, source = torch.from_numpy(labels.ravel()), np.tile(np.arange(images), candidates)
    for begin in range(0, len(x_T), BATCH):
        part = slice(begin, begin + BATCH)
        known = Known.of(view, attacker, source[part])
        x_T[part], final[part], missed = _fit(known, attacker, x_T[part], y[part], iterations, deviation)
        miss[part] = missed.numpy()
    shape = (candidates, images)
    return Runs(x_T.unflatten(0, shape), final.unflatten(0, shape), miss.reshape(shape))


def _fit(
    known: Known, attacker: Attacker, start: torch.Tensor, labels: torch.Tensor, iterations: int, deviation: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    assert attacker.denoiser is not None
    x_T = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([x_T], RATE * deviation, betas=BETAS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations, 0.03 * RATE * deviation)
    for _ in range(iterations):
        _, miss = known.run(attacker.denoiser, x_T, labels)
        prior = PRIOR * (x_T / deviation).square().flatten(1).sum(1)
        optimizer.zero_grad()
        # a run that diverges must not spoil the others: images do not meet in the sum, but nan would stay
        (miss + prior).sum().backward()
        assert x_T.grad is not None
        x_T.grad.nan_to_num_()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        final, miss = known.run(attacker.denoiser, x_T, labels)
    return x_T.detach(), final, miss
