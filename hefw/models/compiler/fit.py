"""Activations as polynomials: least squares under what the activation reads on the calibration, at every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from torch import fx

from hefw.core.errors import CompileError
from hefw.core.graph import Input, Node, evaluate_node
from hefw.models.compiler import values as v
from hefw.models.compiler.build import Builder, operator_name, scaled
from hefw.models.compiler.values import Clear, Expression, Power
from hefw.models.schedules import LinearUpdate

Array = NDArray[np.float64]
#: The prediction (images, *shape) for samples, at a timestep, with the graph's other inputs.
Predict = Callable[[torch.Tensor, float, Mapping[str, Array]], Array]

#: Functions of one entry that are smooth enough to be fitted.
FITTED = (
    *("silu", "gelu", "relu", "mish", "hardswish", "hardsigmoid", "hardtanh", "relu6", "elu", "celu", "selu"),
    *("leaky_relu", "softplus", "logsigmoid", "sigmoid", "tanh", "erf", "sin", "cos", "atan"),
)
LOWEST_DEGREE, DEGREE, HIGHEST_DEGREE = 2, 4, 15
#: Calibration images whose trajectories are followed, and values of a channel that are fitted.
IMAGES, VALUES = 8, 4096
#: The interval is wider than the values seen; a grid on all of it has a share of the weight: nothing explodes there.
MARGIN, GRID, GRID_SHARE = 1.2, 64, 0.01


@dataclass(frozen=True)
class Fit:
    """What replaced an activation: per channel, a polynomial (degree + 1,) of (x - middle) / half.

    `rms_error` and `max_error` are those over the calibration.
    """

    module: str
    function: str
    degree: int
    middle: Array  # (channels,)
    half: Array  # (channels,)
    coefficients: Array  # (degree + 1, channels)
    rms_error: float
    max_error: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The polynomials at x (batch, channels, ...)."""
        per_channel = (1, -1) + (1,) * (x.ndim - 2)
        middle, half = (torch.from_numpy(a).reshape(per_channel) for a in (self.middle, self.half))
        u, total = (x - middle) / half, torch.zeros_like(x)
        for coefficient in self.coefficients[::-1]:
            total = total * u + torch.from_numpy(coefficient.copy()).reshape(per_channel)
        return total

    def record(self) -> dict[str, Any]:
        """For a graph's metadata."""
        return {
            "module": self.module,
            "function": self.function,
            "degree": self.degree,
            "range": [float((self.middle - self.half).min()), float((self.middle + self.half).max())],
            "rms_error": self.rms_error,
            "max_error": self.max_error,
        }


@dataclass(frozen=True)
class Trajectory:
    """Inputs of the graph and predictions of the module at every step, by the module and the scheduler in plaintext."""

    inputs: Sequence[Mapping[str, Array]]
    predictions: Sequence[Array]


def follow(
    predict: Predict,
    calibration: Mapping[str, Array],
    updates: Sequence[LinearUpdate],
    shape: tuple[int, ...],
) -> Trajectory:
    """The trajectories of some calibration images by the module."""
    start = {name: values[:IMAGES] for name, values in calibration.items()}
    latents, predictions, inputs = [start["latent"]], list[Array](), list[dict[str, Array]]()
    for update in updates:
        inputs.append({**start, "latent": latents[0]})
        samples = torch.from_numpy(update.model_input_scale * latents[0]).reshape(-1, *shape)
        predictions.insert(0, predict(samples, update.timestep, start).reshape(len(samples), -1))
        latents.insert(0, np.sum(list(update.terms(latents, predictions)), axis=0))
    return Trajectory(inputs, predictions[::-1])


class Fitter:
    """The rule for activations of encrypted values; `fits` has what it replaced."""

    def __init__(self, degree: int, trajectory: Trajectory) -> None:
        self.degree = degree
        self.trajectory = trajectory
        self.known: list[dict[str, Array]] = [{} for _ in trajectory.inputs]
        self.fits: dict[fx.Node, Fit] = {}

    def rule(self, builder: Builder, node: fx.Node, values: Mapping[fx.Node, Any], at: str) -> Power:
        """A polynomial, per channel, in place of an activation."""
        (argument,) = [n for n in node.all_input_nodes if not isinstance(values[n], Clear)]
        shape = tuple(int(size) for size in argument.meta["val"].shape)
        value = builder.without_factors(builder.expression(values[argument], shape, at), at)
        read = self.seen(builder.nodes, builder.placed(value, at) if value.source is None else value.source)
        channels = shape[1] if len(shape) > 1 else 1
        per_channel = read.reshape(len(read), channels, -1).swapaxes(0, 1).reshape(channels, -1)

        def function(x: Array) -> Array:
            found = fx.node.map_arg(node.args, lambda n: torch.from_numpy(x) if n is argument else values[n].at(0))
            named = fx.node.map_arg(node.kwargs, lambda n: values[n].at(0))
            assert callable(node.target)
            return np.asarray(node.target(*found, **named).numpy())

        fit = self.fits[node] = fitted(function, per_channel, self.degree, at, operator_name(node))
        entries = math.prod(shape) // channels
        middle, half = (np.repeat(a, entries) for a in (fit.middle, fit.half))
        unit = v.shifted(scaled(value, 1 / half), -(middle / half)[None])
        base = builder.placed(Expression(unit.shape, unit.terms, unit.bias, unit.scaled, unit.weighty, at), at)
        return Power(shape, base, np.repeat(fit.coefficients, entries, axis=1), at)

    def seen(self, nodes: Mapping[str, Node], name: str) -> Array:
        """The values of a node over the calibration at all steps, (steps * images, entries)."""
        for step, (inputs, known) in enumerate(zip(self.trajectory.inputs, self.known, strict=True)):
            for other, node in nodes.items():
                if other not in known and not (isinstance(node, Input) and other not in inputs):
                    known[other] = evaluate_node(node, step, inputs, known)
        return np.concatenate([known[name] for known in self.known])


class Substituted(fx.Interpreter):  # type: ignore[misc]
    """The exported network with its activations replaced: what the graph must compute."""

    def __init__(self, graph: fx.Graph, fits: Mapping[fx.Node, Fit]) -> None:
        super().__init__(torch.nn.Module(), graph=graph)
        self.fits = fits

    def run_node(self, n: fx.Node) -> Any:
        """One operator, or what replaced it."""
        if n not in self.fits:
            return super().run_node(n)
        return self.fits[n](self.fetch_args_kwargs_from_env(n)[0][0])


def check_fit(activations: str, degree: int) -> None:
    """CompileError unless activations are refused, or fitted by a degree that can be."""
    if activations not in ("refuse", "fit"):
        raise CompileError(f"activations={activations!r} is not allowed; allowed: 'refuse', 'fit'")
    if type(degree) is not int or not LOWEST_DEGREE <= degree <= HIGHEST_DEGREE:
        raise CompileError(
            f"degree={degree!r} is not allowed; allowed: {LOWEST_DEGREE} to {HIGHEST_DEGREE}, the degree of the "
            "polynomials in place of activations"
        )


def fitted(function: Callable[[Array], Array], values: Array, degree: int, at: str, name: str) -> Fit:
    """Polynomials for the values (channels, count) that a function reads."""
    low, high = values.min(axis=1), values.max(axis=1)
    middle = (low + high) / 2
    half = MARGIN * (high - low) / 2
    half = np.maximum(half, max(1e-3 * float(half.max()), 1e-6))
    grid = np.cos(np.pi * (np.arange(GRID) + 0.5) / GRID)
    rng = np.random.default_rng(0)
    coefficients = np.zeros((degree + 1, len(values)))
    worst, total = 0.0, 0.0
    for channel, found in enumerate(values):
        chosen = found if len(found) <= VALUES else rng.choice(found, VALUES, replace=False)
        u = np.concatenate([(chosen - middle[channel]) / half[channel], grid])
        weights = np.concatenate([np.ones(len(chosen)), np.full(GRID, math.sqrt(GRID_SHARE * len(chosen) / GRID))])
        wanted = function(middle[channel] + half[channel] * u)
        if not np.isfinite(wanted).all():
            raise CompileError(f"module {at!r}: {name!r} is not finite on what it reads, so that nothing fits it")
        series = chebyshev.cheb2poly(chebyshev.chebfit(u, wanted, degree, w=weights))
        coefficients[: len(series), channel] = series
        error = (np.polynomial.polynomial.polyval(u, coefficients[:, channel]) - wanted)[: len(chosen)]
        worst, total = max(worst, float(np.abs(error).max())), total + float(np.mean(error**2))
    return Fit(at, name, degree, middle, half, coefficients, math.sqrt(total / len(values)), worst)
