"""Sampling in plaintext, and the ranges met on the way."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
import toy_model

from hefw.core.graph import Polynomial
from hefw.models.digits.model import Digits
from hefw.models.plugin import DigitsOptions
from hefw.models.schedules import Own
from hefw.quality import ranges as ranging
from hefw.quality import sampling
from hefw.quality.ranges import ranges


@cache
def digits() -> Digits:
    return Digits(DigitsOptions())


def drawn(count: int = 7, seed: int = 9, steps: int = 3) -> tuple[np.ndarray, np.ndarray]:
    model = digits()
    noise = sampling.start(model, model.scheduler(Own, {}), count, steps, seed)
    return sampling.sample(model, lambda: model.scheduler(Own, {}), noise, np.arange(count) % 10, steps)


def test_single_precision_gives_the_twins_latents() -> None:
    model = digits()
    noise = sampling.start(model, model.scheduler(Own, {}), 20, 5, 2)
    latents, images = sampling.sample(model, lambda: model.scheduler(Own, {}), noise, np.arange(20) % 10, 5)
    twins = model.twin(noise, np.arange(20) % 10, model.scheduler(Own, {}), 5, lambda *_: None)
    assert np.abs(latents - twins).max() < 1e-4
    assert np.array_equal(model.decode(latents), images)


def test_sampling_repeats_with_its_seed_and_does_not_depend_on_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drawn()[0]
    assert np.array_equal(whole, drawn()[0])
    assert np.abs(whole - drawn(seed=10)[0]).max() > 0.1
    monkeypatch.setattr(sampling, "BATCH", 3)
    assert np.abs(whole - drawn()[0]).max() < 1e-5
    assert np.abs(whole[:5] - drawn(5)[0]).max() < 1e-5


def test_ranges_are_those_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph's polynomials are the activations of the torch module."""
    monkeypatch.setattr(ranging, "BATCH", 4)
    model, labels = digits(), np.arange(6)
    scheduler = model.scheduler(Own, {})
    noise = sampling.start(model, scheduler, 6, 3, 4)
    found = ranges(model.graph(scheduler, 3), model.inputs(noise, labels))
    scheduler.set_timesteps(3)
    x, largest = torch.from_numpy(noise).float(), np.zeros(6)
    with torch.no_grad():
        for t in scheduler.timesteps:
            v, z = model.unet.forward_with_preactivations(x, t, torch.from_numpy(labels))
            largest = np.max([largest, *(part.abs().flatten(1).amax(1).numpy() for part in z)], axis=0)
            x = scheduler.step(v, t, x).prev_sample
    assert found.largest == pytest.approx(largest, rel=1e-4)
    assert max(found.nodes.values()) == pytest.approx(largest.max(), rel=1e-4)
    assert np.abs(model.latents(found.outputs) - x.numpy()).max() < 1e-4


def test_ranges_are_those_of_the_whole_trajectory() -> None:
    graph, inputs = toy_model.graph(), toy_model.inputs(5)
    sources = [node.source for node in graph.nodes.values() if isinstance(node, Polynomial)]
    history = graph.trajectory(inputs)
    expected = np.max([np.abs(values[source]).max(1) for values in history for source in sources], axis=0)
    found = ranges(graph, inputs)
    assert found.largest == pytest.approx(expected)
    assert found.outputs["latent"] == pytest.approx(toy_model.expected(graph, inputs))
    assert set(found.nodes) == {"a0", "a1"}
