"""`mnist-text` as a plugin: prompts to pictures, with guidance on ciphertext."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hefw.core.graph import Graph
from hefw.models.base import Watch
from hefw.models.labelled import load_weights, sample
from hefw.models.mnist.bundle import BUNDLED
from hefw.models.mnist.model import LatentDigits
from hefw.models.mnist.text.bundle import load
from hefw.models.mnist.text.captions import DIGITS, Caption, parse, phrase
from hefw.models.mnist.text.encoder import embed
from hefw.models.mnist.text.unet import Guided
from hefw.models.plugin import MnistOptions
from hefw.models.schedules import initial_noise

Array = NDArray[np.float64]
#: What each image is to show: a prompt, or a label, which stands for the prompt that names it and nothing else.
Asked = NDArray[Any]

NAME = "mnist-text"
GUIDANCE = 1.5
CALIBRATION_IMAGES = 20


class MnistText(LatentDigits):
    """MNIST's digits from prompts of a small language: which digit, how bold, how slanted.

    The text encoder runs at the key holder, and the server gets the embedding as ciphertext. Classifier-free guidance
    is part of the graph: both evaluations of the network and their combination are on ciphertext, its scale is public.
    """

    unet: Guided

    def __init__(self, options: MnistOptions) -> None:
        bundle = load_weights(NAME, options.pretrained, BUNDLED / NAME, load)
        self.shared, self.encoder = bundle.shared, bundle.encoder
        config = bundle.unet.config
        shape = (config.sample_channels, config.sample_size, config.sample_size)
        super().__init__(NAME, Guided(bundle.unet, GUIDANCE), bundle.scheduler, shape, len(DIGITS))

    def guided(self, scale: float | None) -> MnistText:
        """This model with another guidance scale; none at 1 and below, the model's own for None."""
        if scale is None:
            return self
        made = copy.copy(self)
        made.unet = Guided(self.unet.unet, max(1.0, scale)).eval()
        return made

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """ConfigError for the first prompt that is not of this model's language."""
        for prompt in prompts:
            parse(prompt)

    def graph(self, scheduler: Any, steps: int, begin: int = 0) -> Graph:
        """One denoising step with guidance and the scheduler's update; the input `condition` is an embedding."""
        from hefw.models.compiler.compile import compile  # a second or two

        rng = np.random.default_rng(0)
        said = [phrase(_any(rng), rng) for _ in range(CALIBRATION_IMAGES)]
        noise = initial_noise(scheduler, steps, begin) * rng.normal(size=(CALIBRATION_IMAGES, *self.latent_shape))
        return compile(
            self.unet,
            self.latent_shape,
            scheduler=scheduler,
            steps=steps,
            begin=begin,
            condition=(int(self.unet.unet.config.condition_size),),
            calibration={"latent": noise, "condition": self._embed(np.array(said)).numpy()},
            metadata={"model": self.name, "guidance_scale": self.unet.weight},
        )

    def inputs(self, latents: Array, labels: Asked) -> dict[str, Array]:
        """Latents (images, features) and embeddings (images, entries) of prompts, or of labels' names."""
        return {"latent": latents.reshape(len(latents), -1), "condition": self._embed(labels).numpy()}

    def twin(self, latents: Array, labels: Asked, scheduler: Any, steps: int, watch: Watch, begin: int = 0) -> Array:
        """The network with guidance in float64 and the unmodified scheduler, for prompts or labels."""
        unet, condition = copy.deepcopy(self.unet).double(), self._embed(labels)
        return sample(lambda x, t: unet(x, t, condition), latents, scheduler, steps, watch, begin)

    def denoise(self, latents: torch.Tensor, timestep: float, labels: torch.Tensor) -> torch.Tensor:
        """The guided prediction in float32, with gradients to the latents (images, *latent_shape)."""
        prediction: torch.Tensor = self.unet(latents, torch.tensor(timestep), self._embed(labels.numpy()).float())
        return prediction

    def _embed(self, asked: Asked) -> torch.Tensor:
        """Embeddings (images, entries) in float64. ConfigError for a prompt or label that is none of this model's."""
        if asked.dtype.kind in "iu":
            self.check_labels(asked)
            asked = np.array([f"a {DIGITS[label]}" for label in asked])
        with torch.no_grad():
            return embed(self.encoder, [str(prompt) for prompt in asked]).double()


def _any(rng: np.random.Generator) -> Caption:
    """A caption with all that can be said."""
    return Caption(int(rng.integers(len(DIGITS))), int(rng.integers(3)), int(rng.integers(3)))
