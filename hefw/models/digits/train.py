"""Training of the built-in `digits` model on scikit-learn's 8x8 digits: one core, minutes, reproducible."""

from __future__ import annotations

import copy
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from torch.nn import functional

from hefw.models.digits.unet import DigitsUNet

DEFAULT_ITERATIONS = 26_000
BATCH = 128
LEARNING_RATE = 6e-3
WARM_UP = 300
EMA_DECAY = 0.998
BUNDLED = Path(__file__).parent / "weights"
SAFE_RANGE = 3.0

Progress = Callable[[int, float, float], None]


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


def range_penalty(preactivations: list[torch.Tensor], limit: float = SAFE_RANGE) -> torch.Tensor:
    """Penalty on pre-activations outside [-limit, limit]: mean square excess plus each sample's largest square excess.

    Squares have no saturation: once a pre-activation passes about 5, sampling explodes within a few steps. That is
    rare (a few samples in thousands), so the mean alone does not see it and the largest excess counts too.

    Args:
        preactivations: tensors (batch, channels, height, width).
        limit: half-width of the free range.

    Returns:
        a scalar, 0 when all are inside.
    """
    total = preactivations[0].new_zeros(())
    for z in preactivations:
        excess = functional.relu(z.abs() - limit).square()
        total = total + excess.mean() + 0.1 * excess.flatten(1).amax(1).mean()
    return total


def save(model: DigitsUNet, scheduler: DDIMScheduler, folder: Path) -> None:
    """Write model and scheduler (`config.json`, safetensors, `scheduler_config.json`) into folder.

    Each file is written aside and renamed into place, so an interrupted call never leaves half a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as aside:
        model.save_pretrained(aside)
        scheduler.save_pretrained(aside)
        for path in sorted(Path(aside).iterdir()):
            path.chmod(0o644)
            os.replace(path, folder / path.name)


def load(folder: str | Path = BUNDLED) -> tuple[DigitsUNet, DDIMScheduler]:
    """The model (float32, eval mode) and scheduler that `save` wrote; by default the bundled ones.

    Raises:
        FileNotFoundError: there is no such folder. (diffusers would look for the name on the internet.)
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r}: expected what `train(out=...)` or `save` wrote")
    model = DigitsUNet.from_pretrained(str(folder), use_safetensors=True)
    return model.eval(), DDIMScheduler.from_pretrained(str(folder))


def train(
    iterations: int = DEFAULT_ITERATIONS,
    *,
    seed: int = 0,
    minutes: float | None = None,
    progress: Progress | None = None,
    out: str | Path | None = None,
    channels: int = 32,
) -> DigitsUNet:
    """Train a `DigitsUNet`; the result depends on iterations, seed and channels only (same torch and machine type).

    Args:
        iterations: number of optimiser steps; the learning rate decays over them.
        seed: seeds weights, batches and noise.
        minutes: stop early after this much wall time. A run cut so does not reproduce.
        progress: called every 100 iterations with (iterations done, fraction done, mean v-prediction loss since then).
        out: folder to save model and scheduler into when done; nothing is written before, or when interrupted.
        channels: width of the network.

    Returns:
        the moving average of the weights, in eval mode.
    """
    if iterations < 1:
        raise ValueError(f"iterations={iterations}: expected at least 1")
    threads = torch.get_num_threads()
    # with several threads the order of sums, and so the result, depends on the machine
    torch.set_num_threads(1)
    try:
        model = _train(iterations, seed, minutes, progress, channels)
    finally:
        torch.set_num_threads(threads)
    if out is not None:
        save(model, make_scheduler(), Path(out))
    return model


def _train(iterations: int, seed: int, minutes: float | None, progress: Progress | None, channels: int) -> DigitsUNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DigitsUNet(channels=channels)
    generator = torch.Generator().manual_seed(seed)
    scheduler = make_scheduler()
    images, labels = load_images()
    average: DigitsUNet = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    started, losses = time.monotonic(), []
    model.train()
    for iteration in range(iterations):
        if minutes is not None and time.monotonic() - started > 60 * minutes:
            break
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(iteration, iterations)
        loss, penalty = _losses(model, scheduler, images, labels, iteration, generator)
        optimizer.zero_grad()
        (loss + penalty).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            weight = max(1 - EMA_DECAY, 9 / (10 + iteration))
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), weight)
        losses.append(loss.item())
        if progress is not None and ((iteration + 1) % 100 == 0 or iteration + 1 == iterations):
            progress(iteration + 1, (iteration + 1) / iterations, sum(losses) / len(losses))
            losses.clear()
    average.eval()
    return average


def _learning_rate(iteration: int, iterations: int) -> float:
    warm = min(1.0, (iteration + 1) / min(WARM_UP, max(1, iterations // 10)))
    cosine = 0.5 * (1 + math.cos(math.pi * iteration / iterations))
    return LEARNING_RATE * warm * (0.01 + 0.99 * cosine)


def _losses(
    model: DigitsUNet,
    scheduler: DDIMScheduler,
    images: torch.Tensor,
    labels: torch.Tensor,
    iteration: int,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The v-prediction loss of one random batch, and the weighted range penalties."""
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
    return loss, penalty
