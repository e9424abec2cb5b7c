"""Every scheduler that hefw registers, with a model of the package: sampled as it stands, and with an updater."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hefw.core.errors import SchedulerError
from hefw.models.digits.model import Digits
from hefw.models.encrypted import encrypted
from hefw.models.plugin import DigitsOptions, hefw_schedulers
from hefw.models.schedules import LinearUpdate, initial_noise, linear_updates
from hefw.plugins import registry

Array = NDArray[np.float64]

STEPS = 5
LABELS = np.array([3, 8])
OTHERS = ["ddpm", "dpm-solver++", "euler", "euler-ancestral", "heun", "lms", "pndm", "unipc"]


class Own:
    """Returns the scheduler's own latent, and counts the steps."""

    def begin(self, updates: Sequence[LinearUpdate], shape: tuple[int, ...]) -> None:
        self.updates, self.steps = updates, 0

    def step(self, index: int, sample: Array, prediction: Array, noise: Array | None, own: Array) -> Array:
        self.steps += 1
        return own


@cache
def digits() -> Digits:
    return Digits(DigitsOptions())


def scheduler(name: str, **options: Any) -> Any:
    declared = registry().entry("scheduler", name).options(**options)
    return digits().scheduler(registry().load("scheduler", name), declared.model_dump())


def spacing(name: str) -> dict[str, Any]:
    """From pure noise, of which the model's own schedule begins, a step of Heun's method overshoots."""
    return {"timestep_spacing": "leading"} if name == "heun" else {}


def start(made: Any) -> Array:
    return initial_noise(made, STEPS) * np.random.default_rng(0).normal(size=(len(LABELS), *digits().latent_shape))


def test_the_schedulers_of_the_package_are_all_tested() -> None:
    assert sorted([*OTHERS, "auto", "ddim", "flow-match-euler"]) == sorted(entry.name for entry in hefw_schedulers())


@pytest.mark.parametrize("name", ["ddim", *OTHERS])
def test_the_twin_draws_with_it(name: str) -> None:
    states: dict[int, Array] = {}
    made, updater = scheduler(name, **spacing(name)), Own()
    final = digits().twin(start(made), LABELS, encrypted(made, updater), STEPS, lambda k, x: states.update({k: x}))
    assert np.isfinite(final).all()
    assert updater.steps == len(updater.updates) == len(states)
    assert len(updater.updates) == len(linear_updates(made, STEPS, stochastic=True)) >= STEPS


@pytest.mark.parametrize("name", ["ddim", "dpm-solver++", "euler", "heun", "lms", "unipc"])
def test_deterministic_schedulers_end_at_about_the_same_picture(name: str) -> None:
    """They solve one equation: a scheduler that starts from noise of a wrong size ends elsewhere."""
    steps = 40
    ends = []
    for each in ("ddim", name):
        made = scheduler(each, **spacing(each))
        noise = np.random.default_rng(0).normal(size=(len(LABELS), *digits().latent_shape))
        ends.append(digits().twin(initial_noise(made, steps) * noise, LABELS, made, steps, lambda k, x: None))
    assert np.sqrt(np.mean((ends[0] - ends[1]) ** 2)) < 0.05


def test_a_trajectory_that_diverges_is_said_to() -> None:
    made = scheduler("heun")
    with pytest.raises(SchedulerError, match=r"latent after timestep \d+ is not finite: .* use more steps"):
        digits().twin(start(made), LABELS, encrypted(made, Own()), STEPS, lambda k, x: None)


def test_flow_matching_is_refused() -> None:
    with pytest.raises(SchedulerError, match="has noise levels of another kind than DDIMScheduler"):
        scheduler("flow-match-euler")


@pytest.mark.parametrize("name", ["ddim", *OTHERS])
def test_its_options_are_those_of_diffusers(name: str) -> None:
    """An option that a class does not have would be dropped without a word."""
    known = registry().load("scheduler", name)().config
    for option in registry().entry("scheduler", name).options.model_fields:
        assert option in known, f"{name} has no option {option}"


def test_options_reach_the_scheduler() -> None:
    made = scheduler("dpm-solver++", solver_order=3, algorithm_type="sde-dpmsolver++")
    assert (made.config.solver_order, made.config.algorithm_type) == (3, "sde-dpmsolver++")
    assert made.config.prediction_type == "v_prediction"
    assert all(update.noise for update in linear_updates(made, 6, stochastic=True)[:-1])
    with pytest.raises(SchedulerError, match=r"DPMSolverMultistepScheduler is not linear .* \(thresholding=True\)"):
        linear_updates(scheduler("dpm-solver++", thresholding=True), 6)
