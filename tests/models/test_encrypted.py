"""A scheduler with an updater in its step gives diffusers' own trajectory, and stays a diffusers scheduler."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hefw.core.errors import SchedulerError
from hefw.models.encrypted import encrypted, plain
from hefw.models.schedules import LinearUpdate

Array = NDArray[np.float64]

SHAPE = (2, 4, 5, 3)
ALL = ("epsilon", "v_prediction", "sample")
NO_SAMPLE = ("epsilon", "v_prediction")
# class, options, prediction types that it has
SCHEDULERS: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False}, ALL),
    "ddpm": (diffusers.DDPMScheduler, {"clip_sample": False}, ALL),
    "plms": (diffusers.PNDMScheduler, {"skip_prk_steps": True}, NO_SAMPLE),
    "pndm": (diffusers.PNDMScheduler, {}, NO_SAMPLE),
    "dpm++ 1": (diffusers.DPMSolverMultistepScheduler, {"solver_order": 1}, ALL),
    "dpm++ 2m": (diffusers.DPMSolverMultistepScheduler, {}, ALL),
    "dpm++ 2m karras": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}, ALL),
    "dpm++ 3m": (diffusers.DPMSolverMultistepScheduler, {"solver_order": 3}, ALL),
    "dpm++ 2m sde": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}, ALL),
    "dpm++ 2s": (diffusers.DPMSolverSinglestepScheduler, {}, ALL),
    "deis": (diffusers.DEISMultistepScheduler, {}, ALL),
    "euler": (diffusers.EulerDiscreteScheduler, {}, ALL),
    "euler karras": (diffusers.EulerDiscreteScheduler, {"use_karras_sigmas": True}, ALL),
    "euler ancestral": (diffusers.EulerAncestralDiscreteScheduler, {}, NO_SAMPLE),
    "heun": (diffusers.HeunDiscreteScheduler, {}, ALL),
    "kdpm2": (diffusers.KDPM2DiscreteScheduler, {}, NO_SAMPLE),
    "kdpm2 ancestral": (diffusers.KDPM2AncestralDiscreteScheduler, {}, NO_SAMPLE),
    "lms": (diffusers.LMSDiscreteScheduler, {}, ALL),
    "unipc": (diffusers.UniPCMultistepScheduler, {}, ALL),
    "unipc 3": (diffusers.UniPCMultistepScheduler, {"solver_order": 3}, ALL),
    "sa-solver": (diffusers.SASolverScheduler, {}, ALL),
    "lcm": (diffusers.LCMScheduler, {"clip_sample": False}, ALL),
    "flow match euler": (diffusers.FlowMatchEulerDiscreteScheduler, {"shift": 3.0}, ()),
    "flow match euler stochastic": (diffusers.FlowMatchEulerDiscreteScheduler, {"stochastic_sampling": True}, ()),
    "flow match heun": (diffusers.FlowMatchHeunDiscreteScheduler, {}, ()),
}


class Plaintext:
    """Computes updates from coefficients and what it was given, and nothing else: `own` is never looked at."""

    def __init__(self, error: float = 0.0) -> None:
        self.error = error
        self.trajectories: list[list[LinearUpdate]] = []

    def begin(self, updates: Sequence[LinearUpdate], shape: tuple[int, ...]) -> None:
        self.trajectories.append(list(updates))
        self.shape, self.steps = shape, 0
        self.samples: list[Array] = []
        self.predictions: list[Array] = []
        self.rng = np.random.default_rng(0)

    def step(self, index: int, sample: Array, prediction: Array, noise: Array | None, own: Array) -> Array:
        update = self.trajectories[-1][index]
        assert index == self.steps
        assert sample.shape == prediction.shape == own.shape == self.shape
        assert sample.dtype == prediction.dtype == own.dtype == np.float64
        self.steps += 1
        self.samples.insert(0, sample)
        self.predictions.insert(0, prediction)
        result = update.sample * sample
        for back, factor in enumerate(update.predictions):
            result = result + factor * self.predictions[back]
        for back, factor in enumerate(update.earlier_samples, start=1):
            result = result + factor * self.samples[back]
        assert (noise is not None) == update.noise
        if noise is not None:
            result = result + noise
        return np.asarray(result + self.error * self.rng.normal(size=self.shape))


def made(name: str, prediction: str | None = None) -> Any:
    kind, options, types = SCHEDULERS[name]
    return kind(**options, **({"prediction_type": prediction or types[0]} if types else {}))


def start(scheduler: Any, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    noise = torch.randn(SHAPE, generator=generator, dtype=dtype)
    return noise * float(getattr(scheduler, "init_noise_sigma", 1.0))


def sample(
    scheduler: Any, x: torch.Tensor, begin: int = 0, generator: torch.Generator | None = None, **arguments: Any
) -> list[torch.Tensor]:
    """A sampling loop as pipelines write it, with a network that is not linear; the latents after each step."""
    weights = torch.linspace(0.5, 1.5, x.shape[1], dtype=x.dtype)[:, None, None]
    if "generator" in inspect.signature(scheduler.step).parameters:
        arguments["generator"] = generator
    trajectory = []
    for t in scheduler.timesteps[begin:]:
        given = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        prediction = torch.tanh(weights * given + float(t) / 1000) - 0.3 * given
        x = scheduler.step(prediction, t, x, **arguments).prev_sample
        trajectory.append(x)
    return trajectory


def whole(scheduler: Any, steps: int, seed: int = 0, dtype: torch.dtype = torch.float64, **arguments: Any) -> Any:
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    return sample(scheduler, start(scheduler, generator, dtype), generator=generator, **arguments)


def assert_close(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], tolerance: float) -> None:
    assert len(found) == len(expected)
    size = max(1.0, *(float(x.abs().max()) for x in expected))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert float((ours - theirs).abs().max()) <= tolerance * size


@pytest.mark.parametrize("name", SCHEDULERS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_the_trajectory_is_that_of_diffusers(name: str, data: st.DataObject) -> None:
    types = SCHEDULERS[name][2]
    scheduler = made(name, data.draw(st.sampled_from(types), "prediction") if types else None)
    steps = data.draw(st.integers(4 if name == "pndm" else 1, 30), "steps")
    seed = data.draw(st.integers(0, 2**31), "seed")
    expected = whole(scheduler, steps, seed)
    updater = Plaintext()
    found = whole(encrypted(scheduler, updater), steps, seed)
    assert_close(found, expected, 1e-5)
    assert updater.steps == len(expected)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_prediction_type_and_the_smallest_schedules(name: str) -> None:
    for prediction in SCHEDULERS[name][2] or (None,):
        for steps in (4, 5) if name == "pndm" else (1, 2, 3):
            scheduler = made(name, prediction)
            assert_close(whole(encrypted(scheduler, Plaintext()), steps), whole(scheduler, steps), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["ddim", "plms", "dpm++ 2m", "unipc", "heun", "ddpm"])
def test_latents_keep_their_precision(name: str, dtype: torch.dtype) -> None:
    scheduler = made(name)
    found, expected = (whole(s, 20, dtype=dtype) for s in (encrypted(scheduler, Plaintext()), scheduler))
    assert found[-1].dtype == dtype
    assert_close(found, expected, 30 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_an_updater_may_err_as_encryption_does(name: str) -> None:
    scheduler = made(name)
    steps = 10
    found, expected = whole(encrypted(scheduler, Plaintext(1e-3)), steps), whole(scheduler, steps)
    assert float((found[0] - expected[0]).abs().max()) > 1e-4
    assert_close(found, expected, 0.1)


def test_eta_is_of_the_step() -> None:
    updater = Plaintext()
    scheduler = made("ddim")
    found, expected = (whole(s, 10, eta=0.7) for s in (encrypted(scheduler, updater), scheduler))
    assert_close(found, expected, 1e-10)
    assert [update.noise for update in updater.trajectories[0]] == [True] * 9 + [False]


@pytest.mark.parametrize("name", ["ddim", "euler", "heun", "dpm++ 2m", "unipc", "ddpm", "plms", "lms"])
@pytest.mark.parametrize("told", [True, False])
def test_image_to_image_begins_later(name: str, told: bool) -> None:
    scheduler = made(name)
    begin = 3 * scheduler.order
    trajectories = []
    updater = Plaintext()
    for each in (scheduler, encrypted(scheduler, updater)):
        each.set_timesteps(10)
        if told and hasattr(each, "set_begin_index"):
            each.set_begin_index(begin)
        generator = torch.Generator().manual_seed(1)
        picture = torch.rand(SHAPE, generator=generator, dtype=torch.float64)
        noisy = each.add_noise(picture, start(scheduler, generator), each.timesteps[begin : begin + 1].repeat(2))
        trajectories.append(sample(each, noisy, begin, generator))
    assert_close(trajectories[1], trajectories[0], 1e-5)
    assert updater.steps == len(scheduler.timesteps) - begin


@pytest.mark.parametrize("begin", [0, 1, 2])
def test_of_equal_timesteps_the_pipeline_says_which(begin: int) -> None:
    """PLMS does its second timestep twice and has no index of its own to begin with."""
    scheduler = made("plms")
    other = encrypted(scheduler, Plaintext())
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert not hasattr(scheduler, "set_begin_index")
    for each in (scheduler, other):
        each.set_timesteps(10)
    other.set_begin_index(begin)
    assert_close(sample(other, x, begin), sample(scheduler, x, begin), 1e-10)


def test_it_is_the_scheduler_that_it_was() -> None:
    for name in SCHEDULERS:
        scheduler = made(name)
        scheduler.set_timesteps(7)
        other = encrypted(scheduler, Plaintext())
        assert isinstance(other, type(scheduler))
        assert type(other).__name__ == type(scheduler).__name__
        assert type(other).__module__ == type(scheduler).__module__
        assert dict(other.config) == dict(scheduler.config)
        assert other.order == scheduler.order
        assert torch.equal(other.timesteps, scheduler.timesteps)
        assert getattr(other, "init_noise_sigma", None) == getattr(scheduler, "init_noise_sigma", None)
        for method in ("step", "set_timesteps", "add_noise", "scale_model_input"):
            if hasattr(scheduler, method):
                assert inspect.signature(getattr(other, method)) == inspect.signature(getattr(scheduler, method))
        assert type(plain(other)) is type(scheduler)
        assert vars(plain(other)).keys() == vars(scheduler).keys()


def test_a_pipeline_takes_it_and_saves_it_as_what_it_was(tmp_path: Any) -> None:
    scheduler, updater = made("ddim"), Plaintext()
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    pipeline = diffusers.DDIMPipeline(unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(generator=torch.Generator().manual_seed(0), num_inference_steps=5, output_type="np").images
    pipeline.scheduler = encrypted(scheduler, updater)
    found = pipeline(generator=torch.Generator().manual_seed(0), num_inference_steps=5, output_type="np").images
    assert np.abs(found - expected).max() < 1e-5
    assert updater.steps == 5
    assert updater.shape == (1, 1, 8, 8)
    pipeline.save_pretrained(tmp_path)
    loaded = diffusers.DDIMPipeline.from_pretrained(tmp_path)
    assert type(loaded.scheduler) is diffusers.DDIMScheduler
    for key, value in loaded.scheduler.config.items():
        assert key.startswith("_") or value == scheduler.config[key]


def test_the_result_has_the_form_asked_for() -> None:
    scheduler = encrypted(made("ddim"), Plaintext(error=1.0))
    scheduler.set_timesteps(2)
    x, prediction = torch.ones(SHAPE), torch.zeros(SHAPE)
    output = scheduler.step(prediction, scheduler.timesteps[0], x)
    expected = plain(scheduler).step(prediction, scheduler.timesteps[0], x)
    assert type(output) is type(expected)
    assert torch.equal(output.pred_original_sample, expected.pred_original_sample)
    assert not torch.equal(output.prev_sample, expected.prev_sample)
    again = scheduler.step(model_output=prediction, timestep=scheduler.timesteps[1], sample=x, return_dict=False)
    assert isinstance(again, tuple)
    assert len(again) == 2
    assert again[0].shape == SHAPE


def test_neither_the_scheduler_nor_the_global_generator_is_changed() -> None:
    scheduler = made("ddpm")
    before, state = copy.deepcopy(vars(scheduler)), torch.get_rng_state()
    other = encrypted(scheduler, Plaintext())
    other.set_timesteps(5)
    whole(other, 5)
    assert torch.equal(torch.get_rng_state(), state)
    assert repr(vars(scheduler)) == repr(before)


@pytest.mark.parametrize("name", ["plms", "unipc", "dpm++ 2m", "heun"])
def test_set_timesteps_begins_again(name: str) -> None:
    scheduler, updater = made(name), Plaintext()
    other = encrypted(scheduler, updater)
    expected = whole(scheduler, 6)
    other.set_timesteps(9)
    x = start(other, torch.Generator())
    for t in other.timesteps[:3]:
        x = other.step(torch.tanh(other.scale_model_input(x, t)), t, x).prev_sample
    assert_close(whole(other, 6), expected, 1e-5)
    assert_close(whole(other, 6), expected, 1e-5)
    assert len(updater.trajectories) == 3


def test_a_scheduler_without_memory_goes_on_without_set_timesteps() -> None:
    scheduler, updater = made("ddim"), Plaintext()
    other = encrypted(scheduler, updater)
    expected = whole(scheduler, 4)
    whole(other, 4)
    x = start(scheduler, torch.Generator().manual_seed(0))
    assert_close(sample(other, x), expected, 1e-10)
    assert len(updater.trajectories) == 2


def test_it_can_be_encrypted_again() -> None:
    first, second = Plaintext(), Plaintext()
    other = encrypted(encrypted(made("plms"), first), second)
    whole(other, 5)
    assert not first.trajectories
    assert second.steps == 6
    assert type(plain(other)) is diffusers.PNDMScheduler


# -- refusals ---------------------------------------------------------------------------------------------------------


class Squashing(diffusers.EulerDiscreteScheduler):
    """Not linear in its latent."""

    def step(self, model_output: Any, timestep: Any, sample: Any, **more: Any) -> Any:
        return super().step(model_output, timestep, torch.tanh(sample), **more)


class Late(diffusers.DDIMScheduler):
    """Linear while it is read, and not when it is used."""

    def step(self, model_output: Any, timestep: Any, sample: Any, **more: Any) -> Any:
        output = super().step(model_output, timestep, sample, **more)
        if sample.shape == SHAPE and not isinstance(output, tuple):
            output.prev_sample = output.prev_sample.clamp(-0.1, 0.1)
        return output


@pytest.mark.parametrize(
    ("scheduler", "named"),
    [
        (diffusers.DDIMScheduler(clip_sample=True), "clip_sample=True"),
        (diffusers.DDPMScheduler(clip_sample=True), "clip_sample=True"),
        (diffusers.DDIMScheduler(clip_sample=False, thresholding=True), "thresholding=True"),
        (diffusers.DPMSolverMultistepScheduler(thresholding=True), "thresholding=True"),
        (diffusers.UniPCMultistepScheduler(thresholding=True), "thresholding=True"),
        (diffusers.HeunDiscreteScheduler(clip_sample=True), "clip_sample=True"),
        (Squashing(), "Squashing is not linear"),
    ],
)
def test_what_is_not_linear_is_refused_by_name_before_anything_is_sent(scheduler: Any, named: str) -> None:
    updater = Plaintext()
    with pytest.raises(SchedulerError) as refused:
        whole(encrypted(scheduler, updater), 5)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not updater.trajectories


def test_a_step_that_is_not_the_one_read_is_refused() -> None:
    with pytest.raises(SchedulerError, match="Late is not linear at timestep 800: its step is off the linear update"):
        whole(encrypted(Late(clip_sample=False), Plaintext()), 5)


def begun(name: str) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """An encrypted scheduler after its first step, a prediction, and the latent to go on with."""
    scheduler = encrypted(made(name), Plaintext())
    scheduler.set_timesteps(8)
    x = start(scheduler, torch.Generator().manual_seed(0))
    t = scheduler.timesteps[0]
    prediction = torch.tanh(scheduler.scale_model_input(x, t))
    return scheduler, prediction, scheduler.step(prediction, t, x).prev_sample


def test_latents_that_a_pipeline_changes_are_refused_where_they_matter() -> None:
    for name, refused in (("plms", True), ("unipc", True), ("dpm++ 2m", False), ("lms", False), ("ddim", False)):
        scheduler, prediction, x = begun(name)
        if refused:
            with pytest.raises(SchedulerError, match=r"latents were changed between two steps, by 0\.5: \w+ is a"):
                scheduler.step(prediction, scheduler.timesteps[1], x + 0.5)
        else:
            scheduler.step(prediction, scheduler.timesteps[1], x + 0.5)


def test_timesteps_must_come_in_order() -> None:
    scheduler, prediction, x = begun("ddim")
    with pytest.raises(SchedulerError, match="timestep 625 for step 1 of its schedule, where 750 was expected"):
        scheduler.step(prediction, scheduler.timesteps[2], x)
    scheduler.set_timesteps(8)
    with pytest.raises(SchedulerError, match="timestep 13, which its schedule lacks: call set_timesteps"):
        scheduler.step(prediction, 13, x)
    with pytest.raises(SchedulerError, match="2 timesteps in one step"):
        scheduler.step(prediction, scheduler.timesteps[:2], x)


def test_a_trajectory_keeps_its_shape_and_its_arguments() -> None:
    scheduler, prediction, x = begun("ddim")
    with pytest.raises(SchedulerError, match=r"shape \(1, 4, 5, 3\) in a trajectory of \(2, 4, 5, 3\)"):
        scheduler.step(prediction[:1], scheduler.timesteps[1], x[:1])
    with pytest.raises(SchedulerError, match=r"was given \{'eta': 0.5\} in a trajectory that began with \{\}"):
        scheduler.step(prediction, scheduler.timesteps[1], x, eta=0.5)


def test_a_predicted_variance_is_refused() -> None:
    scheduler = encrypted(made("ddpm"), Plaintext())
    scheduler.set_timesteps(5)
    with pytest.raises(SchedulerError, match="a model that predicts a variance too is not supported"):
        scheduler.step(torch.zeros(2, 8, 5, 3), scheduler.timesteps[0], torch.zeros(SHAPE))


def test_timesteps_of_single_tokens_are_refused() -> None:
    scheduler = encrypted(made("flow match euler"), Plaintext())
    scheduler.set_timesteps(5)
    x = torch.zeros(2, 6, 4)
    with pytest.raises(SchedulerError, match="step was given per_token_timesteps, a Tensor"):
        scheduler.step(x, scheduler.timesteps[0], x, per_token_timesteps=torch.ones(2, 6))


def test_what_is_no_scheduler_is_refused() -> None:
    with pytest.raises(SchedulerError, match="object has no method 'set_timesteps'"):
        encrypted(object(), Plaintext())
