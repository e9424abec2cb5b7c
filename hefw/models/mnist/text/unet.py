"""The denoiser of `mnist-text`: the lean UNet of `mnist`, which an embedding conditions linearly; and its guidance."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from torch import nn

from hefw.models.mnist.unet import LatentUNet


class TextUNet(LatentUNet):
    """`LatentUNet` with an embedding in the place of the label: L_k[y] becomes L_k e, and e = 0 is no prompt.

    `forward(sample, timestep, condition)` takes embeddings (count, condition_size), or (1, condition_size) for all.

    Args:
        condition_size: entries of an embedding.
        others: as of `LatentUNet`.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        condition_size: int = 32,
        sample_size: int = 8,
        sample_channels: int = 2,
        channels: int = 32,
        quadratics: int = 4,
        maps: int = 4,
        time_embedding_width: int = 64,
        time_hidden_width: int = 128,
        minimum_quadratic: float = 0.1,
    ) -> None:
        super().__init__(
            sample_size=sample_size,
            sample_channels=sample_channels,
            channels=channels,
            quadratics=quadratics,
            num_classes=1,
            maps=maps,
            time_embedding_width=time_embedding_width,
            time_hidden_width=time_hidden_width,
            minimum_quadratic=minimum_quadratic,
        )
        for part in self.conditioning:
            entries = part.label.embedding_dim
            part.label = nn.Linear(condition_size, entries, bias=False)
            nn.init.normal_(part.label.weight, std=0.3 / condition_size**0.5)

    def register_to_config(self, **config: Any) -> None:
        """Without the one argument of `LatentUNet`, which registers its own, that this class does not have."""
        super().register_to_config(**{name: value for name, value in config.items() if name != "num_classes"})


class Guided(nn.Module):  # type: ignore[misc]
    """Classifier-free guidance as one network (Ho and Salimans 2022): w v(x, e) + (1 - w) v(x, none).

    Both evaluations and their combination are in its graph; the weight and what no prompt adds are public.
    """

    def __init__(self, unet: TextUNet, weight: float) -> None:
        super().__init__()
        self.unet, self.weight = unet, weight
        self.register_buffer("none", torch.zeros(1, unet.config.condition_size))

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """The guided v of samples (count, ...) at timesteps (1 or count,), for embeddings (count, condition_size)."""
        prompted = self.unet(sample, timestep, condition).sample
        if self.weight == 1:
            return prompted
        unprompted = self.unet(sample, timestep, self.none).sample
        guided: torch.Tensor = self.weight * prompted + (1 - self.weight) * unprompted
        return guided
