"""Matrix products of two encrypted tensors: sums of products, of any shape that attention has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn

import hefw
from hefw.core.errors import CompileError
from hefw.core.graph import Polynomial

SHAPE = (4, 2, 3)
STEPS = 2


class Attending(nn.Module):
    """Scores of 6 tokens by a kernel that is a polynomial, and what they read; no batch axis is left in between."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.query, self.key = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        q, k = self.query(x).flatten(2), self.key(x).flatten(2)
        if self.kind == "heads":  # two of them, folded into one axis with the batch of one
            q, k, v = (z.reshape(-1, 2, 6) for z in (q, k, x))
            read = (1 + torch.bmm(q.mT, k) / 2) ** 2 @ v.mT
            return x + read.mT.reshape(x.shape) / 6
        v = x.flatten(2)
        return x + (v @ v.mT @ q).reshape(x.shape) / 6  # one tensor on both sides


@pytest.mark.parametrize("kind", ["heads", "itself"])
def test_products_are_the_modules(kind: str) -> None:
    """`compile` compares every step with the module; here they are compared once more, on other samples."""
    torch.manual_seed(0)
    module = Attending(kind).double().eval()
    scheduler = DDIMScheduler(clip_sample=False)
    graph = hefw.compile(module, SHAPE, scheduler=scheduler, steps=STEPS)
    assert sum(isinstance(node, Polynomial) for node in graph.nodes.values()) >= 4
    sample = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    history = graph.trajectory({"latent": sample.reshape(5, -1).numpy()})
    scheduler.set_timesteps(STEPS)
    with torch.no_grad():
        for t in scheduler.timesteps:
            sample = scheduler.step(module(sample, t), t, sample).prev_sample
    output = graph.outputs["latent"]
    found = history[-1][output.node] * output.factors[-1]
    np.testing.assert_allclose(found, sample.reshape(5, -1).numpy(), rtol=1e-9, atol=1e-9)


class Wide(nn.Module):
    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        v = x.flatten(2)
        return x + (v.mT @ v).mean() * x


def test_too_many_products_are_refused() -> None:
    with pytest.raises(CompileError, match=r"256x2 by 2x256.*131,072 products; at most 65,536.*fewer tokens"):
        hefw.compile(Wide(), (2, 16, 16), scheduler=DDIMScheduler(clip_sample=False), steps=1)
