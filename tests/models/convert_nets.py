"""Small networks with everything that a conversion replaces, and a scheduler for them."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler
from torch import nn
from torch.nn import functional

SHAPE = (1, 4, 4)
CLASSES = 3


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        thresholding=False,
    )


class Tiny(nn.Module):
    """A norm, three activations (one a function, two by one module), attention, timestep and label."""

    def __init__(self, channels: int = 4, groups: int = 2) -> None:
        super().__init__()
        self.time = nn.Linear(1, 8)
        self.label = nn.Embedding(CLASSES, 8)
        self.embed = nn.Linear(8, channels)
        self.inp = nn.Conv2d(1, channels, 3, padding=1)
        self.norm = nn.GroupNorm(groups, channels)
        self.act = nn.SiLU()
        self.mid = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x, t, y):
        embedded = self.act(self.time(t[:, None] / 1000) + self.label(y))
        h = self.mid(self.act(self.norm(self.inp(x))))
        h = h + functional.silu(h + self.embed(embedded)[:, :, None, None])
        tokens = functional.avg_pool2d(h, 2).flatten(2).transpose(1, 2)
        heads = self.qkv(self.norm2(tokens)).reshape(len(x), 4, 3, 2, -1).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        attended = attended.transpose(1, 2).reshape(len(x), 4, -1).transpose(1, 2).reshape(len(x), -1, 2, 2)
        return self.out(self.act(h + functional.interpolate(attended, scale_factor=2.0)))


class Branches(nn.Module):
    """Two branches of two activations and of one, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 2, 3, padding=1)
        self.b = nn.Conv2d(2, 2, 3, padding=1)
        self.c = nn.Conv2d(1, 2, 3, padding=1)
        self.d = nn.Conv2d(4, 1, 1)
        self.acts = nn.ModuleList(nn.ReLU() if k else nn.GELU() for k in range(3))

    def forward(self, x, t):
        left = self.acts[1](self.b(self.acts[0](self.a(x))))
        right = self.acts[2](self.c(x))
        return self.d(torch.cat([left, right], 1))


class Attending(nn.Module):
    """The sample, and a share of what its pixels attend to."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.qkv, self.out = nn.Linear(1, 12), nn.Linear(4, 1)

    def forward(self, x, t):
        query, key, value = self.qkv(x.flatten(2).transpose(1, 2))[:, None].chunk(3, -1)
        attended = functional.scaled_dot_product_attention(query, key, value)
        return (1 - self.share) * x + self.share * self.out(attended[:, 0]).transpose(1, 2).reshape(x.shape)


def seeded(make, seed: int = 0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()
