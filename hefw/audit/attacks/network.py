"""What attacks that run the model share: steps through the schedule with what is known held fast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hefw.audit.attacker import Attacker, Denoiser
from hefw.audit.view import View
from hefw.models.schedules import LinearUpdate

#: Images that go through the network together: with gradients, all steps of all of them are in memory.
BATCH = 500
Noise = Callable[[int, tuple[int, ...]], torch.Tensor]


def refusal(attacker: Attacker) -> str | None:
    """Why the model cannot be run, or None."""
    if attacker.denoiser is None:
        return "the model has no method `denoise`, by which an attacker could run it"
    return None


@dataclass(frozen=True, eq=False)
class Known:
    """A view, or some images of it, as tensors; nan where nothing is known. `scale` is that of latents at each step."""

    updates: tuple[LinearUpdate, ...]
    latents: torch.Tensor
    predictions: torch.Tensor
    scale: NDArray[np.float64]

    @staticmethod
    def of(view: View, attacker: Attacker, images: NDArray[np.int64]) -> Known:
        """The images of these indices, which may occur several times."""
        latents, predictions = _tensor(view.latents[:, images]), _tensor(view.predictions[:, images])
        return Known(view.updates, latents, predictions, attacker.latent_scale)

    def run(
        self, denoiser: Denoiser, start: torch.Tensor, labels: torch.Tensor, noise: Noise | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Final latents from x_T `start`, and how far each run misses what is known: a sum of squares, (images,).

        Latents are measured by their scale. Where an entry of one is known, the run is set right once the miss is
        counted, and goes on from there.
        """
        miss = torch.zeros(len(start))
        samples: list[torch.Tensor] = []
        predictions: list[torch.Tensor] = []
        latent = start
        for step, update in enumerate(self.updates):
            miss = miss + _miss(latent, self.latents[step]) / self.scale[step] ** 2
            latent = _pinned(latent, self.latents[step])
            prediction = denoiser.denoise(update.model_input_scale * latent, update.timestep, labels)
            miss = miss + _miss(prediction, self.predictions[step])
            samples.insert(0, latent)
            predictions.insert(0, prediction)
            latent = sum(update.terms(samples, predictions), torch.zeros(()))
            if noise is not None and update.noise:
                latent = latent + noise(step, tuple(latent.shape))
        miss = miss + _miss(latent, self.latents[-1]) / self.scale[-1] ** 2
        return _pinned(latent, self.latents[-1]), miss


def choose(miss: NDArray[np.float64], keep: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The `keep` labels of the least miss for every image, the best first, (keep, images), from (labels, images).

    What is equal, because nothing tells labels apart, is in random order. A run that diverged misses by infinity.
    """
    finite = np.nan_to_num(miss, nan=np.inf)
    return np.lexsort((rng.random(miss.shape), finite), axis=0)[:keep]


def generator(rng: np.random.Generator) -> torch.Generator:
    """Random numbers of torch's that follow from numpy's."""
    return torch.Generator().manual_seed(int(rng.integers(2**62)))


def _tensor(array: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32))


def _miss(found: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    return torch.where(known.isnan(), 0.0, found - known.nan_to_num()).square().flatten(1).sum(1)


def _pinned(found: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    return torch.where(known.isnan(), found, known)
