"""The network that `digits-silu` was converted from: diffusers' UNet as it comes, trained as anyone would."""

from __future__ import annotations

import torch
from diffusers import UNet2DModel
from torch.nn import functional

from hefw.models.digits.train import load_images, make_scheduler
from hefw.models.training import Progress, Recipe, fit, one_thread, seeded

ITERATIONS = 2_600
BATCH = 80
LEARNING_RATE = 1.5e-3


def make_unet() -> UNet2DModel:
    """Two resolutions, SiLU and group normalisation, ten labels: 0.64 M weights."""
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        num_class_embeds=10,
    )


def train(iterations: int = ITERATIONS, *, seed: int = 0, progress: Progress | None = None) -> UNet2DModel:
    """v-prediction (Salimans and Ho 2022) on scikit-learn's digits; the same weights for the same arguments."""
    scheduler = make_scheduler()
    images, labels = load_images()
    timesteps = scheduler.config.num_train_timesteps

    def loss(unet: UNet2DModel, iteration: int, generator: torch.Generator) -> torch.Tensor:
        pick = torch.randint(len(images), (BATCH,), generator=generator)
        # stratified timesteps: less variance than independent ones
        t = ((torch.arange(BATCH) + torch.rand(BATCH, generator=generator)) * (timesteps / BATCH)).long()
        t = t.clamp(max=timesteps - 1)
        noise = torch.randn((BATCH, *images.shape[1:]), generator=generator)
        noisy = scheduler.add_noise(images[pick], noise, t)
        prediction = unet(noisy, t, labels[pick]).sample
        return functional.mse_loss(prediction, scheduler.get_velocity(images[pick], noise, t))

    with one_thread():
        unet = seeded(seed, make_unet).to(memory_format=torch.channels_last)  # a sixth faster on a processor
        recipe = Recipe(iterations, LEARNING_RATE, weight_decay=1e-3, average_decay=0.995)
        trained: UNet2DModel = fit(unet, loss, recipe, seed=seed, progress=progress, what="original: loss")
    return trained.to(memory_format=torch.contiguous_format)
