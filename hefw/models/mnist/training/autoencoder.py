"""Training of the autoencoder."""

from __future__ import annotations

import torch
from torch.nn import functional

from hefw.models.mnist.autoencoder import Autoencoder
from hefw.models.mnist.data import Pictures
from hefw.models.training import Progress, Recipe, fit, one_thread, seeded

RECIPE = Recipe(iterations=2_200, learning_rate=2e-3)
BATCH = 32
#: Largest deviation of the noise on latents: a decoder that bears it bears what a denoiser leaves.
NOISE = 0.4
#: Latents beyond this are penalised: a narrow range is one that quadratics bear.
LIMIT = 2.5


def train_autoencoder(
    pictures: Pictures, recipe: Recipe = RECIPE, *, seed: int = 0, progress: Progress | None = None
) -> Autoencoder:
    """An autoencoder of these pictures, in eval mode; the same for the same arguments."""

    def loss(autoencoder: Autoencoder, iteration: int, generator: torch.Generator) -> torch.Tensor:
        images = pictures.images[torch.randint(len(pictures), (BATCH,), generator=generator)]
        latents = autoencoder.encode(images)
        deviation = NOISE * torch.rand(BATCH, 1, 1, 1, generator=generator)
        noisy = latents + deviation * torch.randn(latents.shape, generator=generator)
        penalty = functional.relu(latents.abs() - LIMIT).square().mean()
        return reconstruction_loss(autoencoder.decode(noisy), images) + 0.05 * penalty

    def train() -> Autoencoder:
        autoencoder: Autoencoder = Autoencoder()
        fit(autoencoder, loss, recipe, seed=seed, progress=progress, what="autoencoder: loss")
        autoencoder.eval()
        return autoencoder  # not the average: the statistics of the latents belong to these weights

    with one_thread():
        trained: Autoencoder = seeded(seed, train)
    return trained


def reconstruction_loss(drawn: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Cross-entropy and absolute error of pixels taken as grey values from 0 to 1."""
    grey, wanted = (drawn + 1) / 2, (images + 1) / 2
    cross_entropy = functional.binary_cross_entropy(grey.clamp(1e-4, 1 - 1e-4), wanted)
    return cross_entropy + 2 * functional.l1_loss(grey, wanted)
