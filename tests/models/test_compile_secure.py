"""Compiled networks at 128 bits: one denoising step on ciphertext beside the module."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel, UNet2DModel
from torch import nn

import hefw
from hefw.backends.tenseal.backend import TensealBackend
from hefw.core.graph import Graph
from hefw.core.lower import Request, lower
from hefw.models.convert import Distillation, convert
from hefw.testing.session import Session, plain, psnr
from hefw.testing.unets import CONDITIONAL, RESNET_DOWN, RESNET_UP, Plain, blocks

pytestmark = [pytest.mark.secure, pytest.mark.filterwarnings("ignore")]

STEPS = 2


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(clip_sample=False, prediction_type="v_prediction")


def check_a_step(graph: Graph, shape: tuple[int, ...], classes: int | None = None) -> None:
    program = lower(graph, TensealBackend(), Request(precision_db=60))
    assert program.interface.params.params.security_bits >= 128
    images = min(2, program.interface.images)
    inputs = {"latent": np.random.default_rng(0).normal(size=(images, int(np.prod(shape))))}
    if classes is not None:
        inputs["label"] = np.eye(classes)[np.arange(images)]
    session = Session(program, TensealBackend())
    session.begin(inputs)
    output = graph.outputs["latent"]
    found = session.step(0, inputs)["latent"] * output.factors[0]
    # that the graph is the module, compiling has checked
    expected = plain(graph, inputs)[0]["latent"]
    assert psnr(found, expected) > 55


def test_a_step_of_a_plain_unet_is_the_modules() -> None:
    torch.manual_seed(0)
    graph = hefw.compile(Plain().eval(), (2, 8, 8), scheduler=scheduler(), steps=STEPS)
    check_a_step(graph, (2, 8, 8))


#: UNets of diffusers as they come, to be converted for 9 levels.
UNETS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "three resolutions": (UNet2DModel, blocks((4, 4, 8))),
    "resnet blocks, classes": (UNet2DModel, blocks((4, 8), RESNET_DOWN, RESNET_UP, num_class_embeds=5)),
    "conditional, classes": (UNet2DConditionModel, CONDITIONAL | {"num_class_embeds": 5}),
}


@pytest.mark.parametrize("name", UNETS)
def test_a_step_of_a_converted_unet_of_diffusers_is_the_modules(name: str) -> None:
    torch.manual_seed(0)
    kind, configuration = UNETS[name]
    unet = kind(**configuration).eval()
    net = convert(unet, scheduler=scheduler(), steps=STEPS, levels=9, distillation=Distillation(iterations=0))
    shape, classes = (configuration["in_channels"], 8, 8), configuration.get("num_class_embeds")
    graph = hefw.compile(net.eval(), shape, scheduler=scheduler(), steps=STEPS, classes=classes)
    check_a_step(graph, shape, classes)
