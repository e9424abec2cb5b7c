"""Training of the built-in `digits` model on scikit-learn's 8x8 digits: one core, minutes, reproducible."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import DDIMScheduler
from torch.nn import functional

from hefw.core.errors import ConfigError
from hefw.models.digits.unet import DigitsUNet, LabelledUNet
from hefw.models.training import Progress, Recipe, fit, load_network, one_thread, range_penalty, save, seeded

Network = TypeVar("Network", bound=LabelledUNet)

DEFAULT_ITERATIONS = 26_000
BATCH = 128
LEARNING_RATE = 6e-3
BUNDLED = Path(__file__).parent / "weights" / "digits"


def load_images() -> tuple[torch.Tensor, torch.Tensor]:
    """scikit-learn's 1,797 digits.

    Returns:
        images (1797, 1, 8, 8), float32 in [-1, 1] (grey values 0..16 divided by 8, minus 1), and labels (1797,), int64.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    return torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1, torch.tensor(digits.target)


def make_scheduler() -> DDIMScheduler:
    """The scheduler that the model is trained for: cosine betas, v-prediction, linear in sample and prediction."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        thresholding=False,
        set_alpha_to_one=True,
    )


def load(folder: str | Path = BUNDLED) -> tuple[DigitsUNet, DDIMScheduler]:
    """The model (float32, eval mode) and scheduler that `run` wrote; by default the bundled ones.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    return load_as(DigitsUNet, folder)


def load_as(kind: type[Network], folder: str | Path) -> tuple[Network, DDIMScheduler]:
    """The network of a class (float32, eval mode) and scheduler of a folder; FileNotFoundError if it is not there."""
    return load_network(kind, folder), DDIMScheduler.from_pretrained(str(folder))


def no_data(model: str, data: Path | None) -> None:
    """ConfigError if a folder of training data is given to a model of scikit-learn's digits."""
    if data is not None:
        raise ConfigError(f"--data {str(data)!r}: model {model!r} is trained on scikit-learn's digits; leave it out")


@dataclass(frozen=True)
class DigitsTraining:
    """How a network on the digits is trained; for `hefw train`, a `hefw.models.training.Training`.

    `train(iterations, seed=, progress=)` gives the network.
    """

    name: str
    iterations: int
    train: Callable[..., LabelledUNet]

    def __call__(
        self,
        out: Path,
        *,
        seed: int = 0,
        iterations: int | None = None,
        data: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Train and write network and scheduler to `out`."""
        no_data(self.name, data)
        network = self.train(self.iterations if iterations is None else iterations, seed=seed, progress=progress)
        save(out, network, make_scheduler())


def train(
    iterations: int = DEFAULT_ITERATIONS,
    *,
    seed: int = 0,
    minutes: float | None = None,
    progress: Progress | None = None,
    channels: int = 32,
) -> DigitsUNet:
    """Train a `DigitsUNet`; the result depends on iterations, seed and channels only (same torch and machine type).

    Args:
        iterations: number of optimiser steps; the learning rate decays over them.
        seed: seeds weights, batches and noise.
        minutes: stop early after this much wall time. A run cut so does not reproduce.
        progress: called every 100 iterations with (iterations done, iterations in all, mean loss since then).
        channels: width of the network.

    Returns:
        the moving average of the weights, in eval mode.
    """
    trained: DigitsUNet = train_network(
        lambda: DigitsUNet(channels=channels),
        iterations,
        learning_rate=LEARNING_RATE,
        seed=seed,
        minutes=minutes,
        progress=progress,
    )
    return trained


def train_network(
    make: Callable[[], Network],
    iterations: int,
    *,
    learning_rate: float,
    seed: int,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> Network:
    """Train any such network on the digits, as `train` does; `make` may draw its weights from torch's generator."""
    if iterations < 1:
        raise ValueError(f"iterations={iterations}: expected at least 1")
    scheduler = make_scheduler()
    images, labels = load_images()
    until = math.inf if minutes is None else time.monotonic() + 60 * minutes

    def loss(network: LabelledUNet, iteration: int, generator: torch.Generator) -> torch.Tensor:
        return _loss(network, scheduler, images, labels, iteration, generator)

    with one_thread():
        recipe = Recipe(iterations, learning_rate)
        return fit(
            seeded(seed, make), loss, recipe, seed=seed, progress=progress, go_on=lambda: time.monotonic() < until
        )


def _loss(
    model: LabelledUNet,
    scheduler: DDIMScheduler,
    images: torch.Tensor,
    labels: torch.Tensor,
    iteration: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """The v-prediction loss of one random batch and the weighted range penalties."""
    steps = scheduler.config.num_train_timesteps
    pick = torch.randint(len(images), (BATCH,), generator=generator)
    clean, y = images[pick], labels[pick]
    # stratified timesteps: less variance than independent ones
    t = ((torch.arange(BATCH) + torch.rand(BATCH, generator=generator)) * (steps / BATCH)).long().clamp(max=steps - 1)
    noise = torch.randn(clean.shape, generator=generator)
    noisy = scheduler.add_noise(clean, noise, t)
    target = scheduler.get_velocity(clean, noise, t)
    # a sampler's states are slightly off the training distribution; some extra noise makes the model forgive that
    extra = (torch.rand(BATCH, 1, 1, 1, generator=generator) < 0.2).float()
    noisy = noisy + 0.1 * extra * torch.randn(clean.shape, generator=generator)
    prediction, z = model.forward_with_preactivations(noisy, t, y)
    loss = functional.mse_loss(prediction, target)
    penalty = 0.05 * range_penalty(z)
    if iteration % 3 == 0:
        few = noisy[::5] * (1 + torch.rand(len(noisy[::5]), 1, 1, 1, generator=generator))
        strange = torch.cat(
            [
                1.7 * torch.randn(16, *clean.shape[1:], generator=generator),
                few + 0.3 * torch.randn(few.shape, generator=generator),
            ]
        )
        any_t = torch.cat([torch.randint(steps, (16,), generator=generator), t[::5]])
        any_y = torch.randint(model.config.num_classes, (len(strange),), generator=generator)
        prediction, z = model.forward_with_preactivations(strange, any_t, any_y)
        excess = functional.relu(prediction.abs() - 5).square().mean()
        penalty = penalty + 0.15 * range_penalty(z) + 0.01 * excess
    return loss + penalty


run = DigitsTraining("digits", DEFAULT_ITERATIONS, train)
