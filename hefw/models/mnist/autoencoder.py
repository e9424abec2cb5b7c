"""Pictures to small latents and back: both halves run at the key holder, in the clear."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional

#: Pixels of one place of a latent, along each side.
PATCH = 4
BATCH = 250


class Residual(nn.Module):  # type: ignore[misc]
    """x + conv(silu(norm(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(functional.silu(self.norm(x)))


class Autoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """28x28 pictures, black -1 and white 1, to latents of mean 0 and deviation 1 in every channel, and back.

    A picture is padded with black to a multiple of eight, so that latents have two resolutions without remainder.

    Args:
        image_size: height and width of a picture.
        latent_channels: channels of a latent, whose sides are a quarter of the padded picture's.
        channels: width of both halves.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, image_size: int = 28, latent_channels: int = 2, channels: int = 64) -> None:
        super().__init__()
        self.margin = -image_size % (2 * PATCH) // 2
        half = channels // 2
        self.encoder = nn.Sequential(
            nn.Conv2d(PATCH * PATCH, channels, 3, padding=1),
            Residual(channels),
            Residual(channels),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, latent_channels, 3, padding=1),
        )
        self.standardise = nn.BatchNorm2d(latent_channels, affine=False, momentum=0.01)
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, channels, 3, padding=1),
            Residual(channels),
            Residual(channels),
            Residual(channels),
            nn.Conv2d(channels, 4 * half, 3, padding=1),
            nn.PixelShuffle(2),
            Residual(half),
            nn.GroupNorm(8, half),
            nn.SiLU(),
            nn.Conv2d(half, 4, 3, padding=1),
            nn.PixelShuffle(2),
        )

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of a latent."""
        size = (self.config.image_size + 2 * self.margin) // PATCH
        return self.config.latent_channels, size, size

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images (count, 1, size, size) -> latents (count, *latent_shape)."""
        padded = functional.pad(images, (self.margin,) * 4, value=-1.0)
        latents: torch.Tensor = self.standardise(self.encoder(functional.pixel_unshuffle(padded, PATCH)))
        return latents

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (count, *latent_shape) -> images (count, 1, size, size) within [-1, 1]."""
        size = self.config.image_size
        images: torch.Tensor = torch.tanh(self.decoder(latents))
        return images[:, :, self.margin : self.margin + size, self.margin : self.margin + size]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images and their reconstructions have the same shape."""
        return self.decode(self.encode(images))


@torch.no_grad()  # type: ignore[untyped-decorator]
def encode(autoencoder: Autoencoder, images: torch.Tensor) -> torch.Tensor:
    """`Autoencoder.encode` of any number of images."""
    return torch.cat([autoencoder.encode(batch) for batch in images.split(BATCH)])


@torch.no_grad()  # type: ignore[untyped-decorator]
def decode(autoencoder: Autoencoder, latents: torch.Tensor) -> torch.Tensor:
    """`Autoencoder.decode` of any number of latents."""
    return torch.cat([autoencoder.decode(batch) for batch in latents.split(BATCH)])
