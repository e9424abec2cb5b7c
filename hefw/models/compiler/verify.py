"""The last pass: a graph is compared with its module before anybody gets it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from hefw.core.errors import CompileError
from hefw.core.graph import Graph, features
from hefw.models.compiler.fit import Fit, Predict, Substituted, Trajectory
from hefw.models.compiler.trace import Network, Traced, float64, timestep_tensor
from hefw.models.schedules import LinearUpdate

Array = NDArray[np.float64]

#: Largest difference beside the largest prediction: modules may round in float32, in their time embedding for one.
TOLERANCE = 1e-5
RANDOM_IMAGES, CALIBRATION_IMAGES = 3, 5


def by_module(network: Network, condition: tuple[int, ...] | None) -> Predict:
    """The module's own predictions."""

    def predict(samples: torch.Tensor, timestep: float, inputs: Mapping[str, Array]) -> Array:
        private = _private(inputs, condition)
        with torch.no_grad():
            found = network(samples, timestep_tensor(timestep, len(samples)), *private)
        return np.asarray(found.double().numpy())

    return predict


def by_operators(traced: Traced, fits: Mapping[fx.Node, Fit], condition: tuple[int, ...] | None) -> Predict:
    """The predictions of the exported operators with activations replaced, image by image."""
    network = Substituted(traced.graph, fits)

    def predict(samples: torch.Tensor, timestep: float, inputs: Mapping[str, Array]) -> Array:
        rows = []
        private = _private(inputs, condition)
        for image in range(len(samples)):
            part = slice(image, image + 1)
            names = [what for what in ("y", "condition") if what in traced.inputs.values()]
            given = dict(zip(names, (tensor[part] for tensor in private), strict=True))
            given |= {"x": samples[part], "t": timestep_tensor(timestep)}
            with torch.no_grad(), float64():
                (found,) = network.run(
                    *(
                        given[traced.inputs[node.name]] if node.name in traced.inputs else traced.constants[node.name]
                        for node in traced.graph.nodes
                        if node.op == "placeholder"
                    )
                )
            rows.append(found.double().numpy())
        return np.concatenate(rows)

    return predict


def _private(inputs: Mapping[str, Array], condition: tuple[int, ...] | None) -> list[torch.Tensor]:
    found = []
    if "label" in inputs:
        found.append(torch.from_numpy(inputs["label"].argmax(axis=1)))
    if condition is not None:
        found.append(torch.from_numpy(inputs["condition"]).reshape(-1, *condition))
    return found


def verify(graph: Graph, predict: Predict, updates: Sequence[LinearUpdate], shape: tuple[int, ...]) -> float:
    """The largest relative difference between graph and module over all steps; CompileError if it is no rounding."""
    inputs = _inputs(graph)
    images = len(inputs["latent"])
    latent = torch.from_numpy(inputs["latent"]).reshape(images, *shape)
    worst = 0.0
    for step, update in enumerate(updates):
        expected = predict(update.model_input_scale * latent, update.timestep, inputs).reshape(images, -1)
        found = _prediction(graph, inputs, step, update)
        if not np.isfinite(expected).all() or not np.isfinite(found).all():
            raise CompileError(
                f"the module's prediction at timestep {update.timestep:g} is not finite for latents of the first "
                "step: it "
                "diverges in plaintext, too; train it with a penalty on large values"
            )
        off = float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-12))
        worst = max(worst, off)
        if off > TOLERANCE:
            raise CompileError(
                f"the graph's prediction at timestep {update.timestep:g} is off the module's by {off:.2g} of its "
                "size: does "
                "the module mix the images of a batch, keep state between calls, or branch on the timestep? It must not"
            )
    return worst


def prediction_error(graph: Graph, trajectory: Trajectory, updates: Sequence[LinearUpdate]) -> float:
    """The graph's error on the module's own trajectories, root mean square, beside its predictions' size."""
    off, size = 0.0, 0.0
    for step, (inputs, wanted) in enumerate(zip(trajectory.inputs, trajectory.predictions, strict=True)):
        history = {n: np.zeros((len(wanted), features(node))) for n, node in graph.inputs.items() if n not in inputs}
        found = _prediction(graph, {**inputs, **history}, step, updates[step])
        off += float(np.sum((found - wanted) ** 2))
        size += float(np.sum(wanted**2))
    return float(np.sqrt(off / max(size, 1e-300)))


def _inputs(graph: Graph) -> dict[str, Array]:
    """Random latents beside some of the calibration, and no history."""
    rng = np.random.default_rng(1)
    first = {name: value[:CALIBRATION_IMAGES] for name, value in graph.calibration.items()}
    size = float(np.abs(first["latent"]).std()) or 1.0
    more = {name: np.zeros((RANDOM_IMAGES, value.shape[1])) for name, value in first.items()}
    more["latent"] = size * rng.normal(size=more["latent"].shape)
    if "label" in more:
        classes = more["label"].shape[1]
        more["label"] = np.eye(classes)[rng.integers(classes, size=RANDOM_IMAGES)]
    if "condition" in more:
        spread = float(np.abs(first["condition"]).std()) or 1.0
        more["condition"] = spread * rng.normal(size=more["condition"].shape)
    return {name: np.concatenate([value, more[name]]) for name, value in first.items()}


def _prediction(graph: Graph, inputs: Mapping[str, Array], step: int, update: LinearUpdate) -> Array:
    """What the network predicted, from what the graph gives out: eps + (f / a) x, with no history."""
    values = graph.evaluate(step, inputs)
    return values[graph.outputs["latent"].node] - update.sample / update.predictions[0] * inputs["latent"]
