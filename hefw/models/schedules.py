"""Reads the linear update of every step off an unmodified diffusers scheduler.

Without clipping, thresholding and noise, a scheduler's `step` is linear in the sample and the predictions. So running
it once on basis vectors gives its coefficients, and running it on random numbers tells whether it was linear.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from hefw.core.errors import SchedulerError

# schedulers that keep float32 tables reproduce their own coefficients to about 3e-7
TOLERANCE = 1e-5
# the larger magnitude finds clipping to any range a picture could meet
PROBE_MAGNITUDES = (1.0, 1e3)
PROBE_CHANNELS = 4
# named in messages when a scheduler's config has them switched on
NONLINEAR_OPTIONS = ("clip_sample", "thresholding")
STOCHASTIC_OPTIONS = ("eta", "variance_type", "algorithm_type", "stochastic_sampling")
SINGULAR_OPTIONS = ("rescale_betas_zero_snr", "prediction_type")
WHAT_WORKS = "use a deterministic one-step scheduler such as DDIMScheduler with clip_sample=False"

Feed = Callable[[int], torch.Tensor]


@dataclass(frozen=True)
class LinearUpdate:
    """One step: the model is given `model_input_scale * x_t`, and the scheduler computes

        x_{t-1} = f x_t + sum_{i>=0} a_i eps_{t+i} + sum_{i>=1} f_i x_{t+i} [+ noise].

    Methods that turn a prediction into another quantity by the latent of its step (DPM-Solver++ keeps predictions of
    x_0, which are combinations of x and eps) need earlier latents too: no finite number of eps replaces them.

    Attributes:
        timestep: what the model is given as t, whole or fractional.
        model_input_scale: the factor that `scale_model_input` applies.
        sample: f.
        predictions: a_0 (of this step's prediction), a_1 (of the one before), ...; at least one, no trailing zeros.
        noise: whether the scheduler adds random noise at this step. The key holder gives it.
        earlier_samples: f_1 (of the latent of the step before), f_2, ...; no trailing zeros, empty for most methods.
    """

    timestep: float
    model_input_scale: float
    sample: float
    predictions: tuple[float, ...]
    noise: bool = False
    earlier_samples: tuple[float, ...] = ()


def linear_updates(scheduler: Any, num_inference_steps: int) -> list[LinearUpdate]:
    """The linear updates of all steps, in the order of sampling.

    Args:
        scheduler: a diffusers scheduler, of any prediction type. It is copied, not changed.
        num_inference_steps: number of steps asked of `set_timesteps`.

    Returns:
        one LinearUpdate per model evaluation; coefficients in float64, as exact as the scheduler's own tables. They
        apply to x_T = scheduler.init_noise_sigma * N(0, 1).

    Raises:
        SchedulerError: the scheduler adds noise, uses earlier predictions or samples, is not linear, or has
            fractional timesteps; the message names the scheduler and the option.
    """
    name = type(scheduler).__name__
    _check_interface(scheduler, num_inference_steps)
    with torch.random.fork_rng(devices=[]):
        timesteps = _fresh(scheduler, num_inference_steps).timesteps
        calls = len(timesteps)
        fractional = next((t for t in timesteps.tolist() if not float(t).is_integer()), None)
        if fractional is not None:
            raise SchedulerError(
                f"{name} gives the model the fractional timestep {fractional:g} at num_inference_steps="
                f"{num_inference_steps}: expected whole numbers; try timestep_spacing='trailing' without Karras sigmas"
            )
        _refuse_noise(scheduler, num_inference_steps, calls)

        # a basis vector of its own for every sample and every prediction: what leaks between steps is seen
        basis = torch.eye(2 * calls, dtype=torch.float64)[:, None, :, None, None]
        scaled, stepped = _run(scheduler, num_inference_steps, lambda k: basis[2 * k], lambda k: basis[2 * k + 1])
        updates = []
        for k, t in enumerate(timesteps.tolist()):
            result = stepped[k].flatten()
            if not bool(torch.isfinite(result).all()):
                raise SchedulerError(
                    f"{name} is not finite at timestep {t}{_options(scheduler, SINGULAR_OPTIONS)}: choose "
                    "prediction_type='v_prediction', or noise levels that stay below pure noise"
                )
            own = result[2 * k : 2 * k + 2]
            others = result.clone()
            others[2 * k : 2 * k + 2] = 0
            if float(others.abs().max()) > TOLERANCE * max(1.0, float(own.abs().max())):
                raise SchedulerError(
                    f"{name} is a multistep method: its step at timestep {t} uses earlier predictions or samples, "
                    f"which is not supported; {WHAT_WORKS}"
                )
            updates.append(
                LinearUpdate(
                    timestep=float(t),
                    model_input_scale=float(scaled[k].flatten()[2 * k]),
                    sample=float(own[0]),
                    predictions=(float(own[1]),),
                )
            )
        for magnitude in PROBE_MAGNITUDES:
            _probe(scheduler, num_inference_steps, updates, magnitude)
    return updates


def _check_interface(scheduler: Any, num_inference_steps: int) -> None:
    for method in ("set_timesteps", "step"):
        if not callable(getattr(scheduler, method, None)):
            raise SchedulerError(
                f"{type(scheduler).__name__} has no method {method!r}: expected a diffusers scheduler; {WHAT_WORKS}"
            )
    if num_inference_steps < 1:
        raise SchedulerError(f"num_inference_steps={num_inference_steps}: expected at least 1")


def _fresh(scheduler: Any, num_inference_steps: int) -> Any:
    """A copy with its timesteps set: schedulers keep counters and history, the caller's must not change."""
    scheduler = copy.deepcopy(scheduler)
    try:
        scheduler.set_timesteps(num_inference_steps)
    except (TypeError, ValueError) as error:
        raise SchedulerError(
            f"{type(scheduler).__name__} refuses num_inference_steps={num_inference_steps}: {error}"
        ) from error
    return scheduler


def _run(
    scheduler: Any, num_inference_steps: int, sample: Feed, prediction: Feed
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What `scale_model_input` and `step` return at each call for the k-th sample and prediction fed to it."""
    scheduler = _fresh(scheduler, num_inference_steps)
    # flow matching schedulers have no scale_model_input: their models take the sample as it is
    scale = getattr(scheduler, "scale_model_input", lambda x, t: x)
    scaled, stepped = [], []
    for k, t in enumerate(scheduler.timesteps):
        x = sample(k)
        scaled.append(scale(x, t).double())
        stepped.append(scheduler.step(prediction(k), t, x, return_dict=False)[0].double())
    return scaled, stepped


def _refuse_noise(scheduler: Any, num_inference_steps: int, calls: int) -> None:
    """A linear map takes zero to zero; whatever else comes out was added."""
    zero = torch.zeros(1, PROBE_CHANNELS, 1, 1, dtype=torch.float64)
    _, stepped = _run(scheduler, num_inference_steps, lambda k: zero, lambda k: zero)
    if any(float(result.abs().max()) > 0 for result in stepped):
        raise SchedulerError(
            f"{type(scheduler).__name__} is stochastic{_options(scheduler, STOCHASTIC_OPTIONS)}: its step adds random "
            f"noise, so it is no linear update; {WHAT_WORKS} and eta=0"
        )


def _probe(scheduler: Any, num_inference_steps: int, updates: list[LinearUpdate], magnitude: float) -> None:
    """Compare the coefficients with a fresh copy's own steps on random numbers of the given magnitude."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(updates), 1, PROBE_CHANNELS, 1, 1)
    x = magnitude * torch.randn(shape, generator=generator, dtype=torch.float64)
    v = magnitude * torch.randn(shape, generator=generator, dtype=torch.float64)
    scaled, stepped = _run(scheduler, num_inference_steps, lambda k: x[k], lambda k: v[k])
    for k, update in enumerate(updates):
        c, d = update.sample, update.predictions[0]
        allowed = 10 * TOLERANCE * magnitude * max(1.0, abs(c) + abs(d))
        step_error = float((stepped[k] - c * x[k] - d * v[k]).abs().max())
        scale_error = float((scaled[k] - update.model_input_scale * x[k]).abs().max())
        # written so that nan fails too
        if not (step_error <= allowed and scale_error <= allowed):
            raise SchedulerError(
                f"{type(scheduler).__name__} is not linear at timestep {update.timestep}"
                f"{_options(scheduler, NONLINEAR_OPTIONS)}: its step is off c x + d prediction by {step_error:.3g}; "
                f"{WHAT_WORKS} and thresholding=False"
            )


def _options(scheduler: Any, suspects: tuple[str, ...]) -> str:
    """Those of the suspect options that the scheduler's config has switched on, ready to stand in a message."""
    config = dict(getattr(scheduler, "config", {}))
    found = [f"{key}={config[key]!r}" for key in suspects if config.get(key) not in (None, False)]
    return f" ({', '.join(found)})" if found else ""
