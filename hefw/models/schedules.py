"""Reads the linear update of every step off an unmodified diffusers scheduler.

Without clipping and thresholding, a scheduler's `step` is linear in the latents and predictions given to it, random
noise aside. So running it once on basis vectors gives its coefficients, and running it on random numbers tells whether
it was linear.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray

from hefw.core.errors import SchedulerError

Array = NDArray[np.float64]

# schedulers that keep float32 tables reproduce their own coefficients to about 3e-7
TOLERANCE = 1e-5
# coefficients below this, beside the others of a step, are what rounding in float64 leaves
NEGLIGIBLE = 1e-9
# steps back to which an update may reach: PNDM's Runge-Kutta phase, the longest, needs 12
LONGEST_HISTORY = 16
# an internal latent is eliminated only where that does not make coefficients, and with them errors, much larger
LARGEST_GROWTH = 100.0
# of one image each: the larger magnitude finds clipping to any range a picture could meet
PROBE_MAGNITUDES = (1.0, 1e3)
# several channels and pixels: a step that mixes them is no scalar update
PROBE_IMAGE = (4, 3, 3)
# named in messages when a scheduler's config has them switched on
NONLINEAR_OPTIONS = ("clip_sample", "thresholding")
STOCHASTIC_OPTIONS = ("variance_type", "algorithm_type", "stochastic_sampling")
SINGULAR_OPTIONS = ("rescale_betas_zero_snr", "prediction_type")
WHAT_WORKS = "use a deterministic scheduler such as DDIMScheduler with clip_sample=False"
UPDATE_ONLY = "protocol 'update-only'"

SampleFeed = Callable[[int, "torch.Tensor | None"], torch.Tensor]
PredictionFeed = Callable[[int], torch.Tensor]


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

    def terms(self, samples: Sequence[Array], predictions: Sequence[Array]) -> Iterator[Array]:
        """The terms of x_{t-1} without noise, from all latents and predictions up to this step, the newest first."""
        for factor, x in zip((self.sample, *self.earlier_samples), samples, strict=False):
            yield factor * x
        for factor, eps in zip(self.predictions, predictions, strict=False):
            yield factor * eps


def linear_updates(
    scheduler: Any, num_inference_steps: int, *, begin: int = 0, stochastic: bool = False
) -> list[LinearUpdate]:
    """The linear updates of all steps, in the order of sampling.

    Args:
        scheduler: a diffusers scheduler, of any prediction type. It is copied, not changed.
        num_inference_steps: number of steps asked of `set_timesteps`.
        begin: index of the first step that is done: image-to-image begins later.
        stochastic: whether steps may add random noise; such updates have `noise` set.

    Returns:
        one LinearUpdate per model evaluation, of which a method may need more or fewer than `num_inference_steps`;
        coefficients in float64, as exact as the scheduler's own tables. They apply to x_T = `initial_noise` * N(0, 1).

    Raises:
        SchedulerError: the scheduler is not linear, adds noise that is not allowed, or needs a history without end; the
            message names the scheduler and the option.
    """
    return read_updates(with_timesteps(scheduler, num_inference_steps), begin, stochastic=stochastic)


def one_step_updates(scheduler: Any, num_inference_steps: int) -> list[LinearUpdate]:
    """The updates of a scheduler whose steps take nothing but the latent, as the model has it, and one prediction.

    For graphs that have no inputs for more.

    Raises:
        SchedulerError: as `linear_updates`, and for a scheduler that needs a history, scales the model's input, or has
            fractional timesteps.
    """
    name, updates = type(scheduler).__name__, linear_updates(scheduler, num_inference_steps)
    for update in updates:
        at, needs = f"at timestep {update.timestep:g}", ""
        if len(update.predictions) > 1 or update.earlier_samples:
            needs = f"is a multistep method: its step {at} uses earlier predictions or latents"
        elif update.model_input_scale != 1:
            needs = f"gives the model {update.model_input_scale:.3g} times the latent {at}"
        elif not update.timestep.is_integer():
            needs = f"gives the model the fractional timestep {update.timestep:g}"
        if needs:
            raise SchedulerError(
                f"{name} {needs}, which this model's graph does not take: use a one-step scheduler such as "
                f"DDIMScheduler, or {UPDATE_ONLY}"
            )
    return updates


def initial_noise(scheduler: Any, num_inference_steps: int, begin: int = 0) -> float:
    """The standard deviation of the first latents.

    It is that of x_T, which most schedulers know only once their timesteps are set, or where the schedule is begun
    later, of latents of deviation 1 with the noise of that timestep.
    """
    ready = with_timesteps(scheduler, num_inference_steps)
    return float(np.hypot(*noise_shares(ready, begin))) if begin else float(getattr(ready, "init_noise_sigma", 1.0))


def noise_shares(scheduler: Any, index: int) -> tuple[float, float]:
    """What `add_noise` takes of a latent and of noise, at one of the timesteps that are set."""
    check_interface(scheduler, ("add_noise",))
    scheduler = copy.deepcopy(scheduler)
    begin_at(scheduler, index)
    one, none = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    timesteps = scheduler.timesteps[index : index + 1]
    return float(scheduler.add_noise(one, none, timesteps)), float(scheduler.add_noise(none, one, timesteps))


def begin_at(scheduler: Any, begin: int) -> None:
    """Tell a scheduler whose timesteps are set which of them comes first, as diffusers' pipelines do."""
    if begin and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)


class Own:
    """Stands for a model's own scheduler where a class of schedulers is asked for."""

    @staticmethod
    def from_config(config: Mapping[str, Any], **options: Any) -> Any:
        """A scheduler of the class that the configuration was saved from; SchedulerError if it does not say."""
        kind = getattr(diffusers, str(config.get("_class_name")), None)
        if kind is None:
            raise SchedulerError("the model does not say which scheduler is its own: choose one, such as ddim")
        return kind.from_config(config, **options)


def converted(scheduler: Any, kind: Any, options: Mapping[str, Any]) -> Any:
    """A scheduler of class `kind` with the configuration of another one, and those options replaced that are not None.

    Raises:
        SchedulerError: `kind` does not take the options, or has noise levels of another sort: flow matching.
    """
    kind = type(scheduler) if kind is Own else kind
    given = {name: value for name, value in options.items() if value is not None}
    if "clip_sample" in inspect.signature(kind.__init__).parameters and "clip_sample" not in scheduler.config:
        # a model whose scheduler has no such option is not clipped; the option's default is to clip
        given.setdefault("clip_sample", False)
    try:
        made = kind.from_config(scheduler.config, **given)
    except (TypeError, ValueError, ImportError, NotImplementedError) as error:
        raise SchedulerError(f"{kind.__name__} refuses {given}: {str(error).strip().splitlines()[0]}") from error
    if hasattr(made, "alphas_cumprod") != hasattr(scheduler, "alphas_cumprod"):
        raise SchedulerError(
            f"{kind.__name__} has noise levels of another kind than {type(scheduler).__name__}, for which the model "
            f"was trained: choose one of {type(scheduler).__name__}.compatibles"
        )
    return made


def read_updates(
    scheduler: Any, begin: int = 0, *, stochastic: bool = False, arguments: Mapping[str, Any] | None = None
) -> list[LinearUpdate]:
    """The linear updates of a scheduler whose timesteps are set already, be they its own or a user's.

    Args:
        scheduler: a diffusers scheduler after `set_timesteps`, with no step done. It is copied, not changed.
        begin: index in `scheduler.timesteps` of the first step: image-to-image begins later. As pipelines do, it is
            given to `set_begin_index` where a scheduler has that, unless one is set already.
        stochastic: whether steps may add random noise.
        arguments: further arguments of every `step`, such as DDIM's eta.

    Raises:
        SchedulerError: as for `linear_updates`.
    """
    check_interface(scheduler, ("step",))
    if not 0 <= begin < len(scheduler.timesteps):
        raise SchedulerError(f"begin={begin}: expected an index of the schedule's {len(scheduler.timesteps)} timesteps")
    with torch.random.fork_rng(devices=[]):
        return _Reader(scheduler, begin, dict(arguments or {})).read(stochastic)


class _Reader:
    """Runs copies of one scheduler, each from the same state and with the same random numbers."""

    def __init__(self, scheduler: Any, begin: int, arguments: dict[str, Any]) -> None:
        self.scheduler, self.begin, self.arguments = scheduler, begin, arguments
        self.name = type(scheduler).__name__
        self.timesteps = [float(t) for t in scheduler.timesteps[begin:]]
        self.calls = len(self.timesteps)

    def read(self, stochastic: bool) -> list[LinearUpdate]:
        # a basis vector of its own for every latent and every prediction
        width = 2 * self.calls
        basis = torch.eye(width, dtype=torch.float64)[:, None, :, None, None]
        # a linear map takes zero to zero: what else comes out was added, and the same is added to the basis
        noise = self.zero_run((1, width, 1, 1))
        if not stochastic and any(float(added.abs().max()) > 0 for added in noise):
            raise SchedulerError(
                f"{self.name} is stochastic{self.named(STOCHASTIC_OPTIONS, self.arguments)}: its step adds random "
                f"noise, so it is no linear update; {WHAT_WORKS} and eta=0, or {UPDATE_ONLY}, where the key "
                "holder gives the noise"
            )
        scaled, stepped = self.run(lambda k, _: basis[2 * k], lambda k: basis[2 * k + 1])
        rows = [(step - added).flatten().numpy() for step, added in zip(stepped, noise, strict=True)]
        for k, row in enumerate(rows):
            if not np.isfinite(row).all():
                raise SchedulerError(
                    f"{self.name} is not finite at timestep {self.timesteps[k]:g}{self.named(SINGULAR_OPTIONS)}: "
                    "choose prediction_type='v_prediction', or noise levels that stay below pure noise"
                )
        rows, multiples = self.finite(rows)
        updates = []
        for k, row in enumerate(rows):
            row = np.where(_counts(row), row, 0.0)
            own_noise = noise[k] - multiples[k] * noise[k - 1]
            updates.append(
                LinearUpdate(
                    timestep=self.timesteps[k],
                    model_input_scale=float(scaled[k].flatten()[2 * k]),
                    sample=float(row[2 * k]),
                    predictions=(float(row[2 * k + 1]), *_trimmed(row[2 * k - 1 :: -2] if k else row[:0])),
                    noise=bool(own_noise.abs().max() > NEGLIGIBLE),
                    earlier_samples=_trimmed(row[2 * k - 2 :: -2] if k else row[:0]),
                )
            )
        self.probe(updates, multiples)
        return updates

    def finite(self, rows: list[Array]) -> tuple[list[Array], list[float]]:
        """Coefficients on (x_T, eps_T, ..., x_t, eps_t) that do not reach back without end; multiples: see below.

        A scheduler may keep a latent of its own: the one that UniPC corrects depends on all steps so far. But x_t,
        which a step is given, is what the step before returned: x_t - (its row) = 0, and any multiple of that may be
        added. The multiple that cancels one coefficient cancels all that came by the latent kept.

        It is added where that shortens the history, or where no step needs earlier latents then (PLMS, Heun). Otherwise
        rows stay as they are, and hold for any latents, also for those that a pipeline changes between steps.
        """
        shortest = [self.shortest(k, row, rows[k - 1]) for k, row in enumerate(rows)]
        lengths = [_history(row, k) for k, (row, _) in enumerate(shortest)]
        for k, (history, _) in enumerate(lengths):
            if history > LONGEST_HISTORY:
                raise SchedulerError(
                    f"{self.name} uses predictions or latents of more than {LONGEST_HISTORY} steps before timestep "
                    f"{self.timesteps[k]:g}: too many to keep; {WHAT_WORKS}"
                )
        shorter = max(lengths)[0] < max(_history(row, k)[0] for k, row in enumerate(rows))
        if not shorter and any(latents for _, latents in lengths):
            return rows, [0.0] * self.calls
        return [row for row, _ in shortest], [multiple for _, multiple in shortest]

    def shortest(self, k: int, row: Array, previous: Array) -> tuple[Array, float]:
        """The row of step k with the shortest history, and the multiple of the identity that was added."""
        found = [(_history(row, k), 0.0, row)]
        if found[0][0][1]:
            identity = -previous
            identity[2 * k] = 1.0
            recent = np.arange(max(0, 2 * (k - LONGEST_HISTORY)), 2 * k)
            for place in recent[np.argsort(-np.abs(previous[recent]), kind="stable")]:
                if row[place] and abs(row[place]) < LARGEST_GROWTH * abs(previous[place]):
                    multiple = float(row[place] / previous[place])
                    candidate = row + multiple * identity
                    found.append((_history(candidate, k), multiple, candidate))
        _, multiple, best = min(found, key=lambda candidate: candidate[0])
        return best, multiple

    def probe(self, updates: list[LinearUpdate], multiples: list[float]) -> None:
        """Compare the updates with the scheduler's own trajectory from random numbers."""
        shape = (len(PROBE_MAGNITUDES), *PROBE_IMAGE)
        noise = [added.numpy() for added in self.zero_run(shape)]
        magnitudes = torch.tensor(PROBE_MAGNITUDES, dtype=torch.float64)[:, None, None, None]
        generator = torch.Generator().manual_seed(0)
        start, *eps = magnitudes * torch.randn((self.calls + 1, *shape), generator=generator, dtype=torch.float64)
        scaled, stepped = self.run(lambda k, previous: start if previous is None else previous, lambda k: eps[k])
        samples = [x.numpy() for x in (start, *stepped)]
        predictions = [e.numpy() for e in eps]
        for k, update in enumerate(updates):
            added = noise[k] - multiples[k] * noise[k - 1]
            terms = [*update.terms(samples[k::-1], predictions[k::-1]), added]
            step_error = _largest(samples[k + 1] - sum(terms))
            scale_error = _largest(scaled[k].numpy() - update.model_input_scale * samples[k])
            step_allowed = TOLERANCE * sum(_largest(term) for term in terms)
            # written so that nan fails too
            if not ((step_error <= step_allowed) & (scale_error <= TOLERANCE * _largest(samples[k]))).all():
                raise SchedulerError(
                    f"{self.name} is not linear at timestep {update.timestep:g}{self.named(NONLINEAR_OPTIONS)}: its "
                    f"step is off the linear update by {step_error.max():.3g}; {WHAT_WORKS} and thresholding=False"
                )

    def zero_run(self, shape: tuple[int, ...]) -> list[torch.Tensor]:
        zero = torch.zeros(shape, dtype=torch.float64)
        return self.run(lambda k, _: zero, lambda k: zero)[1]

    def run(self, sample: SampleFeed, prediction: PredictionFeed) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """What `scale_model_input` and `step` return at each call, in float64.

        `sample(k, previous)` is the latent given to step k, where `previous` is what the step before returned.
        """
        scheduler = _on_cpu(copy.deepcopy(self.scheduler))
        if getattr(scheduler, "begin_index", None) is None:
            begin_at(scheduler, self.begin)
        torch.default_generator.manual_seed(0)
        # flow matching schedulers have no scale_model_input: their models take the latent as it is
        scale = getattr(scheduler, "scale_model_input", lambda x, t: x)
        scaled: list[torch.Tensor] = []
        stepped: list[torch.Tensor] = []
        for k, t in enumerate(scheduler.timesteps[self.begin :]):
            x = sample(k, stepped[-1] if stepped else None)
            try:
                scaled.append(scale(x, t).double())
                result = scheduler.step(prediction(k), t, x, **self.arguments, return_dict=False)[0].double()
            except Exception as error:  # a scheduler may be anyone's, and raise anything
                raise SchedulerError(
                    f"{self.name} cannot do its step at timestep {float(t):g}: {str(error) or type(error).__name__}; "
                    f"{WHAT_WORKS}"
                ) from error
            if result.shape != x.shape:
                raise SchedulerError(
                    f"{self.name} makes {tuple(result.shape)} of a latent of {tuple(x.shape)}"
                    f"{self.named(STOCHASTIC_OPTIONS)}: expected the same shape; {WHAT_WORKS}"
                )
            stepped.append(result)
        return scaled, stepped

    def named(self, suspects: tuple[str, ...], more: Mapping[str, Any] | None = None) -> str:
        """Those of the suspect options that the scheduler's config has switched on, ready to stand in a message."""
        config = dict(getattr(self.scheduler, "config", {}))
        found = {key: config[key] for key in suspects if config.get(key) not in (None, False)} | dict(more or {})
        return f" ({', '.join(f'{key}={value!r}' for key, value in found.items())})" if found else ""


def _counts(row: Array) -> NDArray[np.bool_]:
    """Which coefficients are more than rounding."""
    return np.asarray(np.abs(row) > NEGLIGIBLE * np.abs(row).max())


def _history(row: Array, k: int) -> tuple[int, int]:
    """How many earlier values step k needs, by the oldest that counts: predictions and latents together; latents."""
    used = np.flatnonzero(_counts(row[: 2 * k + 2]))
    latents, predictions = (
        int(k - kind[0] // 2) if len(kind) else 0 for kind in (used[used % 2 == 0], used[used % 2 == 1])
    )
    return latents + predictions, latents


def _largest(x: Array) -> Array:
    """The largest absolute value in each image."""
    return np.asarray(np.abs(x).max(axis=(1, 2, 3)))


def _trimmed(row: Array) -> tuple[float, ...]:
    """Without trailing zeros."""
    used = np.flatnonzero(row)
    return tuple(float(value) for value in row[: used[-1] + 1]) if len(used) else ()


def check_interface(scheduler: Any, methods: tuple[str, ...]) -> None:
    """SchedulerError unless the object has these methods."""
    for method in methods:
        if not callable(getattr(scheduler, method, None)):
            raise SchedulerError(
                f"{type(scheduler).__name__} has no method {method!r}: expected a diffusers scheduler; {WHAT_WORKS}"
            )


def with_timesteps(scheduler: Any, num_inference_steps: int) -> Any:
    """A copy with its timesteps set: schedulers keep counters and history, the caller's must not change."""
    check_interface(scheduler, ("set_timesteps", "step"))
    if num_inference_steps < 1:
        raise SchedulerError(f"num_inference_steps={num_inference_steps}: expected at least 1")
    scheduler = copy.deepcopy(scheduler)
    try:
        scheduler.set_timesteps(num_inference_steps)
    except Exception as error:  # a scheduler may be anyone's, and raise anything
        raise SchedulerError(
            f"{type(scheduler).__name__} refuses num_inference_steps={num_inference_steps}: {error}"
        ) from error
    return scheduler


def _on_cpu(scheduler: Any) -> Any:
    """With its tables where float64 exists; pipelines put them on their device."""
    for name, value in vars(scheduler).items():
        if isinstance(value, torch.Tensor):
            setattr(scheduler, name, value.cpu())
    return scheduler
