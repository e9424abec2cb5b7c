"""`digits` as a plugin: the bundled network, its graph and its plaintext twin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hefw.core.errors import ConfigError
from hefw.core.graph import Graph
from hefw.models.base import Watch
from hefw.models.digits.graph import digits_graph
from hefw.models.digits.train import BUNDLED, load
from hefw.models.plugin import DigitsOptions
from hefw.models.schedules import converted, initial_noise, linear_updates

Array = NDArray[np.float64]


class Digits:
    """8x8 handwritten digits, by a UNet of squares and affine maps only."""

    name = "digits"

    def __init__(self, options: DigitsOptions) -> None:
        folder = Path(options.pretrained) if options.pretrained else BUNDLED
        try:
            self.unet, self._scheduler = load(folder)
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"model 'digits': pretrained {str(folder)!r} cannot be loaded: {str(error).splitlines()[0]}; give a "
                "folder that `hefw train digits` wrote, or none for the bundled weights"
            ) from None
        size = int(self.unet.config.sample_size)
        self.labels = int(self.unet.config.num_classes)
        self.latent_shape = (1, size, size)

    def scheduler(self, kind: Any, options: Mapping[str, Any]) -> Any:
        """A scheduler of class `kind` with the noise levels that the network was trained for."""
        return converted(self._scheduler, kind, options)

    def graph(self, scheduler: Any, steps: int) -> Graph:
        """One denoising step with the scheduler's update, for `steps` steps."""
        updates = linear_updates(scheduler, steps)
        return digits_graph(self.unet, updates, initial_noise(scheduler, steps))

    def inputs(self, latents: Array, labels: NDArray[np.int64]) -> dict[str, Array]:
        """(images, 64) pixels and (images, 10) one-hot labels. ConfigError for a label that does not exist."""
        for label in labels[(labels < 0) | (labels >= self.labels)]:
            raise ConfigError(f"label {label} does not exist; model 'digits' has the labels 0 to {self.labels - 1}")
        return {"latent": latents.reshape(len(latents), -1), "label": np.eye(self.labels)[labels]}

    def latents(self, outputs: Mapping[str, Array]) -> Array:
        """(images, 1, height, width) from the graph's output."""
        return outputs["latent"].reshape(-1, *self.latent_shape)

    def decode(self, latents: Array) -> Array:
        """A latent of `digits` is the picture itself."""
        return latents

    def twin(self, latents: Array, labels: NDArray[np.int64], scheduler: Any, steps: int, watch: Watch) -> Array:
        """The original network in float64 and the unmodified scheduler."""
        unet = type(self.unet).from_config(self.unet.config)
        unet.load_state_dict(self.unet.state_dict())
        unet = unet.double().eval()
        sample, classes = torch.from_numpy(latents), torch.from_numpy(labels)
        scheduler.set_timesteps(steps)
        with torch.no_grad():
            for step, timestep in enumerate(scheduler.timesteps):
                prediction = unet(scheduler.scale_model_input(sample, timestep), timestep, classes).sample
                sample = scheduler.step(prediction, timestep, sample).prev_sample
                watch(step, sample.numpy())
        return np.asarray(sample.numpy(), dtype=np.float64)

    def judge(self, images: Array) -> NDArray[np.int64]:
        """Labels (images,) that a classifier fitted on the real digits reads off images (images, 1, height, width)."""
        from hefw.models.digits.quality import predict

        return predict(torch.from_numpy(images))

    def denoise(self, latents: torch.Tensor, timestep: float, labels: torch.Tensor) -> torch.Tensor:
        """The network's prediction in float32, with gradients to the latents (images, 1, height, width)."""
        prediction: torch.Tensor = self.unet(latents, timestep, labels).sample
        return prediction
