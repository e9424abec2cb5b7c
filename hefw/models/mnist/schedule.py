"""The noise levels that the denoisers of `mnist` are trained for."""

from __future__ import annotations

import math

import torch
from diffusers import DDIMScheduler

TIMESTEPS = 1000
#: Steps grow towards pure noise, where little is decided, by this power.
POWER = 1.5
#: The last timestep keeps a trace of the picture: schedulers that divide by alpha_bar, or take its logarithm, work too.
LARGEST_ANGLE = math.pi / 2 - 1e-3


def make_scheduler() -> DDIMScheduler:
    """DDIM for v-prediction, linear in sample and prediction, by angles close to (pi/2) (1 - (1 - (t + 1) / 1000)^1.5).

    cos and sin of the angle are the shares of picture and noise, so that a step from angle a to b is x' = cos(a - b) x
    - sin(a - b) v: no coefficient exceeds 1. n steps with `trailing` spacing are at (pi/2) (1 - (k / n)^1.5).
    """
    shares = torch.arange(1, TIMESTEPS + 1, dtype=torch.float64) / TIMESTEPS
    angles = LARGEST_ANGLE * (1 - (1 - shares) ** POWER)
    kept = angles.cos().square()
    betas = 1 - kept / torch.cat([kept.new_ones(1), kept[:-1]])
    return DDIMScheduler(
        num_train_timesteps=TIMESTEPS,
        trained_betas=[float(beta) for beta in betas],
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        thresholding=False,
        set_alpha_to_one=True,
    )
