"""Linear updates read off unmodified diffusers schedulers agree with the schedulers' own trajectories."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import diffusers
import pytest
import torch

from hefw.core.errors import SchedulerError
from hefw.models.schedules import LinearUpdate, linear_updates


def ddim(**options: Any) -> diffusers.DDIMScheduler:
    return diffusers.DDIMScheduler(**{"clip_sample": False, **options})


def predictor(x: torch.Tensor, t: float) -> torch.Tensor:
    """Some model: not linear, and different at each timestep."""
    return torch.tanh(x + t / 1000) - 0.3 * x


def assert_same_trajectory(scheduler: Any, steps: int, tolerance: float = 1e-6) -> None:
    updates = linear_updates(scheduler, steps)
    scheduler.set_timesteps(steps)
    noise = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs = ours = noise * scheduler.init_noise_sigma
    assert [update.timestep for update in updates] == scheduler.timesteps.tolist()
    for update, t in zip(updates, scheduler.timesteps, strict=True):
        prediction = predictor(scheduler.scale_model_input(theirs, t), float(t))
        theirs = scheduler.step(prediction, t, theirs).prev_sample
        prediction = predictor(update.model_input_scale * ours, update.timestep)
        ours = update.sample * ours + update.predictions[0] * prediction
        error = float((ours - theirs).abs().max())
        assert error <= tolerance * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("steps", [1, 3, 10, 50])
@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim_agrees_with_diffusers(prediction: str, steps: int, spacing: str) -> None:
    assert_same_trajectory(ddim(prediction_type=prediction, timestep_spacing=spacing), steps)


def test_one_step_euler_methods_agree_with_diffusers() -> None:
    assert_same_trajectory(diffusers.EulerDiscreteScheduler(), 10, tolerance=1e-5)
    assert_same_trajectory(diffusers.DPMSolverMultistepScheduler(solver_order=1), 10, tolerance=1e-5)


def test_v_prediction_coefficients_are_cosine_and_sine_of_the_angle() -> None:
    scheduler = ddim(prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing")
    updates = linear_updates(scheduler, 10)
    assert [update.timestep for update in updates] == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    angles = [float(torch.acos(scheduler.alphas_cumprod[int(update.timestep)].sqrt())) for update in updates] + [0.0]
    for k, update in enumerate(updates):
        turn = torch.tensor(angles[k] - angles[k + 1])
        assert update.sample == pytest.approx(float(turn.cos()), abs=1e-6)
        assert update.predictions[0] == pytest.approx(-float(turn.sin()), abs=1e-6)
        assert update.model_input_scale == 1.0


def test_the_scheduler_and_the_global_generator_are_left_alone() -> None:
    scheduler = ddim()
    before, state = copy.deepcopy(vars(scheduler)), torch.get_rng_state()
    linear_updates(scheduler, 7)
    with pytest.raises(SchedulerError):
        linear_updates(diffusers.DDPMScheduler(), 7)
    assert torch.equal(torch.get_rng_state(), state)
    assert scheduler.num_inference_steps is before["num_inference_steps"] is None
    assert torch.equal(scheduler.timesteps, before["timesteps"])


def test_updates_are_frozen() -> None:
    update = LinearUpdate(1, 1.0, 1.0, (0.5,))
    with pytest.raises(dataclasses.FrozenInstanceError):
        update.timestep = 2  # type: ignore[misc]


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon", "sample"])
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"clip_sample": True}, "clip_sample=True"),
        ({"clip_sample": True, "clip_sample_range": 100.0}, "clip_sample=True"),
        ({"thresholding": True}, "thresholding=True"),
        ({"thresholding": True, "sample_max_value": 50.0}, "thresholding=True"),
    ],
)
def test_clipping_and_thresholding_are_refused_by_name(prediction: str, options: dict[str, Any], named: str) -> None:
    with pytest.raises(SchedulerError, match="DDIMScheduler is not linear") as refused:
        linear_updates(ddim(prediction_type=prediction, **options), 10)
    assert named in str(refused.value)
    assert "DDIMScheduler with clip_sample=False" in str(refused.value)


@pytest.mark.parametrize(
    ("scheduler", "named"),
    [
        (diffusers.EulerAncestralDiscreteScheduler(), "EulerAncestralDiscreteScheduler is stochastic"),
        (diffusers.DDPMScheduler(clip_sample=False), "DDPMScheduler is stochastic"),
        (diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"), "algorithm_type='sde-dpmsolver"),
    ],
)
def test_schedulers_that_add_noise_are_refused(scheduler: Any, named: str) -> None:
    with pytest.raises(SchedulerError) as refused:
        linear_updates(scheduler, 10)
    assert named in str(refused.value)
    assert "noise" in str(refused.value)


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.PNDMScheduler(),
        diffusers.PNDMScheduler(skip_prk_steps=True),
        diffusers.HeunDiscreteScheduler(),
        diffusers.DPMSolverMultistepScheduler(),
        diffusers.LMSDiscreteScheduler(),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_multistep_schedulers_are_refused(scheduler: Any) -> None:
    with pytest.raises(SchedulerError, match="multistep") as refused:
        linear_updates(scheduler, 10)
    assert type(scheduler).__name__ in str(refused.value)
    assert "DDIMScheduler" in str(refused.value)


def test_fractional_timesteps_are_refused() -> None:
    with pytest.raises(SchedulerError, match=r"EulerDiscreteScheduler gives the model the fractional timestep \d+\.\d"):
        linear_updates(diffusers.EulerDiscreteScheduler(), 50)


def test_division_by_zero_noise_is_refused() -> None:
    with pytest.raises(SchedulerError, match="not finite at timestep 999"):
        linear_updates(ddim(rescale_betas_zero_snr=True, timestep_spacing="trailing"), 10)


@pytest.mark.parametrize("steps", [0, -1, 2000])
def test_impossible_numbers_of_steps_are_refused(steps: int) -> None:
    with pytest.raises(SchedulerError, match=f"num_inference_steps={steps}"):
        linear_updates(ddim(), steps)


def test_what_is_no_scheduler_is_refused() -> None:
    with pytest.raises(SchedulerError, match="object has no method 'set_timesteps'"):
        linear_updates(object(), 10)
