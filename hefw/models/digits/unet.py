"""The built-in `digits` UNet: small, no normalisation, only affine maps and squares on the way of the picture."""

from __future__ import annotations

import math

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn
from torch.nn import functional

PATCH = 2


class QuadraticActivation(nn.Module):  # type: ignore[misc]
    """`z + a z^2` with one coefficient `a >= minimum` per channel.

    Ciphertext evaluation completes the square, `a (z + 1/(2a))^2 - 1/(4a)`: the shift 1/(2a) must stay small, hence
    the lower bound. A negative `a` is not needed: flipping the sign of a channel's weights turns it positive.
    """

    def __init__(self, channels: int, minimum: float = 0.1, initial: float = 0.25) -> None:
        super().__init__()
        self.minimum = minimum
        self.raw = nn.Parameter(torch.full((channels,), math.log(math.expm1(initial - minimum))))

    @property
    def coefficients(self) -> torch.Tensor:
        """The coefficients `a`, shape (channels,), each at least `minimum`."""
        return self.minimum + functional.softplus(self.raw)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Apply to z of shape (batch, channels, height, width)."""
        return z + self.coefficients[:, None, None] * z * z


class TimeBiases(nn.Module):  # type: ignore[misc]
    """T_0(t) ... T_3(t): one bias per channel and stage, from a sinusoidal embedding and an MLP."""

    def __init__(self, widths: tuple[int, ...], embedding_width: int, hidden_width: int) -> None:
        super().__init__()
        self.widths = widths
        self.embedding_width = embedding_width
        self.hidden = nn.Linear(embedding_width, hidden_width)
        self.hidden2 = nn.Linear(hidden_width, hidden_width)
        self.heads = nn.ModuleList(nn.Linear(hidden_width, width) for width in widths)

    def embed(self, timestep: torch.Tensor) -> torch.Tensor:
        """Sinusoidal embedding (Vaswani et al. 2017, section 3.5) of timesteps (batch,) -> (batch, embedding_width)."""
        half = self.embedding_width // 2
        dtype, device = self.hidden.weight.dtype, self.hidden.weight.device
        frequencies = torch.exp(-math.log(1e4) * torch.arange(half, dtype=dtype, device=device) / half)
        angles = timestep.to(dtype)[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    def forward(self, timestep: torch.Tensor) -> list[torch.Tensor]:
        """Timesteps (batch,) -> four tensors (batch, channels)."""
        hidden = functional.silu(self.hidden(self.embed(timestep)))
        hidden = functional.silu(self.hidden2(hidden))
        return [head(hidden) for head in self.heads]


class LabelledUNet(ModelMixin, ConfigMixin):  # type: ignore[misc]
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

    def on_patches(self, patches: torch.Tensor, biases: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """v as patches, and everything that goes through a square.

        Patches are (batch, 4, height / 2, width / 2); `biases` is T_k(t) + L_k[y], (batch, channels, 1, 1) each.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how its layers follow each other")

    def time_biases(self, timestep: int | torch.Tensor) -> list[torch.Tensor]:
        """T_0(t), T_1(t), ... of one timestep: tensors of shape (channels,)."""
        steps = torch.as_tensor(timestep, device=self.inp.weight.device).reshape(-1)
        if steps.numel() != 1:
            raise ValueError(f"time_biases takes one timestep, got {steps.numel()}")
        return [bias[0] for bias in self.time(steps)]

    def label_tables(self) -> list[torch.Tensor]:
        """L_0, L_1, ...: tensors of shape (num_classes, channels)."""
        return [table.weight for table in self.labels]

    def preactivations(
        self, sample: torch.Tensor, timestep: int | torch.Tensor, class_labels: torch.Tensor
    ) -> list[torch.Tensor]:
        """What goes through squares, (batch, channels, height, width) each. Arguments are those of `forward`."""
        return self.forward_with_preactivations(sample, timestep, class_labels)[1]

    def forward(
        self,
        sample: torch.Tensor,
        timestep: int | torch.Tensor,
        class_labels: torch.Tensor,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        """Predict v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) image (Salimans and Ho 2022, appendix D).

        Args:
            sample: noisy images, (batch, 1, sample_size, sample_size), pixels in [-1, 1] plus noise.
            timestep: an integer, a 0-d tensor, or a tensor (batch,), counted as the scheduler does.
            class_labels: integers (batch,) below num_classes.
            return_dict: return a `UNet2DOutput` instead of a tuple.

        Returns:
            v of the same shape as sample.
        """
        v, _ = self.forward_with_preactivations(sample, timestep, class_labels)
        return UNet2DOutput(sample=v) if return_dict else (v,)

    def forward_with_preactivations(
        self, sample: torch.Tensor, timestep: int | torch.Tensor, class_labels: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """v and the pre-activations in one pass; arguments are those of `forward`."""
        size = self.config.sample_size
        if sample.ndim != 4 or tuple(sample.shape[1:]) != (1, size, size):
            raise ValueError(f"sample of shape {tuple(sample.shape)}: expected (batch, 1, {size}, {size})")
        if tuple(class_labels.shape) != (sample.shape[0],):
            raise ValueError(f"class_labels of shape {tuple(class_labels.shape)}: expected ({sample.shape[0]},)")
        steps = torch.as_tensor(timestep, device=sample.device).reshape(-1)
        if steps.numel() not in (1, sample.shape[0]):
            raise ValueError(f"timestep with {steps.numel()} entries: expected 1 or {sample.shape[0]}")
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


class DigitsUNet(LabelledUNet):
    """Class-conditional v-prediction UNet for 8x8 grey images in two resolutions (4x4 and 2x2, on 2x2 patches).

    Five affine regions and four quadratic activations; timestep and label only ever add a bias per channel:

        z0 = inp(patches) + T0(t) + L0[y]         a0 = z0 + a z0^2      (channels, 4, 4)
        z1 = down(a0) + T1(t) + L1[y]             a1 = z1 + a z1^2      (2 channels, 2, 2)
        z2 = z1 + mid(a1) + T2(t) + L2[y]         a2 = z2 + a z2^2      (2 channels, 2, 2)
        z3 = up(a2) + skip(a0) + T3(t) + L3[y]    a3 = z3 + a z3^2      (channels, 4, 4)
        v  = out(a3)

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
        check_sample_size(sample_size)
        patch_channels = PATCH * PATCH
        self.inp = nn.Conv2d(patch_channels, channels, 3, padding=1)
        self.down = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
        self.mid = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.up = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
        self.skip = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, patch_channels, 3, padding=1)
        widths = (channels, 2 * channels, 2 * channels, channels)
        self.condition(widths, num_classes, time_embedding_width, time_hidden_width, minimum_quadratic)

    def on_patches(self, patches: torch.Tensor, biases: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """v, and z_0 ... z_3."""
        act = self.activations
        z0 = self.inp(patches) + biases[0]
        a0 = act[0](z0)
        z1 = self.down(a0) + biases[1]
        z2 = z1 + self.mid(act[1](z1)) + biases[2]
        z3 = self.up(act[2](z2)) + self.skip(a0) + biases[3]
        return self.out(act[3](z3)), [z0, z1, z2, z3]
