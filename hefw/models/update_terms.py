"""What every end-to-end graph has around its network: the scaled latent before it, the scheduler's update after it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hefw.core.errors import SchedulerError
from hefw.core.graph import Affine, Input, LinearTerm, Node, Output, features
from hefw.core.sparse import SparseMatrix
from hefw.models.schedules import LinearUpdate
from hefw.models.update_graph import earlier

Array = NDArray[np.float64]

CALIBRATION_IMAGES = 20


def check_updates(updates: Sequence[LinearUpdate]) -> None:
    """A server that knows no noise of the scheduler's cannot add it; it divides by the first coefficient."""
    for update in updates:
        at = f"at timestep {update.timestep:g}"
        if update.noise:
            raise SchedulerError(
                f"the scheduler is stochastic: its step {at} adds random noise, so it is no linear update; "
                "use protocol: update-only, or a scheduler without noise, such as ddim"
            )
        if not update.predictions[0]:
            raise SchedulerError(f"the prediction has no effect {at}: use fewer steps")


def network_input(nodes: dict[str, Node], updates: Sequence[LinearUpdate]) -> str:
    """The node that the network reads: the input `latent`, or what the scheduler makes of it, which is then added."""
    scales = np.array([u.model_input_scale for u in updates])
    if (scales == 1).all():
        return "latent"
    latent = nodes["latent"]
    term = LinearTerm("latent", SparseMatrix.diagonal(np.ones(features(latent))), scales)
    nodes["scaled"] = Affine("scaled", latent.shape, (term,), np.zeros((1, features(latent))))
    return "scaled"


def append_update(
    nodes: dict[str, Node], updates: Sequence[LinearUpdate], prediction: Sequence[LinearTerm], bias: Array
) -> dict[str, Output]:
    """Add the scheduler's update of the input `latent`, divided by its first coefficient; returns the outputs by name.

    The network's prediction is `prediction` plus `bias` (1 or steps, features). The output is eps + (f / a) x: the key
    holder multiplies it by the public a and has x_{t-1}, so that the update costs no level and re-encodes nothing. A
    multistep scheduler's history is further inputs, `latent-1`, `prediction-1` and so on; the prediction is then an
    output, too.
    """
    shape = nodes["latent"].shape
    entries = SparseMatrix.diagonal(np.ones(math.prod(shape)))
    first = np.array([u.predictions[0] for u in updates])
    terms = [LinearTerm("latent", entries, np.array([u.sample for u in updates]) / first)]
    latents = earlier("latent", [u.earlier_samples for u in updates])
    predictions = earlier("prediction", [u.predictions[1:] for u in updates])
    for name, previous, factors in (*latents, *predictions):
        # what the prediction was comes back from the output of that name
        before = None if previous == "prediction" else previous
        nodes[name] = Input(name, shape, previous=before)
        terms.append(LinearTerm(name, entries, np.array(factors) / first))
    outputs = {"latent": Output("update", first, feedback="latent")}
    if predictions:
        nodes["prediction"] = Affine("prediction", shape, tuple(prediction), bias)
        outputs["prediction"] = Output("prediction", np.ones(len(first)), feedback="prediction-1")
        prediction, bias = [LinearTerm("prediction", entries)], np.zeros_like(bias)
    nodes["update"] = Affine("update", shape, (*prediction, *terms), bias)
    return outputs


def calibration(nodes: Mapping[str, Node], noise: float) -> dict[str, Array]:
    """Public samples of the first step: `noise` times N(0, 1), all labels in turn, N(0, 1) conditions, no history."""
    rng = np.random.default_rng(0)
    inputs = {name: node for name, node in nodes.items() if isinstance(node, Input)}
    samples = {name: np.zeros((CALIBRATION_IMAGES, features(node))) for name, node in inputs.items()}
    samples["latent"] = noise * rng.normal(size=samples["latent"].shape)
    if "label" in inputs:
        classes = features(inputs["label"])
        samples["label"] = np.eye(classes)[np.arange(CALIBRATION_IMAGES) % classes]
    if "condition" in inputs:
        samples["condition"] = rng.normal(size=samples["condition"].shape)
    # of single precision, so that a file keeps them in half the bytes
    return {name: values.astype(np.float32).astype(np.float64) for name, values in samples.items()}
