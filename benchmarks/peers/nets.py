"""Networks that every peer evaluates: 3x3 convolutions with a square between any two. Torch and numpy only.

No bias, no stride: what every system here can express. Weights are random, scaled so that the output of each
convolution has root mean square 0.6 over images of N(0, 1/4).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import conv2d

Array = NDArray[np.float64]

DEVIATION = 0.5  # of the images
SIZE = 0.6  # root mean square of every convolution's output
CALIBRATION = 256  # images


@dataclass(frozen=True)
class Stack:
    """`convolutions` of `channels` to `channels` on `side` x `side`, and a square between any two."""

    channels: int
    side: int
    convolutions: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of input and output."""
        return self.channels, self.side, self.side

    def weights(self) -> list[Array]:
        """One array (channels, channels, 3, 3) a convolution."""
        rng = np.random.default_rng(0)
        value, found = rng.normal(size=(CALIBRATION, *self.shape)) * DEVIATION, []
        for _ in range(self.convolutions):
            weight = rng.normal(size=(self.channels, self.channels, 3, 3))
            output = _convolved(value, weight)
            factor = SIZE / np.sqrt(np.mean(output**2))
            found.append(weight * factor)
            value = (output * factor) ** 2
        return found

    def images(self, count: int, seed: int = 1) -> Array:
        """Random inputs (count, channels, height, width)."""
        return np.random.default_rng(seed).normal(size=(count, *self.shape)) * DEVIATION

    def reference(self, images: Array) -> Array:
        """What the network gives, in float64."""
        value = images
        for number, weight in enumerate(self.weights()):
            value = _convolved(value**2 if number else value, weight)
        return value

    def digest(self) -> str:
        """Of the weights: peers in several interpreters must have the same."""
        return hashlib.sha256(b"".join(weight.tobytes() for weight in self.weights())).hexdigest()[:16]


STACKS = {
    "5 convolutions of 32 channels on 4x4": Stack(32, 4, 5),
    "4 convolutions of 16 channels on 8x8": Stack(16, 8, 4),
}


class Network(nn.Module):
    """A stack as a denoiser whose timestep has no effect."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for weight in stack.weights():
            layer = nn.Conv2d(stack.channels, stack.channels, 3, padding=1, bias=False, dtype=torch.float64)
            layer.weight = nn.Parameter(torch.from_numpy(weight), requires_grad=False)
            self.layers.append(layer)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        for number, layer in enumerate(self.layers):
            x = layer(x * x if number else x)
        return x


def _convolved(images: Array, weight: Array) -> Array:
    found: Array = conv2d(torch.from_numpy(images), torch.from_numpy(weight), padding=1).numpy()
    return found
