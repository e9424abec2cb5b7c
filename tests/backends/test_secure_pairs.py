"""One step of `digits` at 128 bits with two images a slot, on every library: the pictures of the plaintext twin."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from hefw.backends.choose import make
from hefw.core.graph import Graph
from hefw.core.lower import Request, lower
from hefw.models.digits.model import Digits
from hefw.models.plugin import DigitsOptions
from hefw.plugins import registry
from hefw.testing.session import Session, psnr

STEPS, IMAGES, DECIBELS = 10, 32, 40


@cache
def digits() -> tuple[Graph, dict[str, np.ndarray]]:
    """Its graph, and noise and labels for as many images as two a slot hold."""
    model = Digits(DigitsOptions())
    graph = model.graph(model.scheduler(registry().load("scheduler", "ddim"), {}), STEPS)
    latents = np.random.default_rng(0).normal(size=(IMAGES, *model.latent_shape))
    return graph, model.inputs(latents, np.arange(IMAGES) % 10)


@pytest.mark.secure
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["tenseal", "openfhe", "pyfhel"])
def test_a_step_of_32_digits_in_ciphertexts_for_16(name) -> None:
    graph, inputs = digits()
    entry = registry().entry("backend", name)
    backend = make(entry, entry.options())
    program = lower(graph, backend, Request(DECIBELS, images=IMAGES))
    assert program.params.params.security_bits >= 128
    assert program.interface.pairs
    assert program.interface.images == 2 * program.interface.batch == IMAGES
    session = Session(program, backend)
    session.begin(inputs)
    wanted = graph.evaluate(0, inputs)[graph.outputs["latent"].node]
    found = session.step(0, inputs)["latent"]
    assert min(psnr(one, other) for one, other in zip(found, wanted, strict=True)) > DECIBELS
