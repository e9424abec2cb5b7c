"""Linear updates read off unmodified diffusers schedulers agree with the schedulers' own trajectories."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.configuration_utils import register_to_config

from hefw.core.errors import SchedulerError
from hefw.models.schedules import LinearUpdate, converted, initial_noise, linear_updates, one_step_updates, read_updates


def ddim(**options: Any) -> diffusers.DDIMScheduler:
    return diffusers.DDIMScheduler(**{"clip_sample": False, **options})


def predictor(x: torch.Tensor, t: float) -> torch.Tensor:
    """Some model: not linear, and different at each timestep."""
    return torch.tanh(x + t / 1000) - 0.3 * x


def assert_same_trajectory(
    scheduler: Any, updates: list[LinearUpdate], begin: int = 0, tolerance: float = 1e-6
) -> None:
    """The scheduler's own steps, deterministic, from its `begin`-th timestep, against the updates."""
    noise = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    samples, predictions = [theirs.numpy()], []
    scale = getattr(scheduler, "scale_model_input", lambda x, t: x)
    timesteps = scheduler.timesteps[begin:]
    assert [update.timestep for update in updates] == timesteps.tolist()
    for update, t in zip(updates, timesteps, strict=True):
        prediction = predictor(scale(theirs, t), float(t))
        theirs = scheduler.step(prediction, t, theirs).prev_sample
        scaled = torch.from_numpy(update.model_input_scale * samples[0])
        predictions.insert(0, predictor(scaled, update.timestep).numpy())
        samples.insert(0, sum(update.terms(samples, predictions)))
        error = float(np.abs(samples[0] - theirs.numpy()).max())
        assert error <= tolerance * max(1.0, float(theirs.abs().max()))


def assert_read_right(scheduler: Any, steps: int, tolerance: float = 1e-6) -> None:
    updates = linear_updates(scheduler, steps)
    scheduler.set_timesteps(steps)
    assert_same_trajectory(scheduler, updates, tolerance=tolerance)


@pytest.mark.parametrize("steps", [1, 3, 10, 50])
@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim_agrees_with_diffusers(prediction: str, steps: int, spacing: str) -> None:
    assert_read_right(ddim(prediction_type=prediction, timestep_spacing=spacing), steps)


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.EulerDiscreteScheduler(),
        diffusers.DPMSolverMultistepScheduler(solver_order=1),
        diffusers.DPMSolverMultistepScheduler(solver_order=3),
        diffusers.PNDMScheduler(),
        diffusers.UniPCMultistepScheduler(prediction_type="sample"),
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_other_schedulers_agree_with_diffusers(scheduler: Any) -> None:
    """All of them, and random noise, in test_encrypted.py: there the scheduler's own latents are fed to it."""
    assert_read_right(scheduler, 20, tolerance=1e-4)


def test_plms_coefficients_are_those_of_adams_and_bashforth() -> None:
    updates = linear_updates(diffusers.PNDMScheduler(skip_prk_steps=True), 50)
    assert len(updates) == 51
    assert updates[1].timestep == updates[2].timestep == 960
    assert [len(update.predictions) for update in updates[:6]] == [1, 2, 3, 4, 5, 4]
    assert not any(update.earlier_samples for update in updates)
    for update in updates[5:-1]:
        newest = update.predictions[0]
        assert np.array(update.predictions) / newest == pytest.approx(np.array([55, -59, 37, -9]) / 55)


def test_heun_is_two_evaluations_a_step_and_needs_no_earlier_latent() -> None:
    updates = linear_updates(diffusers.HeunDiscreteScheduler(), 10)
    assert len(updates) == 19
    assert not any(update.earlier_samples for update in updates)
    for first, second in zip(updates[:-1:2], updates[1::2], strict=True):
        (slope,) = first.predictions
        assert second.predictions == pytest.approx((slope / 2, -slope / 2))
        assert (first.sample, second.sample) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize(("order", "earlier"), [(1, 0), (2, 1), (3, 2)])
def test_dpm_solver_takes_as_many_earlier_latents_as_its_order_says(order: int, earlier: int) -> None:
    updates = linear_updates(diffusers.DPMSolverMultistepScheduler(solver_order=order), 20)
    assert max(len(update.earlier_samples) for update in updates) == earlier
    assert max(len(update.predictions) for update in updates) == earlier + 1
    data = linear_updates(diffusers.DPMSolverMultistepScheduler(solver_order=order, prediction_type="sample"), 20)
    assert not any(update.earlier_samples for update in data)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("steps", [10, 40])
def test_the_latent_that_unipc_corrects_is_eliminated(order: int, steps: int) -> None:
    updates = linear_updates(diffusers.UniPCMultistepScheduler(solver_order=order), steps)
    assert max(len(update.earlier_samples) for update in updates) == order
    assert max(len(update.predictions) for update in updates) == order + 1


def test_timesteps_may_be_fractional() -> None:
    updates = linear_updates(diffusers.EulerDiscreteScheduler(use_karras_sigmas=True), 10)
    assert any(not update.timestep.is_integer() for update in updates)
    assert max(update.model_input_scale for update in updates) < 1


def test_noise_is_marked_where_it_is_added() -> None:
    ancestral = linear_updates(diffusers.EulerAncestralDiscreteScheduler(), 10, stochastic=True)
    assert [update.noise for update in ancestral] == [True] * 9 + [False]
    deterministic = linear_updates(ddim(), 10, stochastic=True)
    assert deterministic == linear_updates(ddim(), 10)
    assert not any(update.noise for update in deterministic)


def test_arguments_of_step_count() -> None:
    scheduler = ddim()
    scheduler.set_timesteps(10)
    now, then = (float(scheduler.alphas_cumprod[t]) for t in (900, 800))
    for eta in (0.0, 0.5):  # equation 12 of DDIM
        updates = read_updates(scheduler, stochastic=True, arguments={"eta": eta})
        sigma = eta * ((1 - then) / (1 - now) * (1 - now / then)) ** 0.5
        expected = (1 - then - sigma**2) ** 0.5 - (then * (1 - now) / now) ** 0.5
        assert updates[0].predictions == pytest.approx((expected,), rel=1e-5)
        assert [update.noise for update in updates] == [eta > 0] * 9 + [False]
    with pytest.raises(SchedulerError, match=r"stochastic \(eta=0\.5\)"):
        read_updates(scheduler, arguments={"eta": 0.5})


@pytest.mark.parametrize(
    "scheduler",
    [
        ddim(),
        diffusers.EulerDiscreteScheduler(),
        diffusers.HeunDiscreteScheduler(),
        diffusers.DPMSolverMultistepScheduler(),
        diffusers.UniPCMultistepScheduler(),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_a_schedule_may_begin_later(scheduler: Any) -> None:
    scheduler.set_timesteps(10)
    begin = 4 * scheduler.order
    updates = read_updates(scheduler, begin)
    if hasattr(scheduler, "set_begin_index"):
        assert scheduler.begin_index is None
        scheduler.set_begin_index(begin)
        assert read_updates(scheduler, begin) == updates
    assert len(updates[0].predictions) == 1
    assert_same_trajectory(scheduler, updates, begin, tolerance=1e-5)
    for outside in (-1, len(scheduler.timesteps)):
        with pytest.raises(SchedulerError, match=f"begin={outside}"):
            read_updates(scheduler, outside)


def test_timesteps_may_be_a_users() -> None:
    scheduler = diffusers.EulerDiscreteScheduler()
    scheduler.set_timesteps(timesteps=[900, 500, 100])
    updates = read_updates(scheduler)
    assert [update.timestep for update in updates] == [900, 500, 100]
    assert_same_trajectory(scheduler, updates)


def test_a_scheduler_of_another_class_keeps_the_models_configuration() -> None:
    scheduler = ddim(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", timestep_spacing="trailing")
    made = converted(scheduler, diffusers.EulerDiscreteScheduler, {"use_karras_sigmas": True, "timestep_spacing": None})
    assert type(made) is diffusers.EulerDiscreteScheduler
    assert torch.equal(made.alphas_cumprod, scheduler.alphas_cumprod)
    assert (made.config.prediction_type, made.config.timestep_spacing) == ("v_prediction", "trailing")
    assert made.config.use_karras_sigmas


def test_a_model_whose_scheduler_does_not_clip_is_not_clipped() -> None:
    scheduler = diffusers.PNDMScheduler()
    assert diffusers.DDIMScheduler.from_config(scheduler.config).config.clip_sample
    assert not converted(scheduler, diffusers.DDIMScheduler, {}).config.clip_sample
    assert converted(scheduler, diffusers.DDIMScheduler, {"clip_sample": True}).config.clip_sample


def test_options_and_noise_levels_that_do_not_fit_are_refused() -> None:
    flow = diffusers.FlowMatchEulerDiscreteScheduler
    with pytest.raises(
        SchedulerError, match=r"FlowMatchEulerDiscreteScheduler has noise levels of another kind than D"
    ):
        converted(ddim(), flow, {})
    with pytest.raises(SchedulerError, match=r"DDIMScheduler has noise levels of another kind than Flow"):
        converted(flow(), diffusers.DDIMScheduler, {})
    both = {"use_karras_sigmas": True, "use_beta_sigmas": True}
    with pytest.raises(SchedulerError, match=r"EulerDiscreteScheduler refuses \{'use_karras_sigmas': True.*: Only one"):
        converted(ddim(), diffusers.EulerDiscreteScheduler, both)


def test_the_noise_to_begin_with_is_that_of_the_schedule() -> None:
    scheduler = diffusers.EulerDiscreteScheduler(use_karras_sigmas=True, timestep_spacing="leading")
    before = float(scheduler.init_noise_sigma)
    assert initial_noise(scheduler, 5) != pytest.approx(before)
    assert float(scheduler.init_noise_sigma) == before
    scheduler.set_timesteps(5)
    assert initial_noise(scheduler, 5) == float(scheduler.init_noise_sigma)
    assert initial_noise(diffusers.FlowMatchEulerDiscreteScheduler(), 5) == 1.0


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
    assert "protocol 'update-only'" in str(refused.value)
    assert any(update.noise for update in linear_updates(scheduler, 10, stochastic=True))


@pytest.mark.parametrize(
    ("scheduler", "named"),
    [
        (diffusers.PNDMScheduler(), r"is a multistep method: its step at timestep \d+ uses earlier"),
        (diffusers.UniPCMultistepScheduler(), r"is a multistep method: its step at timestep \d+ uses earlier"),
        (diffusers.EulerDiscreteScheduler(), r"gives the model 0\.\d+ times the latent at timestep 999"),
        (diffusers.FlowMatchEulerDiscreteScheduler(), r"gives the model the fractional timestep \d+\.\d+"),
        (diffusers.DDPMScheduler(clip_sample=False), "is stochastic"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_updates_of_one_latent_and_one_prediction_only(scheduler: Any, named: str) -> None:
    with pytest.raises(SchedulerError, match=rf"{type(scheduler).__name__} {named}.*DDIM.*update-only"):
        one_step_updates(scheduler, 8)
    assert one_step_updates(ddim(), 8) == linear_updates(ddim(), 8)


class Endless(diffusers.DDIMScheduler):
    """Takes the mean of all predictions so far."""

    @register_to_config
    def __init__(self, clip_sample: bool = False) -> None:
        super().__init__(clip_sample=clip_sample)
        self.seen: list[torch.Tensor] = []

    def step(self, model_output: Any, timestep: Any, sample: Any, **more: Any) -> Any:
        self.seen.append(model_output)
        return super().step(sum(self.seen) / len(self.seen), timestep, sample, **more)


class Damped(diffusers.DDIMScheduler):
    """Divides the latent by its size."""

    def step(self, model_output: Any, timestep: Any, sample: Any, **more: Any) -> Any:
        (result, *others) = super().step(model_output, timestep, sample, **more)
        return (result / (1 + 1e-3 * result.abs().amax(dim=(1, 2, 3), keepdim=True)), *others)


class Mixing(diffusers.DDIMScheduler):
    """Linear, but takes a pixel's mean over the picture."""

    def step(self, model_output: Any, timestep: Any, sample: Any, **more: Any) -> Any:
        (result, *others) = super().step(model_output, timestep, sample, **more)
        return (result.mean(dim=(2, 3), keepdim=True).expand_as(result), *others)


def test_a_history_without_end_is_refused() -> None:
    assert len(linear_updates(Endless(), 10)) == 10
    with pytest.raises(SchedulerError, match="Endless uses predictions or latents of more than 16 steps before"):
        linear_updates(Endless(), 20)


@pytest.mark.parametrize("kind", [Damped, Mixing])
def test_what_is_not_linear_is_refused(kind: Any) -> None:
    with pytest.raises(SchedulerError, match=f"{kind.__name__} is not linear at timestep 900"):
        linear_updates(kind(clip_sample=False), 10)


def test_what_a_scheduler_cannot_do_is_said_in_its_words() -> None:
    with pytest.raises(SchedulerError, match=r"EulerAncestral.* cannot do its step at timestep 999: .*not implemented"):
        linear_updates(diffusers.EulerAncestralDiscreteScheduler(prediction_type="sample"), 10, stochastic=True)
    with pytest.raises(SchedulerError, match=r"FlowMatchEuler.* refuses num_inference_steps=10: `mu` must be passed"):
        linear_updates(diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), 10)


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
