"""Models that draw a label: a network, the scheduler it was trained for, and its plaintext twin."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hefw.core.errors import ConfigError
from hefw.core.graph import Graph
from hefw.models.base import Watch
from hefw.models.schedules import begin_at, converted

Array = NDArray[np.float64]
Loaded = TypeVar("Loaded")


class LabelModel:
    """A class-conditional UNet as a model: everything that follows from the network itself.

    `unet(sample, timestep, labels)` returns an object with `.sample`, as diffusers' UNets do: samples are (images,
    *latent_shape), labels (images,) integers. A latent is the picture itself unless `encode` and `decode` are replaced.
    """

    def __init__(
        self, name: str, unet: nn.Module, scheduler: Any, latent_shape: tuple[int, int, int], labels: int
    ) -> None:
        self.name = name
        self.unet = unet.eval()
        self.latent_shape = latent_shape
        self.labels = labels
        self._scheduler = scheduler

    def scheduler(self, kind: Any, options: Mapping[str, Any]) -> Any:
        """A scheduler of class `kind` with the noise levels that the network was trained for."""
        return converted(self._scheduler, kind, options)

    def graph(self, scheduler: Any, steps: int, begin: int = 0) -> Graph:
        """One denoising step with the scheduler's update, for `steps` steps from the timestep of index `begin` on."""
        from hefw.models.compiler.compile import compile  # a second or two, which a graph made by hand does not need

        shape, classes = self.latent_shape, self.labels
        return compile(
            self.unet,
            shape,
            scheduler=scheduler,
            steps=steps,
            begin=begin,
            classes=classes,
            metadata={"model": self.name},
        )

    def inputs(self, latents: Array, labels: NDArray[np.int64]) -> dict[str, Array]:
        """Latents (images, features) and one-hot labels (images, labels). ConfigError for a label that is not there."""
        self.check_labels(labels)
        return {"latent": latents.reshape(len(latents), -1), "label": np.eye(self.labels)[labels]}

    def check_labels(self, labels: NDArray[np.int64]) -> None:
        """ConfigError for the first label (images,) that does not exist."""
        for label in labels[(labels < 0) | (labels >= self.labels)]:
            raise ConfigError(
                f"label {label} does not exist; model {self.name!r} has the labels 0 to {self.labels - 1}"
            )

    def latents(self, outputs: Mapping[str, Array]) -> Array:
        """(images, *latent_shape) from the graph's output."""
        return outputs["latent"].reshape(-1, *self.latent_shape)

    def encode(self, images: Array) -> Array:
        """Latents of pictures (images, channels, height, width); by the key holder, in the clear."""
        return images

    def decode(self, latents: Array) -> Array:
        """Pictures of latents, black -1 and white 1; by the key holder, in the clear."""
        return latents

    def twin(
        self, latents: Array, labels: NDArray[np.int64], scheduler: Any, steps: int, watch: Watch, begin: int = 0
    ) -> Array:
        """The original network in float64 and the unmodified scheduler."""
        unet, classes = copy.deepcopy(self.unet).double(), torch.from_numpy(labels)
        return sample(lambda x, t: unet(x, t, classes).sample, latents, scheduler, steps, watch, begin)

    def denoise(self, latents: torch.Tensor, timestep: float, labels: torch.Tensor) -> torch.Tensor:
        """The network's prediction in float32, with gradients to the latents (images, *latent_shape)."""
        prediction: torch.Tensor = self.unet(latents, timestep, labels).sample
        return prediction


def sample(
    predict: Callable[[torch.Tensor, Any], torch.Tensor],
    latents: NDArray[np.floating[Any]],
    scheduler: Any,
    steps: int,
    watch: Watch,
    begin: int = 0,
) -> Array:
    """Final latents by a network, `predict(latents, timestep)`, and an unmodified scheduler, as pipelines sample.

    Computed in the precision of `latents`.
    """
    x = torch.from_numpy(latents)
    scheduler.set_timesteps(steps)
    begin_at(scheduler, begin)
    with torch.no_grad():
        for step, timestep in enumerate(scheduler.timesteps[begin:]):
            prediction = predict(scheduler.scale_model_input(x, timestep), timestep)
            x = scheduler.step(prediction, timestep, x).prev_sample
            changed = watch(step, x.numpy())
            x = x if changed is None else torch.from_numpy(changed)
    return np.asarray(x.numpy(), dtype=np.float64)


def load_weights(model: str, pretrained: str | None, bundled: Path, load: Callable[[Path], Loaded]) -> Loaded:
    """What `load` reads from the folder that a user gave, or else the bundled one; ConfigError if it cannot."""
    folder = Path(pretrained).expanduser() if pretrained else bundled
    try:
        return load(folder)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(
            f"model {model!r}: pretrained {str(folder)!r} cannot be loaded: {str(error).splitlines()[0]}; give a "
            f"folder that `hefw train {model}` wrote, or none for the bundled weights"
        ) from None
