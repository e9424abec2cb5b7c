"""Training of the text encoder and the denoiser of `mnist-text`, together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from hefw.models.mnist.autoencoder import Autoencoder, encode
from hefw.models.mnist.data import Pictures
from hefw.models.mnist.schedule import TIMESTEPS, make_scheduler
from hefw.models.mnist.text import strokes
from hefw.models.mnist.text.captions import Caption, classes, numbers, phrase
from hefw.models.mnist.text.encoder import TextEncoder
from hefw.models.mnist.text.unet import TextUNet
from hefw.models.mnist.training.denoiser import LARGEST_PREDICTION, Latents, draw
from hefw.models.training import Progress, Recipe, fit, one_thread, range_penalty, seeded

BATCH = 128
#: Share of training pictures whose prompt is hidden: guidance needs a prediction for none.
HIDDEN = 0.1
#: Share of prompts that leave out the stroke width, and of those that leave out the slant.
UNSAID = 0.25
#: Different prompts of one caption that training draws from.
PHRASES = 24


class Prompted(nn.Module):  # type: ignore[misc]
    """A text encoder and the denoiser that it conditions, trained as one network."""

    def __init__(self, encoder: TextEncoder, unet: TextUNet) -> None:
        super().__init__()
        self.encoder, self.unet = encoder, unet


def caption(pictures: Pictures, seed: int) -> torch.Tensor:
    """Prompts of pictures as numbers of words (pictures, PHRASES, longest), by their measured strokes."""
    images, labels = pictures.images.double().numpy(), pictures.labels.numpy()
    width, slant = classes(strokes.widths(images), labels), classes(strokes.slants(images), labels)
    rng = np.random.default_rng(seed)

    def say(picture: int) -> list[int]:
        said = Caption(
            int(labels[picture]),
            None if rng.random() < UNSAID else int(width[picture]),
            None if rng.random() < UNSAID else int(slant[picture]),
        )
        return numbers(phrase(said, rng))

    return torch.tensor([[say(picture) for _ in range(PHRASES)] for picture in range(len(pictures))])


def train_prompted(
    pictures: Pictures,
    autoencoder: Autoencoder,
    config: dict[str, Any],
    recipe: Recipe,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Prompted:
    """Encoder and denoiser of an autoencoder's latents; `config` is of `TextUNet`. The same for the same arguments."""
    scheduler = make_scheduler()
    with one_thread():
        words = caption(pictures, seed)
        # the place in the list takes the label's place in a batch
        latents = Latents(encode(autoencoder, pictures.images), torch.arange(len(pictures)))

        def loss(network: Prompted, iteration: int, generator: torch.Generator) -> torch.Tensor:
            batch = draw(latents, scheduler, generator, BATCH)
            said = words[batch.labels, torch.randint(PHRASES, (BATCH,), generator=generator)]
            shown = (torch.rand(BATCH, 1, generator=generator) >= HIDDEN).float()
            condition = shown * network.encoder(said)
            v, z = network.unet.forward_with_preactivations(batch.noisy, batch.timesteps, condition)
            error = functional.mse_loss(v, batch.v)
            total = error + 0.05 * range_penalty(z)
            if iteration % 3:
                return total
            few = batch.noisy[::5] * (1 + torch.rand(len(batch.noisy[::5]), 1, 1, 1, generator=generator))
            wild = 1.7 * torch.randn(16, *batch.noisy.shape[1:], generator=generator)
            strange = torch.cat([wild, few + 0.3 * torch.randn(few.shape, generator=generator)])
            any_time = torch.cat([torch.randint(TIMESTEPS, (len(wild),), generator=generator), batch.timesteps[::5]])
            v, z = network.unet.forward_with_preactivations(strange, any_time, condition[-len(strange) :])
            excess = functional.relu(v.abs() - LARGEST_PREDICTION).square().mean()
            return total + 0.15 * range_penalty(z) + 0.01 * excess

        channels, size, _ = autoencoder.latent_shape
        shape = {"sample_channels": channels, "sample_size": size}
        network = seeded(seed, lambda: Prompted(TextEncoder(), TextUNet(**{**shape, **config})))
        trained: Prompted = fit(network, loss, recipe, seed=seed, progress=progress, what="denoiser: loss")
        return trained
