"""The last pass: a graph is compared with its module before anybody gets it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from hefw.core.errors import CompileError
from hefw.core.graph import Graph
from hefw.models.compiler.trace import Network, timestep_tensor
from hefw.models.schedules import LinearUpdate

Array = NDArray[np.float64]

#: Largest difference beside the largest prediction: modules may round in float32, in their time embedding for one.
TOLERANCE = 1e-5
RANDOM_IMAGES, CALIBRATION_IMAGES = 3, 5


def verify(graph: Graph, network: Network, updates: Sequence[LinearUpdate], shape: tuple[int, ...]) -> float:
    """The largest relative difference between graph and module over all steps; CompileError if it is no rounding."""
    inputs = _inputs(graph)
    images = len(inputs["latent"])
    latent = torch.from_numpy(inputs["latent"]).reshape(images, *shape)
    private = []
    if "label" in inputs:
        private.append(torch.from_numpy(inputs["label"].argmax(axis=1)))
    if "condition" in inputs:
        private.append(torch.from_numpy(inputs["condition"]).reshape(images, *graph.inputs["condition"].shape))
    worst = 0.0
    for step, update in enumerate(updates):
        with torch.no_grad():
            wanted = network(update.model_input_scale * latent, timestep_tensor(update.timestep, images), *private)
        expected = wanted.double().numpy().reshape(images, -1)
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


def _prediction(graph: Graph, inputs: dict[str, Array], step: int, update: LinearUpdate) -> Array:
    """What the network predicted, from what the graph gives out: eps + (f / a) x, with no history."""
    values = graph.evaluate(step, inputs)
    return values[graph.outputs["latent"].node] - update.sample / update.predictions[0] * inputs["latent"]
