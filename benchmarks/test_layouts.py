"""Layouts: packing and unpacking, and how long choosing them takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hefw.core.backend import Backend
from hefw.core.layout import periodic
from hefw.core.lower import Request, lower
from hefw.models.digits.model import Digits
from hefw.models.plugin import DigitsOptions
from hefw.plugins import registry
from hefw.testing.graphs import small_unet

SLOTS = 8192
FEATURES = 512


@pytest.mark.parametrize("batch", [1, 16, 512])
def test_pack(benchmark: Any, batch: int) -> None:
    layout = periodic(np.arange(FEATURES), batch, SLOTS)
    benchmark(layout.pack, np.random.default_rng(0).normal(size=(batch, FEATURES)))


@pytest.mark.parametrize("batch", [1, 16, 512])
def test_unpack(benchmark: Any, batch: int) -> None:
    layout = periodic(np.arange(FEATURES), batch, SLOTS)
    slots = layout.pack(np.random.default_rng(0).normal(size=(batch, FEATURES)))
    benchmark(layout.unpack, slots, batch)


def test_plan_a_small_network(benchmark: Any, tenseal: Backend) -> None:
    graph = small_unet()
    benchmark(lower, graph, tenseal, Request(ring_dimension=16384))


@pytest.mark.parametrize("images", [1, 16])
def test_plan_digits(benchmark: Any, tenseal: Backend, images: int) -> None:
    model = Digits(DigitsOptions())
    graph = model.graph(model.scheduler(registry().load("scheduler", "ddim"), {}), 10)
    request = Request(ring_dimension=16384, images=images)
    benchmark.pedantic(lower, (graph, tenseal, request), rounds=1)
