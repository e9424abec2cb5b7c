"""Small UNets whose activations are quadratics: what can be compiled, for tests and benchmarks."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

DOWN, UP = "DownBlock2D", "UpBlock2D"
RESNET_DOWN, RESNET_UP = "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"
SMALL = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "add_attention": False,
}


def blocks(channels: tuple[int, ...], down: str = DOWN, up: str = UP, **more: Any) -> dict[str, Any]:
    """The configuration of a UNet2DModel with these channels, one resolution each."""
    count = len(channels)
    kinds = {"down_block_types": (down,) * count, "up_block_types": (up,) * count}
    return {**SMALL, "block_out_channels": channels, **kinds, **more}


#: UNet2DModels of many kinds, all of 8 x 8 pixels.
CONFIGURATIONS = {
    "one resolution": blocks((4,)),
    "two resolutions": blocks((4, 8)),
    "three resolutions": blocks((4, 4, 8)),
    "resnet blocks": blocks((4, 8), RESNET_DOWN, RESNET_UP),
    "resnet down- and up-sampling": blocks((4, 8), downsample_type="resnet", upsample_type="resnet"),
    "three channels, two layers": blocks((4, 8), in_channels=3, out_channels=3, layers_per_block=2),
    "classes": blocks((4, 8), num_class_embeds=5),
    "learned time embedding": blocks((4,), time_embedding_type="learned", num_train_timesteps=1000),
}

#: A UNet2DConditionModel without attention.
CONDITIONAL = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": (DOWN, DOWN),
    "up_block_types": (UP, UP),
    "mid_block_type": None,
    "block_out_channels": (4, 8),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 8,
}


class Quadratic(nn.Module):  # type: ignore[misc]
    """b x + a x^2 with coefficients per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(channels)
        self.a = nn.Parameter(0.05 + 0.1 * torch.rand(channels, generator=generator))
        self.b = nn.Parameter(0.5 + torch.rand(channels, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b[:, None, None] * x + self.a[:, None, None] * x * x


class Static(nn.Module):  # type: ignore[misc]
    """A fixed scale and shift per channel, in place of a norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.linspace(0.5, 1, channels)), nn.Parameter(torch.ones(channels) / 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale[:, None, None] * x + self.shift[:, None, None]


def polynomial(net: nn.Module) -> nn.Module:
    """A diffusers UNet without SiLU and GroupNorm on the picture's way; the time embedding keeps its own."""
    for part in list(net.modules()):
        if hasattr(part, "nonlinearity") and hasattr(part, "time_emb_proj"):
            part.norm1 = Static(part.norm1.num_channels)
            part.norm2 = Static(part.norm2.num_channels)
            part.nonlinearity = _PerUse(part.conv1.in_channels, part.conv2.in_channels)
    net.conv_norm_out, net.conv_act = nn.Identity(), Quadratic(net.conv_out.in_channels)
    return net.eval()


class _PerUse(nn.Module):  # type: ignore[misc]
    """diffusers has one module for pictures (4 dimensions) and for the time embedding (2)."""

    def __init__(self, *channels: int) -> None:
        super().__init__()
        self.quadratics = nn.ModuleDict({str(count): Quadratic(count) for count in channels})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.quadratics[str(x.shape[1])](x) if x.ndim == 4 else functional.silu(x)


class Plain(nn.Module):  # type: ignore[misc]
    """A UNet as people write it by hand: strided and transposed convolutions, groups, dilation, pooling, pow."""

    def __init__(self, classes: int | None = None) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.time = nn.Sequential(nn.Linear(1, 16), nn.SiLU(), nn.Linear(16, 8))
        self.down = nn.Conv2d(8, 16, 4, stride=2, padding=1, groups=2)
        self.middle = nn.Conv2d(16, 16, 3, padding=2, dilation=2)
        self.norm = nn.BatchNorm2d(16)
        self.up = nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1)
        self.last = nn.Conv2d(16, 2, 1)
        self.labels = nn.Embedding(classes, 8) if classes else None
        self.norm.running_mean += torch.randn(16)
        self.norm.running_var *= 2

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        emb = self.time(t.to(x.dtype)[:, None] / 1000)
        if self.labels is not None:
            emb = emb + self.labels(y)
        h = self.first(x) + emb[:, :, None, None]
        skip = h + 0.1 * h**2
        h = self.norm(self.down(skip))
        h = 0.3 * h.pow(3) + h
        a, b = self.middle(h).chunk(2, dim=1)
        h = torch.cat([b, a], dim=1) + functional.interpolate(functional.avg_pool2d(h, 2), scale_factor=2)
        h = functional.pad(self.up(h), (0, 0, 0, 0))
        return self.last(torch.cat([h * h, skip], 1)) - x / 2
