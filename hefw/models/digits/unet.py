"""The built-in `digits` UNet: small, no normalisation, only affine maps and squares on the way of the picture."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional

from hefw.models.quadratic import QuadraticActivation, QuadraticUNet, sinusoids, timesteps_of

PATCH = 2


class TimeBiases(nn.Module):  # type: ignore[misc]
    """T_0(t) ... T_3(t): one bias per channel and stage, from a sinusoidal embedding and an MLP."""

    def __init__(self, widths: tuple[int, ...], embedding_width: int, hidden_width: int) -> None:
        super().__init__()
        self.widths = widths
        self.embedding_width = embedding_width
        self.hidden = nn.Linear(embedding_width, hidden_width)
        self.hidden2 = nn.Linear(hidden_width, hidden_width)
        self.heads = nn.ModuleList(nn.Linear(hidden_width, width) for width in widths)

    def forward(self, timestep: torch.Tensor) -> list[torch.Tensor]:
        """Timesteps (batch,) -> four tensors (batch, channels)."""
        embedded = sinusoids(timestep, self.embedding_width, self.hidden.weight)
        hidden = functional.silu(self.hidden(embedded))
        hidden = functional.silu(self.hidden2(hidden))
        return [head(hidden) for head in self.heads]


class LabelledUNet(QuadraticUNet):
    """A class-conditional v-prediction network for small grey images, on 2x2 patches; timestep and label add biases.

    A network of its own makes its layers, calls `condition`, and says in `on_patches` how they follow each other.
    """

    inp: nn.Conv2d

    def condition(self, widths: tuple[int, ...], classes: int, embedding: int, hidden: int, minimum: float) -> None:
        """Make T_k, L_k and the quadratic activation of each stage k of `widths` channels."""
        self.widths = widths
        self.time = TimeBiases(widths, embedding, hidden)
        self.labels = nn.ModuleList(nn.Embedding(classes, width) for width in widths)
        for table in self.labels:
            nn.init.normal_(table.weight, std=0.3)
        self.activations = nn.ModuleList(QuadraticActivation(width, minimum) for width in widths)

    @abstractmethod
    def on_patches(self, patches: torch.Tensor, biases: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """v as patches, and everything that goes through a square.

        Patches are (batch, 4, height / 2, width / 2); `biases` is T_k(t) + L_k[y], (batch, channels, 1, 1) each.
        """

    def time_biases(self, timestep: int | torch.Tensor) -> list[torch.Tensor]:
        """T_0(t), T_1(t), ... of one timestep: tensors of shape (channels,)."""
        steps = torch.as_tensor(timestep, device=self.inp.weight.device).reshape(-1)
        if steps.numel() != 1:
            raise ValueError(f"time_biases takes one timestep, got {steps.numel()}")
        return [bias[0] for bias in self.time(steps)]

    def label_tables(self) -> list[torch.Tensor]:
        """L_0, L_1, ...: tensors of shape (num_classes, channels)."""
        return [table.weight for table in self.labels]

    def forward_with_preactivations(
        self, sample: torch.Tensor, timestep: int | torch.Tensor, class_labels: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """v and the pre-activations in one pass; arguments are those of `forward`."""
        size = self.config.sample_size
        if sample.ndim != 4 or tuple(sample.shape[1:]) != (1, size, size):
            raise ValueError(f"sample of shape {tuple(sample.shape)}: expected (batch, 1, {size}, {size})")
        if tuple(class_labels.shape) != (sample.shape[0],):
            raise ValueError(f"class_labels of shape {tuple(class_labels.shape)}: expected ({sample.shape[0]},)")
        steps = timesteps_of(timestep, sample)
        biases = [
            (time_bias + table(class_labels))[:, :, None, None]
            for time_bias, table in zip(self.time(steps), self.labels, strict=True)
        ]
        v, z = self.on_patches(functional.pixel_unshuffle(sample, PATCH), biases)
        return functional.pixel_shuffle(v, PATCH), z


def check_sample_size(size: int) -> None:
    """ValueError if images of this size have no 2x2 patches in two resolutions."""
    if size % (2 * PATCH):
        raise ValueError(f"sample_size={size}: expected a multiple of {2 * PATCH}")


class TwoResolutions(LabelledUNet):
    """Five affine regions in two resolutions, 4x4 and 2x2 on the 2x2 patches of 8x8 images.

    z0 = inp(patches) + T0(t) + L0[y]         a0 = z0 + a z0^2      (channels, 4, 4)
    z1 = down(a0) + T1(t) + L1[y]             a1 = z1 + a z1^2      (2 channels, 2, 2)
    z2 = z1 + middle(a1) + T2(t) + L2[y]      a2 = z2 + a z2^2      (2 channels, 2, 2)
    z3 = up(a2) + skip(a0) + T3(t) + L3[y]    a3 = z3 + a z3^2      (channels, 4, 4)
    v  = out(a3)
    """

    def lay(self, sample_size: int, channels: int, make_middle: Callable[[], nn.Module]) -> tuple[int, ...]:
        """Make the layers, in the order in which they draw their weights; returns the widths of the stages."""
        check_sample_size(sample_size)
        patch_channels = PATCH * PATCH
        self.inp = nn.Conv2d(patch_channels, channels, 3, padding=1)
        self.down = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
        self.mid = make_middle()
        self.up = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
        self.skip = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, patch_channels, 3, padding=1)
        return (channels, 2 * channels, 2 * channels, channels)

    def middle(self, a: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What the lower resolution reads, and what goes through squares on the way."""
        return self.mid(a), []

    def on_patches(self, patches: torch.Tensor, biases: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """v, and z_0 ... z_3 with the squares of the middle."""
        act = self.activations
        z0 = self.inp(patches) + biases[0]
        a0 = act[0](z0)
        z1 = self.down(a0) + biases[1]
        read, products = self.middle(act[1](z1))
        z2 = z1 + read + biases[2]
        z3 = self.up(act[2](z2)) + self.skip(a0) + biases[3]
        return self.out(act[3](z3)), [z0, z1, *products, z2, z3]


class DigitsUNet(TwoResolutions):
    """Class-conditional v-prediction UNet for 8x8 grey images in two resolutions (4x4 and 2x2, on 2x2 patches).

    A convolution is in the middle: four quadratic activations; timestep and label only ever add a bias per channel.

    Args:
        sample_size: height and width of the image in pixels.
        channels: width of the upper resolution; the lower one has twice as many.
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
        num_classes: int = 10,
        time_embedding_width: int = 64,
        time_hidden_width: int = 128,
        minimum_quadratic: float = 0.1,
    ) -> None:
        super().__init__()
        widths = self.lay(sample_size, channels, lambda: nn.Conv2d(2 * channels, 2 * channels, 3, padding=1))
        self.condition(widths, num_classes, time_embedding_width, time_hidden_width, minimum_quadratic)
