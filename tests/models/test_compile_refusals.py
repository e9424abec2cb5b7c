"""Modules that cannot be compiled: one clear line each, which names the place and what can be done."""

from __future__ import annotations

import re

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from torch import nn
from torch.nn import functional

import hefw
from hefw.core.errors import CompileError, SchedulerError

SHAPE = (1, 4, 4)


class Net(nn.Module):
    """A convolution, then what a test does with it: a function of (h, x, t), or a module."""

    def __init__(self, then=None, block: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.block = block
        self.then = then

    def forward(self, x, t):
        h = self.conv(x)
        h = h if self.block is None else self.block(h)
        return h if self.then is None else self.then(h, x, t)


class Inner(nn.Module):
    """A module of its own around a function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, h):
        return self.function(h)


def inner(function) -> nn.Module:
    """A network whose module `block` computes the function."""
    return Net(block=Inner(function))


@torch.library.custom_op("hefw_tests::mystery", mutates_args=())
def mystery(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


@mystery.register_fake
def _(x):
    return torch.empty_like(x)


def broken(value: float) -> nn.Module:
    net = Net()
    with torch.no_grad():
        net.conv.weight[0, 0, 0, 0] = value
    return net


def attention(h):
    q = h.reshape(1, 1, 16, 1)
    return functional.scaled_dot_product_attention(q, q, q).reshape(1, 1, 4, 4)


def batch_norm() -> nn.Module:
    return Net(block=nn.BatchNorm2d(1)).train()


def dropout() -> nn.Module:
    return Net(block=nn.Dropout(0.5)).train()


class NoTime(nn.Module):
    def forward(self, x):
        return x


class Idle(nn.Module):
    pass


def complex_weights() -> nn.Module:
    net = Net()
    net.register_buffer("phase", torch.zeros(1, dtype=torch.complex64))
    return net


def in_place(h, x, t):
    x.add_(1)
    return h + x


def scale_shift() -> nn.Module:
    kinds = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    net = UNet2DModel(
        4, 1, 1, block_out_channels=(4,), layers_per_block=1, norm_num_groups=2, add_attention=False,
        resnet_time_scale_shift="scale_shift", **kinds
    ).eval()  # fmt: skip
    for part in list(net.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(part, name, nn.Identity())
        if hasattr(part, "nonlinearity"):
            part.nonlinearity = nn.Identity()
    net.conv_act = nn.Identity()
    return net


CASES = {
    "control flow by data": (lambda: inner(lambda h: h if h.sum() > 0 else -h), "'block'.*decides by the values"),
    "a loop as long as data say": (lambda: inner(lambda h: h[: int(h.sum().item())]), "'block'.*decides by the values"),
    "a shape that depends on values": (lambda: inner(lambda h: h[h > 0].sum() * h), "'block'"),
    "softmax": (lambda: inner(lambda h: h.softmax(-1)), "'block'.*softmax.*exponentials.*replace"),
    "attention": (lambda: inner(attention), "'block'.*scaled_dot_product_attention.*drop the attention"),
    "SiLU": (lambda: inner(functional.silu), "'block'.*'silu' is no polynomial: replace"),
    "GELU": (lambda: inner(functional.gelu), "'block'.*'gelu' is no polynomial"),
    "ReLU": (lambda: inner(functional.relu), "'block'.*'relu' is no polynomial"),
    "GroupNorm": (lambda: inner(lambda h: functional.group_norm(h, 1)), "'block'.*'group_norm' divides.*fixed scale"),
    "LayerNorm": (lambda: inner(lambda h: functional.layer_norm(h, (4, 4))), "'block'.*'layer_norm' divides"),
    "BatchNorm in training mode": (batch_norm, r"'block' \(BatchNorm2d\) is in training mode.*call eval\(\)"),
    "dropout in training mode": (dropout, r"'block' \(Dropout\) is in training mode.*call eval\(\)"),
    "random numbers": (lambda: inner(lambda h: h + torch.randn(1, 1, 4, 4)), "'block'.*draws random numbers"),
    "complex weights": (complex_weights, "buffer 'phase' is complex"),
    "complex numbers": (lambda: inner(lambda h: torch.fft.fft2(h).real), "'block'.*complex numbers"),
    "NaN weights": (lambda: broken(float("nan")), "'conv.weight'.*not finite"),
    "infinite weights": (lambda: broken(float("inf")), "'conv.weight'.*not finite"),
    "a custom operator": (lambda: inner(lambda h: mystery(h)), "'block'.*'hefw_tests::mystery'.*no rule"),
    "division by the sample": (lambda: inner(lambda h: 1 / (h * h + 1)), "'block'.*reciprocal.*divides"),
    "division of two": (lambda: inner(lambda h: h / (h * h + 1)), "'block'.*divides by an encrypted value"),
    "division by zero": (lambda: inner(lambda h: h / torch.zeros(1)), "'block'.*not finite.*division by zero"),
    "a comparison": (lambda: inner(lambda h: torch.where(h > 0, h, 2 * h)), "'block'.*compares"),
    "clamping": (lambda: inner(lambda h: h.clamp(-1, 1)), "'block'.*compares"),
    "a maximum": (lambda: inner(lambda h: functional.max_pool2d(h, 3, 1, 1)), "'block'.*average pooling"),
    "a root": (lambda: inner(lambda h: h.abs().sqrt()), "'block'.*compares"),
    "a fractional power": (lambda: inner(lambda h: h**0.5), r"'block'.*'pow' raises to 0.5"),
    "too high a degree": (lambda: inner(lambda h: h**17), "'block'.*whole numbers from 1 to 16"),
    "too high a product": (lambda: inner(lambda h: h**9 * h**9), "'block'.*degree 18"),
    "rounding": (lambda: inner(lambda h: h.to(torch.int64).double()), "'block'.*rounds"),
    "a bilinear operator": (lambda: inner(lambda h: functional.conv2d(h, 2 * h)), "'block'.*two encrypted.*a @ b"),
    "an integer input": (lambda: Net(lambda h, x, t: functional.embedding(x, torch.ones(3, 1))), "cannot be exported"),
    "another shape": (lambda: inner(lambda h: torch.cat([h, h], 1)), r"returns \(2, 4, 4\) for a sample of"),
    "a number": (lambda: inner(lambda h: h.sum()), "returns a number"),
    "no dependence": (lambda: Net(lambda h, x, t: torch.zeros_like(x)), "does not depend on the sample"),
    "no tensor": (lambda: inner(lambda h: {"h": h}), "returns a dict"),
    "no forward": (Idle, "has no forward"),
    "no timestep": (NoTime, r"cannot be called as forward\(x, t\).*wrap it"),
    "no module": (lambda: nn.functional.silu, "a builtin_function_or_method was given|a function was given"),
    "in place": (lambda: Net(in_place), "changes 'x' in place"),
    "scale and shift": (scale_shift, "'down_blocks.0.resnets.0'.*change with the timestep.*default"),
    "weights by timestep": (
        lambda: Net(lambda h, x, t: functional.conv2d(x, (t / 100.0).reshape(1, 1, 1, 1))),
        "'convolution' has weights that change with the timestep",
    ),
    "float32 by hand": (lambda: Net(lambda h, x, t: h + (t.float() * 3) @ x.new_ones(1, 4)), "float32 and float64"),
    "mixed images": (lambda: inner(lambda h: h - h.mean(0)), "nothing to encrypt|does not depend|mix the images"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_in_one_line(case) -> None:
    make, expected = CASES[case]
    with pytest.raises(CompileError) as caught:
        hefw.compile(make(), SHAPE, scheduler=DDIMScheduler(clip_sample=False), steps=2)
    message = str(caught.value)
    assert re.search(expected, message), message
    assert "\n" not in message
    assert len(message) < 600


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((1, None, 4), {}, r"sample_shape \(1, None, 4\) is not allowed.*one size"),
        ((), {}, r"sample_shape \(\) is not allowed"),
        (4, {}, "sample_shape 4 is not allowed"),
        ((1, 0, 4), {}, r"\(1, 0, 4\) is not allowed"),
        ((64, 1024, 1024), {}, "more than 1048576 entries"),
        (SHAPE, {"classes": 0}, "classes=0 is not allowed"),
        (SHAPE, {"classes": 3}, r"cannot be called as forward\(x, t, y\)"),
        (SHAPE, {"arguments": {"context": 1}}, "no argument 'context'"),
        (SHAPE, {"calibration": torch.zeros(3, 2, 4, 4)}, r"calibration of 'latent' of shape \(3, 2, 4, 4\) is not"),
    ],
)
def test_what_is_asked_is_checked(shape, options, expected) -> None:
    with pytest.raises(CompileError, match=expected):
        hefw.compile(Net(), shape, scheduler=DDIMScheduler(clip_sample=False), steps=2, **options)


def test_a_scheduler_that_adds_noise_is_refused() -> None:
    with pytest.raises(SchedulerError, match="stochastic"):
        hefw.compile(Net(), SHAPE, scheduler=DDPMScheduler(clip_sample=False), steps=2)
