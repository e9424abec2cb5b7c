"""The graph of the bundled digits model is its torch twin, before and after the passes; its program is shallow."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

import hefw.models.digits.graph
from hefw.backends.simulator.backend import SimulatorBackend
from hefw.core.errors import LoweringError, SchedulerError
from hefw.core.graph import Graph
from hefw.core.lower import Request, lower
from hefw.core.normalise import normalise
from hefw.core.params import CkksParams
from hefw.models.digits.graph import digits_graph
from hefw.models.digits.model import Digits
from hefw.models.digits.unet import DigitsUNet
from hefw.models.plugin import DigitsOptions
from hefw.models.schedules import LinearUpdate, initial_noise, linear_updates
from hefw.plugins import registry

WEIGHTS = Path(hefw.models.digits.graph.__file__).parent / "weights" / "digits"
STEPS = 10


@cache
def bundled() -> tuple[DigitsUNet, list[LinearUpdate], Graph]:
    model = DigitsUNet.from_pretrained(WEIGHTS).eval()
    updates = list(linear_updates(DDIMScheduler.from_pretrained(WEIGHTS), STEPS))
    return model, updates, digits_graph(model, updates)


def inputs(images: int = 10) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    return {"latent": rng.normal(size=(images, 64)), "label": np.eye(10)[np.arange(images) % 10]}


@pytest.mark.parametrize("step", [0, 3, 7, STEPS - 1])
@pytest.mark.parametrize("passes", ["as built", "normalised"])
def test_a_step_is_the_schedulers_update_of_the_twins_prediction(step, passes) -> None:
    model, updates, graph = bundled()
    if passes == "normalised":
        graph = normalise(graph)
    values, update = inputs(), updates[step]
    latent = torch.tensor(values["latent"], dtype=torch.float32).reshape(-1, 1, 8, 8)
    with torch.no_grad():
        v = model(latent, update.timestep, torch.arange(10)).sample.reshape(10, 64).numpy()
    expected = update.sample * values["latent"] + update.predictions[0] * v
    output = graph.outputs["latent"]
    found = graph.evaluate(step, values)[output.node] * output.factors[step]
    assert np.abs(found - expected).max() < 1e-5


def test_the_whole_schedule_is_what_diffusers_draws() -> None:
    model, _, graph = bundled()
    scheduler = DDIMScheduler.from_pretrained(WEIGHTS)
    scheduler.set_timesteps(STEPS)
    values = inputs()
    x = torch.tensor(values["latent"], dtype=torch.float32).reshape(-1, 1, 8, 8)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(model(x, t, torch.arange(10)).sample, t, x).prev_sample
    output = graph.outputs["latent"]
    found = graph.trajectory(values)[-1][output.node] * output.factors[-1]
    assert np.abs(found - x.reshape(10, 64).numpy()).max() < 1e-4
    assert graph.timesteps == tuple(int(t) for t in scheduler.timesteps)


def test_the_label_and_the_timestep_matter() -> None:
    _, _, graph = bundled()
    values = inputs()
    base = graph.evaluate(0, values)["update"]
    assert (
        np.abs(graph.evaluate(0, {**values, "label": np.roll(values["label"], 1, axis=1)})["update"] - base).max()
        > 0.01
    )
    assert np.abs(graph.evaluate(5, values)["update"] - base).max() > 0.01


def test_the_model_given_is_left_as_it_was() -> None:
    model, updates, graph = bundled()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert digits_graph(model, updates).digest == graph.digest


def test_the_graph_file_keeps_the_digest(tmp_path) -> None:
    graph = bundled()[2]
    graph.save(tmp_path / "digits")
    assert Graph.load(tmp_path / "digits").digest == graph.digest


def test_the_program_is_shallow_and_carries_sixteen_images() -> None:
    graph = bundled()[2]
    flat = normalise(graph)
    assert len(flat.nodes) == 2 + 5 + 4  # inputs, affine regions, squares
    params = CkksParams(16384, (60,) * 6, (60,), 34.0)
    program = lower(graph, SimulatorBackend(), Request(params=params))
    assert program.interface.depth <= 10
    assert program.interface.batch >= 16
    assert program.params.params.security_bits >= 128
    assert program.interface.forecast_db >= 50


def test_a_schedule_that_ignores_the_prediction_is_refused() -> None:
    model, updates, _ = bundled()
    idle = dataclasses.replace(updates[0], predictions=(0.0,))
    with pytest.raises(SchedulerError, match="use fewer steps"):
        digits_graph(model, [idle])


def test_a_scheduler_that_adds_noise_is_refused() -> None:
    model, updates, _ = bundled()
    with pytest.raises(SchedulerError, match=r"stochastic.*update-only"):
        digits_graph(model, [dataclasses.replace(updates[0], noise=True)])


@pytest.mark.parametrize("name", ["ddim", "euler", "pndm", "lms", "dpm-solver++", "unipc"])
def test_every_schedulers_trajectory_is_the_twins(name) -> None:
    """With histories, with an input that the scheduler scales, and at fractional timesteps."""
    digits = Digits(DigitsOptions())
    kind = registry().load("scheduler", name)
    scheduler = digits.scheduler(kind, {"timestep_spacing": "linspace"})
    graph = digits.graph(scheduler, STEPS)
    labels = np.arange(10)
    start = np.random.default_rng(5).normal(size=(10, 1, 8, 8)) * initial_noise(scheduler, STEPS)
    history = {name: np.zeros((10, 64)) for name in graph.inputs}
    output = graph.outputs["latent"]
    found = [
        values[output.node] * output.factors[step]
        for step, values in enumerate(graph.trajectory(history | digits.inputs(start, labels)))
    ]
    expected: dict[int, np.ndarray] = {}
    digits.twin(start, labels, scheduler, STEPS, lambda step, x: expected.update({step: x.reshape(10, 64).copy()}))
    assert len(found) == len(expected) == graph.steps
    for step, latent in enumerate(found):
        assert np.abs(latent - expected[step]).max() < 1e-3 * max(1.0, np.abs(latent).max()), f"step {step}"


def test_a_history_of_several_steps_is_not_unrolled() -> None:
    digits = Digits(DigitsOptions())
    graph = digits.graph(digits.scheduler(registry().load("scheduler", "lms"), {}), STEPS)
    assert any(node.previous for node in graph.inputs.values())
    for request in (Request(every=2), Request(bootstrap=True)):
        with pytest.raises(LoweringError, match="goes back several steps"):
            lower(graph, SimulatorBackend(), request)
