"""How good are samples of the `digits` model: label accuracy, Fréchet distance, and the range of pre-activations."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hefw.models.base import Reference
from hefw.models.digits.train import load_images
from hefw.models.digits.unet import DigitsUNet

BATCH = 1000
RIDGE = 1e-6
DIVERGED = 5.0
FEATURE_SPACE = "64 grey values of 0 to 16"


def to_grey(samples: torch.Tensor) -> NDArray[np.float64]:
    """Samples (n, 1, 8, 8) -> rows (n, 64) of grey values, clamped to the digits' range 0..16."""
    return np.asarray((samples.detach().clamp(-1, 1).double().cpu().flatten(1) + 1) * 8)


@torch.no_grad()  # type: ignore[untyped-decorator]
def sample_plain(
    model: DigitsUNet,
    scheduler: Any,
    labels: torch.Tensor,
    steps: int,
    *,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    trace: list[float] | None = None,
) -> torch.Tensor:
    """Sample without encryption, as any diffusers pipeline does.

    Args:
        model: the UNet.
        scheduler: a diffusers scheduler; its timesteps are set here.
        labels: integers (n,).
        steps: number of inference steps.
        seed: seeds x_T when no generator is given (0 if neither is).
        generator: draws x_T ~ N(0, 1), one call of shape (n, 1, size, size).
        trace: if given, the largest |pre-activation| of every step and batch is appended.

    Returns:
        images (n, 1, size, size), in [-1, 1] but for small overshoots (not clamped).
    """
    if seed is not None and generator is not None:
        raise ValueError("give seed or generator, not both")
    generator = generator or torch.Generator().manual_seed(seed or 0)
    size, dtype = model.config.sample_size, model.inp.weight.dtype
    noise = torch.randn(len(labels), 1, size, size, generator=generator).to(dtype)
    results = []
    for start in range(0, len(labels), BATCH):
        y = labels[start : start + BATCH]
        scheduler.set_timesteps(steps)
        x = noise[start : start + BATCH] * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            v, z = model.forward_with_preactivations(scheduler.scale_model_input(x, t), t, y)
            if trace is not None:
                trace.append(max(float(part.abs().max()) for part in z))
            x = scheduler.step(v, t, x).prev_sample
        results.append(x)
    return torch.cat(results) if results else noise


def largest_preactivation(
    model: DigitsUNet, scheduler: Any, labels: torch.Tensor, steps: int, *, seed: int = 0
) -> float:
    """The largest |pre-activation| met while sampling `labels` (n,) in `steps` steps; nan or inf if one diverged."""
    trace: list[float] = []
    sample_plain(model, scheduler, labels, steps, seed=seed, trace=trace)
    return float(np.max(trace))


@functools.cache
def _real() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    images, labels = load_images()
    return to_grey(images), labels.numpy()


def reference() -> Reference:
    """All real digits, in `FEATURE_SPACE`."""
    grey = _real()[0]
    return Reference(grey, grey, load_images()[0].double().numpy())


@functools.cache
def _judge() -> Any:
    from sklearn.svm import SVC

    return SVC(gamma=0.001).fit(*_real())


def predict(images: torch.Tensor) -> NDArray[np.int64]:
    """Labels (n,) that SVC(gamma=0.001), fitted on the real digits, gives to images (n, 1, 8, 8)."""
    return np.asarray(_judge().predict(to_grey(images)), dtype=np.int64)


def label_accuracy(images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of images (n, 1, 8, 8) that `predict` gives their label, 0..1."""
    return float((predict(images) == labels.numpy()).mean())


def frechet_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Fréchet distance of two Gaussians fitted to rows (n, features), as in Heusel et al. 2017, equation 6.

    In pixel space (`to_grey`), so in squared grey values of 0..16. A ridge of 1e-6 keeps constant pixels harmless.
    """
    from scipy.linalg import sqrtm

    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"rows of shapes {a.shape} and {b.shape}: expected (n, features) with equal features")
    ridge = RIDGE * np.eye(a.shape[1])
    cov_a, cov_b = np.cov(a.T) + ridge, np.cov(b.T) + ridge
    root = sqrtm(cov_a @ cov_b)
    mean = float(np.square(a.mean(0) - b.mean(0)).sum())
    return mean + float(np.trace(cov_a + cov_b - 2 * np.real(root)))


def distance_to_real(images: torch.Tensor) -> float:
    """Fréchet distance of images (n, 1, 8, 8) to all real digits."""
    return frechet_distance(to_grey(images), _real()[0])


def held_out_distance(seed: int = 0) -> float:
    """Fréchet distance between two random halves of the real digits: what a perfect model would reach."""
    real = _real()[0]
    order = np.random.default_rng(seed).permutation(len(real))
    half = len(real) // 2
    return frechet_distance(real[order[:half]], real[order[half:]])


@dataclass(frozen=True)
class Quality:
    """What `measure` found at one number of steps.

    Attributes:
        steps: inference steps.
        samples: number of images.
        accuracy: `label_accuracy`, 0..1.
        distance: `distance_to_real`, nan if an image is not finite.
        largest_preactivation: largest |pre-activation| over all samples and steps.
        diverged: images with a value that is not finite or beyond +-5.
    """

    steps: int
    samples: int
    accuracy: float
    distance: float
    largest_preactivation: float
    diverged: int


def measure(
    model: DigitsUNet, scheduler: Any, *, samples: int = 900, steps: Sequence[int] = (5, 10, 20, 50), seed: int = 1
) -> Iterator[Quality]:
    """Sample all labels in turn without encryption and judge the images, one `Quality` for each number of steps."""
    labels = torch.arange(samples) % model.config.num_classes
    for count in steps:
        trace: list[float] = []
        images = sample_plain(model, scheduler, labels, count, seed=seed, trace=trace)
        finite = bool(torch.isfinite(images).all())
        kept = images.nan_to_num(0.0)
        yield Quality(
            steps=count,
            samples=samples,
            accuracy=label_accuracy(kept, labels),
            distance=distance_to_real(images) if finite else float("nan"),
            largest_preactivation=float(np.max(trace)),
            diverged=int((~(images.abs().flatten(1).amax(1) <= DIVERGED)).sum()),
        )
