"""A scheduler's update as a graph of its own: what the server computes in the protocol `update-only`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hefw.core.graph import Affine, Graph, Input, LinearTerm, Node, Output
from hefw.core.sparse import SparseMatrix
from hefw.models.schedules import LinearUpdate

Array = NDArray[np.float64]
Term = tuple[str, str | None, list[float]]  # input, what it was before, factors a step

LATENT, PREDICTION, NOISE = "latent", "prediction", "noise"
#: Of a noise prediction, guidance included; the planner keeps room above.
PREDICTION_MAGNITUDE = 8.0


def update_graph(updates: Sequence[LinearUpdate], entries: int, magnitude: float) -> Graph:
    """The updates x_{t-1} = f x_t + sum_i a_i eps_{t+i} + sum_i f_i x_{t+i} [+ noise] of latents of so many entries.

    Inputs are `latent`, `prediction`, what they were i steps before (`latent-i`, `prediction-i`) where a step takes it,
    and `noise`; the output is `result`. `magnitude` bounds the latents.
    """
    terms: list[Term] = [(LATENT, None, [u.sample for u in updates])]
    terms += earlier(LATENT, [u.earlier_samples for u in updates])
    terms += [(PREDICTION, None, [u.predictions[0] for u in updates])]
    terms += earlier(PREDICTION, [u.predictions[1:] for u in updates])
    if any(u.noise for u in updates):
        terms.append((NOISE, None, [float(u.noise) for u in updates]))
    identity = SparseMatrix.diagonal(np.ones(entries))
    nodes: dict[str, Node] = {name: Input(name, (entries,), previous=previous) for name, previous, _ in terms}
    sums = tuple(LinearTerm(name, identity, np.array(factors)) for name, _, factors in terms)
    nodes["update"] = Affine("update", (entries,), sums, np.zeros((1, entries)))
    sizes = {name: magnitude if name.startswith(LATENT) else PREDICTION_MAGNITUDE for name, _, _ in terms}
    return Graph(
        nodes,
        {"result": Output("update", np.ones(len(updates)))},
        tuple(u.timestep for u in updates),
        {name: np.full((1, entries), size) for name, size in sizes.items()},
        {"model": "update"},
    )


def earlier(name: str, rows: Sequence[Sequence[float]]) -> list[Term]:
    """A term for every step back that some step takes."""
    names = [name, *(f"{name}-{back}" for back in range(1, max(map(len, rows)) + 1))]
    return [
        (names[back], names[back - 1], [row[back - 1] if back <= len(row) else 0.0 for row in rows])
        for back in range(1, len(names))
    ]
