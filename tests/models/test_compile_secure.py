"""A compiled network at 128 bits: one denoising step on ciphertext beside the module."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

import hefw
from hefw.backends.tenseal.backend import TensealBackend
from hefw.core.lower import Request, lower
from hefw.testing.session import Session, plain, psnr
from hefw.testing.unets import Plain

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.secure
def test_a_step_of_a_plain_unet_is_the_modules() -> None:
    torch.manual_seed(0)
    scheduler = DDIMScheduler(clip_sample=False, prediction_type="v_prediction")
    graph = hefw.compile(Plain().eval(), (2, 8, 8), scheduler=scheduler, steps=2)
    program = lower(graph, TensealBackend(), Request(precision_db=60))
    assert program.interface.params.params.security_bits >= 128
    inputs = {"latent": np.random.default_rng(0).normal(size=(2, 128))}
    session = Session(program, TensealBackend())
    session.begin(inputs)
    output = graph.outputs["latent"]
    found = session.step(0, inputs)["latent"] * output.factors[0]
    # that the graph is the module, compiling has checked
    expected = plain(graph, inputs)[0]["latent"]
    assert psnr(found, expected) > 55
