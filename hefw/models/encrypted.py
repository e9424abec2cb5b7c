"""A diffusers scheduler whose update somebody else computes, for any pipeline or sampling loop as it stands.

`encrypted(scheduler, updater)` is a scheduler of the same class, configuration and state. Its `step` runs the original
step, the key holder's own plaintext arithmetic, and hands latent, prediction and noise to the updater, which in the
protocol `update-only` encrypts them, has the server compute the linear update, and decrypts.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hefw.core.errors import SchedulerError
from hefw.models.schedules import (
    LARGEST_GROWTH,
    TOLERANCE,
    WHAT_WORKS,
    LinearUpdate,
    check_interface,
    read_updates,
)

Array = NDArray[np.float64]

# rounding of a step in the latents' own precision, in units of that precision
ROUNDINGS = 50
# arguments of `step` that do not change its coefficients: they give the noise, or the form of the result
FREE_ARGUMENTS = ("generator", "variance_noise", "return_dict")
STATE, BASE = "_hefw_updates", "_hefw_base"


class Updater(Protocol):
    """Who computes the updates. Latents are float64 arrays of one shape, such as (images, channels, height, width)."""

    def begin(self, updates: Sequence[LinearUpdate], shape: tuple[int, ...]) -> None:
        """A trajectory begins: all its updates, in order, and the latents' shape."""
        ...

    def step(self, index: int, sample: Array, prediction: Array, noise: Array | None, own: Array) -> Array:
        """The next latent by `updates[index]`, from this step's latent and prediction; earlier ones were given before.

        `noise` is the scheduler's random noise where `updates[index].noise`, else None. `own` is the next latent by
        plaintext arithmetic, noise included.
        """
        ...


def encrypted(scheduler: Any, updater: Updater) -> Any:
    """A copy of a diffusers scheduler in its present state, whose `step` returns what `updater` computes.

    It is an instance of the scheduler's class, under the same name, and differs in nothing else; a scheduler that is
    encrypted already gets another updater. Its `step` raises SchedulerError for what is not linear (when a trajectory
    begins), and for latents or arguments that a linear update does not know.
    """
    check_interface(scheduler, ("set_timesteps", "step"))
    made = plain(scheduler)
    base: Any = type(made)
    made.__class__ = _encrypted_class(base)
    setattr(made, STATE, _State(updater))
    return made


def plain(scheduler: Any) -> Any:
    """A copy of a scheduler in its present state, without its updater if it has one."""
    # by the class: one that a user made by its own from_config has no updater yet
    made: Any = object.__new__(getattr(type(scheduler), BASE, type(scheduler)))
    vars(made).update(copy.deepcopy({name: value for name, value in vars(scheduler).items() if name != STATE}))
    return made


@dataclass
class _Trajectory:
    """The steps from one `set_timesteps` to the last timestep, and what they were given, the newest first."""

    updates: list[LinearUpdate]
    arguments: dict[str, Any]
    shape: tuple[int, ...]
    index: int = 0
    samples: list[Array] = field(default_factory=list)
    predictions: list[Array] = field(default_factory=list)
    returned: Array | None = None
    error: float = 0.0  # of `returned`, the largest difference from the scheduler's own latent

    def remember(self, sample: Array, prediction: Array) -> None:
        longest = max(max(len(u.predictions), 1 + len(u.earlier_samples)) for u in self.updates)
        self.samples = [sample, *self.samples][:longest]
        self.predictions = [prediction, *self.predictions][:longest]


@dataclass
class _State:
    updater: Updater
    begin: int | None = None  # what `set_begin_index` was told
    trajectory: _Trajectory | None = None


@functools.cache
def _encrypted_class(base: Any) -> Any:
    """The subclass of a scheduler class. It has its name, by which pipelines know, save and load their parts."""

    @functools.wraps(base.set_timesteps)
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> Any:
        state: _State = getattr(self, STATE)
        state.begin = state.trajectory = None
        return base.set_timesteps(self, *args, **kwargs)

    # also where the original has none: pipelines then tell which of several equal timesteps comes first
    def set_begin_index(self: Any, begin_index: int = 0) -> None:
        getattr(self, STATE).begin = begin_index
        if hasattr(base, "set_begin_index"):
            base.set_begin_index(self, begin_index)

    signature = inspect.signature(base.step)

    @functools.wraps(base.step)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _step(self, base, signature.bind(self, *args, **kwargs))

    members = {"set_timesteps": set_timesteps, "set_begin_index": set_begin_index, "step": step}
    # by which diffusers' users make a variant of a pipeline's scheduler: it has no updater
    made = {name: getattr(base, name) for name in ("from_config", "from_pretrained") if hasattr(base, name)}
    names = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    return type(base.__name__, (base,), members | names | made | {BASE: base})


def _step(scheduler: Any, base: Any, call: inspect.BoundArguments) -> Any:
    """One step: the original's, then the updater's in its form."""
    name = base.__name__
    model_output, timestep, latent = call.args[1:4]
    sample, prediction = _array(latent), _array(model_output)
    if sample.shape != prediction.shape:
        raise SchedulerError(
            f"{name} was given a prediction of shape {prediction.shape} for a latent of {sample.shape}: a model that "
            "predicts a variance too is not supported; use one that predicts as many channels as the latent has"
        )
    state: _State = getattr(scheduler, STATE)
    trajectory = state.trajectory
    time, arguments = _time(name, timestep), _arguments(name, call)
    if trajectory is None or trajectory.index == len(trajectory.updates):
        trajectory = _begin(scheduler, state, time, arguments, sample.shape)
        state.updater.begin(trajectory.updates, trajectory.shape)
        state.trajectory = trajectory
    _check(name, trajectory, time, arguments, sample.shape)

    output = base.step(*call.args, **call.kwargs)
    theirs = output[0] if isinstance(output, tuple) else output.prev_sample
    own = _array(theirs)
    if not np.isfinite(own).all():
        raise SchedulerError(
            f"the latent after timestep {time:g} is not finite: the model diverges with {name} at this schedule; use "
            "more steps, another timestep_spacing or another scheduler"
        )
    index, update = trajectory.index, trajectory.updates[trajectory.index]
    trajectory.remember(sample, prediction)
    terms = list(update.terms(trajectory.samples, trajectory.predictions))
    rest = own - sum(terms)
    if not update.noise:
        _check_linear(name, trajectory, rest, terms, _precision(latent, model_output, theirs))
    # not `own` where the latents' precision is low: its rounding is no error of the updater's
    exact = np.asarray(own if update.noise else sum(terms))
    result = state.updater.step(index, sample, prediction, rest if update.noise else None, exact)
    result = torch.as_tensor(result).to(theirs.dtype).to(theirs.device)
    trajectory.index += 1
    trajectory.returned = _array(result)
    trajectory.error = float(np.abs(trajectory.returned - own).max())
    if isinstance(output, tuple):
        return (result, *output[1:])
    return dataclasses.replace(output, prev_sample=result)


def _begin(
    scheduler: Any, state: _State, time: float, arguments: dict[str, Any], shape: tuple[int, ...]
) -> _Trajectory:
    """Read the updates from where the pipeline begins, off the state in which `set_timesteps` left the scheduler."""
    original = plain(scheduler)
    begin = state.begin if state.begin is not None else _position(original, time)
    return _Trajectory(read_updates(original, begin, stochastic=True, arguments=arguments), arguments, shape)


def _position(scheduler: Any, time: float) -> int:
    """Where in the schedule a pipeline begins that did not say: as the scheduler itself finds it out."""
    schedule = [float(t) for t in scheduler.timesteps]
    if time not in schedule:
        raise SchedulerError(
            f"{type(scheduler).__name__} was given timestep {time:g}, which its schedule lacks: call set_timesteps "
            "before sampling"
        )
    first = schedule.index(time)
    if first == 0 or not hasattr(scheduler, "index_for_timestep"):
        return first
    return int(scheduler.index_for_timestep(scheduler.timesteps[first]))


def _check(
    name: str, trajectory: _Trajectory, time: float, arguments: Mapping[str, Any], shape: tuple[int, ...]
) -> None:
    """A step must be the one that was read."""
    expected = trajectory.updates[trajectory.index].timestep
    if time != expected:
        raise SchedulerError(
            f"{name} was given timestep {time:g} for step {trajectory.index} of its schedule, where {expected:g} was "
            "expected: give its timesteps in order, each once, and call set_timesteps to begin again"
        )
    if shape != trajectory.shape:
        raise SchedulerError(
            f"{name} was given a latent of shape {shape} in a trajectory of {trajectory.shape}: call set_timesteps to "
            "begin another"
        )
    if arguments != trajectory.arguments:
        raise SchedulerError(
            f"{name} was given {arguments} in a trajectory that began with {trajectory.arguments}: give every step the "
            "same arguments"
        )


def _check_linear(name: str, trajectory: _Trajectory, rest: Array, terms: list[Array], precision: float) -> None:
    """What the original's step leaves beside the linear update must be rounding, or an error of the updater's."""
    update, off = trajectory.updates[trajectory.index], float(np.abs(rest).max())
    # a step may cancel most of its latent: it rounds what it was given, not only what comes out
    size = sum(float(np.abs(x).max()) for x in (*terms, *trajectory.samples, *trajectory.predictions))
    # where a multistep method keeps what it returned itself, the updater's error is in one of the two only
    allowed = (TOLERANCE + ROUNDINGS * precision) * size + LARGEST_GROWTH * trajectory.error
    if off <= allowed:
        return
    sample, returned = trajectory.samples[0], trajectory.returned
    if returned is not None and not np.array_equal(sample, returned):
        raise SchedulerError(
            f"the latents were changed between two steps, by {float(np.abs(sample - returned).max()):.3g}: "
            f"{name} is a multistep method, whose step at timestep {update.timestep:g} takes what the step before "
            "returned; use DDIMScheduler, EulerDiscreteScheduler or DPMSolverMultistepScheduler in this pipeline"
        )
    raise SchedulerError(
        f"{name} is not linear at timestep {update.timestep:g}: its step is off the linear update by {off:.3g}, where "
        f"rounding explains {allowed:.3g}; {WHAT_WORKS}"
    )


def _arguments(name: str, call: inspect.BoundArguments) -> dict[str, Any]:
    """Further arguments of a step, on which its coefficients may depend."""
    more = dict(zip(list(call.arguments)[4:], call.args[4:], strict=False)) | call.kwargs
    found = {key: value for key, value in more.items() if key not in FREE_ARGUMENTS and value is not None}
    for key, value in found.items():
        if not isinstance(value, bool | int | float | str):
            raise SchedulerError(
                f"{name}: step was given {key}, a {type(value).__name__}: expected numbers only, because coefficients "
                f"that differ from entry to entry are no linear update; leave {key} out"
            )
    return found


def _time(name: str, timestep: Any) -> float:
    if isinstance(timestep, torch.Tensor) and timestep.numel() != 1:
        raise SchedulerError(
            f"{name} was given {timestep.numel()} timesteps in one step: expected one for all images and entries"
        )
    return float(timestep)


def _array(latent: torch.Tensor) -> Array:
    """On the CPU first: not every device has float64."""
    return np.asarray(latent.detach().cpu().double().numpy())


def _precision(*tensors: torch.Tensor) -> float:
    """The coarsest relative rounding of any of them."""
    return max(float(torch.finfo(tensor.dtype).eps) for tensor in tensors)
