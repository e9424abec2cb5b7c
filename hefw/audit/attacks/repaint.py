"""`repaint`: inpainting by the model's own prior, known entries held fast at every step."""

from __future__ import annotations

import numpy as np
import torch

from hefw.audit.attacker import Attacker, Guess
from hefw.audit.attacks.network import BATCH, Known, choose, generator, refusal
from hefw.audit.view import View
from hefw.hookspecs import Options

DRAWS = 4


class Repaint:
    """Samples the model from fresh noise and puts the shown entries in at every step of the same schedule.

    RePaint noises the known part of a picture to each step's level. Here it is not needed: the server was shown the
    entries of that very step. The label is the one whose runs come closest to what is shown, over some draws; the guess
    is the mean of these draws, since a mean has the smaller square error.
    """

    reference = "Lugmayr et al. 2022, RePaint, section 4.1"

    def __init__(self, options: Options) -> None: ...

    def refusal(self, view: View, attacker: Attacker) -> str | None:
        return refusal(attacker)

    def guess(self, view: View, attacker: Attacker, rng: np.random.Generator) -> Guess:
        assert attacker.denoiser is not None
        labels, images = attacker.labels, len(view)
        random = generator(rng)
        scale = float(attacker.latent_scale[0])
        start = scale * torch.randn((DRAWS, images, *view.shape), generator=random)

        def noise(step: int, shape: tuple[int, ...]) -> torch.Tensor:
            return float(attacker.noise_scale[step]) * torch.randn(shape, generator=random)

        found = np.empty((labels, DRAWS, images, *view.shape))
        miss = np.empty((labels, DRAWS, images))
        with torch.no_grad():
            for label, draw in np.ndindex(labels, DRAWS):
                for first in range(0, images, BATCH):
                    part = np.arange(first, min(first + BATCH, images))
                    y = torch.full((len(part),), label)
                    final, missed = Known.of(view, attacker, part).run(attacker.denoiser, start[draw, part], y, noise)
                    found[label, draw, part], miss[label, draw, part] = final.numpy(), missed.numpy()
        best = choose(miss.sum(axis=1), 1, rng)[0]
        return Guess(found[best, :, np.arange(images)].mean(axis=1), best)
