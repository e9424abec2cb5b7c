"""`mnist` and its variants as plugins: the bundled denoisers, and the autoencoder and judge that they share."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from hefw.models.base import Reference
from hefw.models.labelled import LabelModel, load_weights
from hefw.models.mnist import autoencoder as autoencoders
from hefw.models.mnist import judge as judges
from hefw.models.mnist.bundle import BUNDLED, Shared, load
from hefw.models.plugin import MnistOptions

Array = NDArray[np.float64]


class LatentDigits(LabelModel):
    """A model of MNIST's digits in the autoencoder's latents, whatever its network is conditioned by."""

    feature_space = "64 features of a convolutional network that reads MNIST's digits, those before its last layer"
    #: For how many steps it was made.
    steps = 10
    shared: Shared

    def encode(self, images: Array) -> Array:
        """Latents (images, 2, 8, 8) of pictures (images, 1, 28, 28)."""
        return _array(autoencoders.encode(self.shared.autoencoder, _tensor(images)))

    def decode(self, latents: Array) -> Array:
        """Pictures (images, 1, 28, 28) of latents (images, 2, 8, 8)."""
        return _array(autoencoders.decode(self.shared.autoencoder, _tensor(latents)))

    def judge(self, images: Array) -> NDArray[np.int64]:
        """Labels (images,) that a convolutional network reads off pictures (images, 1, 28, 28)."""
        features = judges.features(self.shared.judge, _tensor(images))
        return np.asarray(judges.labels_of(self.shared.judge, features).numpy(), dtype=np.int64)

    def features(self, images: Array) -> Array:
        """Features (images, 64) of pictures (images, 1, 28, 28)."""
        return _array(judges.features(self.shared.judge, _tensor(images)))

    def reference(self) -> Reference:
        """The 2,000 pictures that were kept out of all training, and the 8,000 that trained."""
        return self.shared.reference


class Mnist(LatentDigits):
    """28x28 handwritten digits by latent diffusion: the server denoises latents, the key holder decodes them."""

    #: Whose weights are bundled.
    variant: ClassVar[str] = "mnist"

    def __init__(self, options: MnistOptions) -> None:
        bundle = load_weights(self.variant, options.pretrained, BUNDLED / self.variant, load)
        self.shared = bundle.shared
        config = bundle.unet.config
        shape = (config.sample_channels, config.sample_size, config.sample_size)
        super().__init__(self.variant, bundle.unet, bundle.scheduler, shape, int(config.num_classes))


class MnistTwoStep(Mnist):
    """`mnist` for two steps, which one message has room for."""

    variant = "mnist-2step"
    steps = 2


class MnistLarge(Mnist):
    """`mnist` with a deeper denoiser, in more steps."""

    variant = "mnist-large"
    steps = 20


def _tensor(values: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()


def _array(values: torch.Tensor) -> Array:
    return np.asarray(values.double().numpy())
