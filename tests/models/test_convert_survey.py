"""Where a network cannot be evaluated on ciphertext: found by what is computed, and refused where nothing helps."""

from __future__ import annotations

import pytest
import torch
from convert_nets import CLASSES, SHAPE, Branches, Tiny, scheduler, seeded
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import nn
from torch.nn import functional

from hefw.core.errors import CompileError
from hefw.models.convert import convert
from hefw.models.convert.survey import survey

TIMESTEPS = torch.tensor([999, 499])


def test_all_places_are_found_in_order_of_execution():
    sites = survey(seeded(Tiny), SHAPE, TIMESTEPS, CLASSES)
    assert [(s.place, s.operator, s.kind) for s in sites] == [
        ("act", "silu", "conditioning"),
        ("norm", "group_norm", "norm"),
        ("act#2", "silu", "activation"),
        ("silu", "silu", "activation"),
        ("norm2", "layer_norm", "norm"),
        ("scaled_dot_product_attention",) * 2 + ("attention",),
        ("act#3", "silu", "activation"),
    ]
    channels = [s.channels for s in sites if s.kind in ("norm", "activation")]
    assert channels == [4] * 5


def test_places_know_what_they_read():
    sites = {s.place: s for s in survey(seeded(Branches), SHAPE, TIMESTEPS, None)}
    assert [sites[f"acts.{k}"].follows for k in range(3)] == [frozenset(), {sites["acts.0"].number}, frozenset()]


def test_what_depends_on_the_timestep_alone_or_on_the_label_alone_stays():
    class Apart(nn.Module):
        def __init__(self):
            super().__init__()
            self.label, self.act = nn.Embedding(CLASSES, 1), nn.SiLU()

        def forward(self, x, t, y):
            return x + (self.act(self.label(y)) + self.act(t[:, None] / 1000))[:, :, None, None]

    assert survey(seeded(Apart), SHAPE, TIMESTEPS, CLASSES) == []


class InPlace(nn.Module):
    def forward(self, x, t):
        h = 2 * x
        return functional.relu(h, inplace=True) + h


class Masked(nn.Module):
    def forward(self, x, t):
        return functional.scaled_dot_product_attention(x, x, x, attn_mask=torch.zeros(4, 4))


class Cross(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Parameter(torch.zeros(1, 1, 7, 4))

    def forward(self, x, t):
        tokens = self.tokens.expand(len(x), -1, -1, -1)
        return functional.scaled_dot_product_attention(x, tokens, tokens)


class Multihead(nn.Module):
    def __init__(self):
        super().__init__()
        self.deep = nn.Sequential(nn.MultiheadAttention(4, 1))

    def forward(self, x, t):
        return self.deep[0](x, x, x)[0]


class Wrong(nn.Module):
    def forward(self, x, t):
        return x[:, :, :2]


SMALL = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (4,),
    "layers_per_block": 1,
    "norm_num_groups": 2,
}
SCALED = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "add_attention": False}


def scale_shift():
    return UNet2DModel(**SMALL, **SCALED, resnet_time_scale_shift="scale_shift")


def prompted():
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    return UNet2DConditionModel(**SMALL, **blocks, cross_attention_dim=4, attention_head_dim=2)


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (
            scale_shift,
            (1, 8, 8),
            r"'down_blocks.0.resnets.0' multiplies .*scale_shift.*resnet_time_scale_shift='default'",
        ),
        (prompted, (1, 8, 8), r"attn2' attends to encoder hidden states.*use UNet2DModel"),
        (Multihead, SHAPE, r"'deep.0' is a torch.nn.MultiheadAttention.*scaled_dot_product_attention"),
        (InPlace, SHAPE, r"changed in place.*inplace=False"),
        (Masked, SHAPE, r"attention with a mask is not supported"),
        (Cross, SHAPE, r"attention of \(2, 1, 4, 4\) to \(2, 1, 7, 4\) is not supported.*cross-attention"),
        (Wrong, SHAPE, r"Wrong returns \(2, 1, 2, 4\) for samples of \(2, 1, 4, 4\)"),
        (lambda: nn.Sequential(nn.Dropout(0.5)).train(), SHAPE, r"training mode|forward"),
    ],
    ids=["scale_shift", "prompt", "multihead", "in place", "mask", "cross", "shape", "training"],
)
def test_what_cannot_be_converted_is_refused_by_its_place(make, shape, message):
    with pytest.raises(CompileError, match=message):
        convert(make(), scheduler=scheduler(), steps=2, sample_shape=shape)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 2}, r"levels=2 is not allowed; allowed: 3"),
        ({"levels": "9"}, r"levels='9' is not allowed"),
        ({"degree": 3}, r"degree=3 is not allowed; allowed: even numbers from 2 to 16"),
        (
            {"attention": "softmax"},
            r"attention='softmax' is not allowed; allowed: zero, mean, linear kernel, quadratic",
        ),
        ({"keep": ["act"]}, r"keep has 'act', which is no activation; allowed: acts.0, acts.1, acts.2"),
        ({"keep": ["acts.0", "acts.1"], "levels": 3}, r"takes 5 levels; levels=3 allows fewer"),
        ({"sample_shape": None}, r"sample_shape=None is not allowed for Branches"),
        ({"classes": 0}, r"classes=0 is not allowed"),
    ],
)
def test_arguments_that_are_not_allowed(arguments, message):
    with pytest.raises(CompileError, match=message):
        convert(seeded(Branches), scheduler=scheduler(), steps=2, **({"sample_shape": SHAPE} | arguments))
