"""`hefw.compile`: a torch module and a diffusers scheduler become one graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hefw.core.errors import CompileError
from hefw.core.graph import Graph, Input, LinearTerm, Node, features
from hefw.models.compiler import values as v
from hefw.models.compiler.build import Builder, interpret
from hefw.models.compiler.check import check_condition, check_module, check_sample_shape
from hefw.models.compiler.fit import DEGREE, FITTED, Fitter, check_fit, follow
from hefw.models.compiler.rules import RULES
from hefw.models.compiler.trace import Network, Traced, float64, timestep_tensor, trace
from hefw.models.compiler.values import Clear, Table, Value
from hefw.models.compiler.verify import by_module, by_operators, prediction_error, verify
from hefw.models.schedules import LinearUpdate, initial_noise, linear_updates
from hefw.models.update_terms import append_update, check_updates, network_input
from hefw.models.update_terms import calibration as samples

Array = NDArray[np.float64]
Samples: TypeAlias = "Array | torch.Tensor"
Calibration: TypeAlias = "Samples | Mapping[str, Samples]"


def compile(
    module: nn.Module,
    sample_shape: Sequence[int],
    *,
    scheduler: Any,
    steps: int,
    begin: int = 0,
    classes: int | None = None,
    condition: Sequence[int] | None = None,
    calibration: Calibration | None = None,
    activations: str = "refuse",
    degree: int = DEGREE,
    arguments: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Graph:
    """The graph of `module` with the scheduler's update: what a server evaluates on ciphertext, without torch.

    Everything is checked before it is returned: the graph's predictions on random and on calibration latents are the
    module's, in float64, at every step (with the polynomials in place of its activations, where those are fitted).

    Args:
        module: a diffusers UNet or any module whose `forward(x, t)`, `forward(x, t, y)`, `forward(x, t, condition)` or
            `forward(x, t, y, condition)` returns a prediction of the shape of x: x (batch, *sample_shape), t (batch,),
            y (batch,) labels, condition (batch, *its shape). It is copied, not changed.
        sample_shape: shape of one latent, such as (channels, height, width).
        scheduler: a diffusers scheduler; its update joins the graph. It is copied, not changed.
        steps: number of steps asked of `scheduler.set_timesteps`.
        begin: index in the scheduler's timesteps of the first step that is done: image-to-image begins later.
        classes: number of labels of a class-conditional module; the label is then private, and one-hot in the graph.
        condition: shape of one private condition, such as the embedding (size,) of a prompt, sent once a request; the
            module must use it linearly.
        calibration: latents of the first step (images, *sample_shape), from which the planner learns ranges, or such
            samples by the name of the input, as in {"latent": ..., "condition": ...}; what is not given is noise of the
            scheduler's, all labels in turn, and conditions from N(0, 1).
        activations: "refuse" those that are no polynomials, or "fit": each is replaced, per channel, by the polynomial
            that is best in least squares on what it reads on the calibration at all steps. The errors are in the
            graph's metadata: `activations`, and `prediction_error`, that of the prediction beside its own size.
        degree: of those polynomials, 2 to 15.
        arguments: further keywords of every call of the module: public, the same for all requests.
        metadata: added to the graph's.

    Raises:
        CompileError: what cannot be compiled, by the module's path and operator, and what can be done.
        SchedulerError: the scheduler's update is not linear or adds noise.
    """
    shape = check_sample_shape(sample_shape)
    if classes is not None and (type(classes) is not int or classes < 1):
        raise CompileError(
            f"classes={classes!r} is not allowed; allowed: the number of labels, an integer from 1, or None"
        )
    condition = check_condition(condition)
    private = {"labelled": classes is not None, "conditioned": condition is not None}
    check_module(module, arguments or {}, **private)
    check_fit(activations, degree)
    updates = linear_updates(scheduler, steps, begin=begin)
    check_updates(updates)
    network = Network(module, arguments or {}, **private)
    nodes: dict[str, Node] = {"latent": Input("latent", shape)}
    if classes is not None:
        nodes["label"] = Input("label", (classes,), once=True)
    if condition is not None:
        nodes["condition"] = Input("condition", condition, once=True)
    public = samples(nodes, initial_noise(scheduler, steps, begin))
    if calibration is not None:
        given = calibration if isinstance(calibration, Mapping) else {"latent": calibration}
        public = _calibration(given, nodes, public)
    predict = by_module(network, condition)
    trajectory = follow(predict, public, updates, shape) if activations == "fit" else None
    fitter = None if trajectory is None else Fitter(degree, trajectory)
    traced = trace(network, shape, updates[0].timestep, condition)
    prediction = _prediction(traced, nodes, shape, updates, classes, fitter)
    terms = [LinearTerm(name, matrix) for name, matrix in prediction.terms.items() if matrix.count]
    if not terms:
        raise CompileError("the module's prediction does not depend on the sample: there is nothing to encrypt")
    outputs = append_update(nodes, updates, terms, prediction.bias)
    images = len(public["latent"])
    history = {
        name: np.zeros((images, features(node)))
        for name, node in nodes.items()
        if isinstance(node, Input) and name not in public
    }
    graph = Graph(
        nodes,
        outputs,
        tuple(u.timestep for u in updates),
        public | history,
        {"model": type(module).__name__, "sample_shape": list(shape), **(metadata or {})},
    )
    if fitter is None or trajectory is None:
        verify(graph, predict, updates, shape)
        return graph
    verify(graph, by_operators(traced, fitter.fits, condition), updates, shape)
    errors = {
        "activations": [fit.record() for fit in fitter.fits.values()],
        "prediction_error": prediction_error(graph, trajectory, updates),
    }
    return replace(graph, metadata={**graph.metadata, **errors})


def _prediction(
    traced: Traced,
    nodes: dict[str, Node],
    shape: tuple[int, ...],
    updates: Sequence[LinearUpdate],
    classes: int | None,
    fitter: Fitter | None,
) -> v.Expression:
    given: dict[str, Value] = {name: Clear((tensor,)) for name, tensor in traced.constants.items()}
    entering = network_input(nodes, updates)
    for name, what in traced.inputs.items():
        if what == "x":
            given[name] = v.whole((1, *shape), entering)
        elif what == "t":
            given[name] = Clear(tuple(timestep_tensor(u.timestep) for u in updates))
        elif what == "condition":
            given[name] = v.whole((1, *nodes["condition"].shape), "condition")
        else:
            given[name] = Table((torch.arange(classes).reshape(-1, 1),))
    with torch.no_grad(), float64():
        rules = RULES if fitter is None else RULES | dict.fromkeys(FITTED, fitter.rule)
        return interpret(traced.graph, given, Builder(nodes, len(updates)), rules, shape)


def _calibration(given: Mapping[str, Any], nodes: Mapping[str, Node], public: Mapping[str, Array]) -> dict[str, Array]:
    """The samples given in place of those made up, and as many of everything else."""
    found: dict[str, Array] = {}
    for name, sample in given.items():
        if name not in public:
            raise CompileError(f"calibration of {name!r} is not allowed; allowed: {', '.join(public)}")
        values = np.asarray(torch.as_tensor(sample).detach().cpu().double().numpy())
        shape = nodes[name].shape
        if values.shape[1:] != shape or not len(values) or not np.isfinite(values).all():
            raise CompileError(
                f"calibration of {name!r} of shape {values.shape} is not allowed; allowed: finite samples of the first "
                f"step, (images, {', '.join(map(str, shape))})"
            )
        found[name] = values.reshape(len(values), -1)
    counts = {len(values) for values in found.values()}
    if len(counts) > 1:
        raise CompileError(f"calibration has {' and '.join(map(str, sorted(counts)))} samples; give as many of each")
    rows = np.arange(max(counts, default=len(next(iter(public.values())))))
    return {name: value[rows % len(value)] for name, value in public.items()} | found
