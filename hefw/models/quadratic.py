"""Networks of affine maps and quadratics: what CKKS evaluates exactly, and what every such UNet has."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn
from torch.nn import functional


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


def sinusoids(timesteps: torch.Tensor, width: int, like: torch.Tensor) -> torch.Tensor:
    """Sines and cosines (Vaswani et al. 2017, section 3.5) of timesteps (count,) -> (count, width), typed as `like`."""
    half = width // 2
    frequencies = torch.exp(-math.log(1e4) * torch.arange(half, dtype=like.dtype, device=like.device) / half)
    angles = timesteps.to(like.dtype)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def timesteps_of(timestep: int | torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
    """A timestep as (1,) or (batch,) beside a sample (batch, ...); ValueError for another number of them."""
    steps = torch.as_tensor(timestep, device=sample.device).reshape(-1)
    if steps.numel() not in (1, sample.shape[0]):
        raise ValueError(f"timestep with {steps.numel()} entries: expected 1 or {sample.shape[0]}")
    return steps


class QuadraticUNet(ModelMixin, ConfigMixin, ABC):  # type: ignore[misc]
    """A class-conditional v-prediction network of affine maps and quadratics, called as diffusers' UNets are."""

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
            sample: noisy pictures or latents, (batch, channels, sample_size, sample_size).
            timestep: an integer, a 0-d tensor, or a tensor (batch,), counted as the scheduler does.
            class_labels: integers (batch,) below num_classes.
            return_dict: return a `UNet2DOutput` instead of a tuple.

        Returns:
            v of the same shape as sample.
        """
        v, _ = self.forward_with_preactivations(sample, timestep, class_labels)
        return UNet2DOutput(sample=v) if return_dict else (v,)

    @abstractmethod
    def forward_with_preactivations(
        self, sample: torch.Tensor, timestep: int | torch.Tensor, class_labels: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """v and all inputs of quadratics, in one pass; arguments are those of `forward`."""
