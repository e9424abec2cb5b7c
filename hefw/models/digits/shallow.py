"""`digits-shallow`: as few multiplications in sequence as a UNet can have, for the smallest ring."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from diffusers.configuration_utils import register_to_config
from torch import nn

from hefw.models.digits.train import DigitsTraining, load_as, train_network
from hefw.models.digits.unet import PATCH, LabelledUNet, check_sample_size

DEFAULT_ITERATIONS = 12_000
LEARNING_RATE = 6e-3
BUNDLED = Path(__file__).parent / "weights" / "digits-shallow"


class ShallowUNet(LabelledUNet):
    """Two resolutions (4x4 and 2x2, on 2x2 patches), three affine regions, two quadratic activations: depth 5.

        z0 = inp(patches) + T0(t) + L0[y]            a0 = z0 + a z0^2      (channels, 4, 4)
        z1 = down(a0) + T1(t) + L1[y]                a1 = z1 + a z1^2      (lower_channels, 2, 2)
        v  = up(a1) + skip(a0) + shortcut(patches)

    Kernels are wider than 3x3: weights cost no depth, and each region has to see what deeper networks see in two.

    Args:
        sample_size: height and width of the image in pixels.
        channels: width of the upper resolution.
        lower_channels: width of the lower one.
        num_classes: number of labels.
        time_embedding_width: width of the sinusoidal embedding.
        time_hidden_width: width of the MLP behind it.
        minimum_quadratic: lower bound of the activations' coefficients.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sample_size: int = 8,
        channels: int = 32,
        lower_channels: int = 64,
        num_classes: int = 10,
        time_embedding_width: int = 64,
        time_hidden_width: int = 128,
        minimum_quadratic: float = 0.1,
    ) -> None:
        super().__init__()
        check_sample_size(sample_size)
        patch = PATCH * PATCH
        self.inp = nn.Conv2d(patch, channels, 5, padding=2)
        self.down = nn.Conv2d(channels, lower_channels, 4, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(lower_channels, patch, 4, stride=2, padding=1)
        self.skip = nn.Conv2d(channels, patch, 3, padding=1)
        self.shortcut = nn.Conv2d(patch, patch, 5, padding=2)
        widths = (channels, lower_channels)
        self.condition(widths, num_classes, time_embedding_width, time_hidden_width, minimum_quadratic)

    def on_patches(self, patches: torch.Tensor, biases: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """v, z_0 and z_1."""
        z0 = self.inp(patches) + biases[0]
        a0 = self.activations[0](z0)
        z1 = self.down(a0) + biases[1]
        return self.up(self.activations[1](z1)) + self.skip(a0) + self.shortcut(patches), [z0, z1]


def load(folder: str | Path = BUNDLED) -> tuple[ShallowUNet, object]:
    """The network (float32, eval mode) and scheduler that `run` wrote; FileNotFoundError if there are none."""
    return load_as(ShallowUNet, folder)


run = DigitsTraining(
    "digits-shallow", DEFAULT_ITERATIONS, partial(train_network, ShallowUNet, learning_rate=LEARNING_RATE)
)
