"""Graphs from numpy alone: a small UNet with two resolutions, a skip, labels and an update; and an update alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hefw.core.graph import Affine, Graph, Input, LinearTerm, Node, Output, Polynomial
from hefw.core.sparse import SparseMatrix

Array = NDArray[np.float64]
LABELS = 3
IMAGE, HIGH, LOW = (1, 4, 4), (2, 4, 4), (4, 2, 2)


def small_unet(steps: int = 2, seed: int = 0) -> Graph:
    """One denoising step: a convolution, one to half the resolution, one back that also reads the skip.

    Each of the two inner ones adds the label's embedding and the timestep's bias, and has a quadratic activation.
    """
    rng = np.random.default_rng(seed)

    def stage(number: int, shape: tuple[int, ...], source: str, matrix: SparseMatrix) -> list[Node]:
        size = int(np.prod(shape))
        terms = (LinearTerm(source, matrix), LinearTerm("label", _embedding(rng, shape)))
        curve = np.stack([np.zeros(size), np.ones(size), rng.uniform(0.1, 0.3, size)])
        return [
            Affine(f"conv{number}", shape, terms, rng.normal(size=(steps, size)) * 0.2),
            Polynomial(f"act{number}", shape, f"conv{number}", curve),
        ]

    update = (
        LinearTerm("act1", convolution(rng, LOW, IMAGE)),
        LinearTerm("act0", convolution(rng, HIGH, IMAGE)),
        LinearTerm("latent", SparseMatrix.diagonal(np.ones(16)), rng.uniform(-2, -1, steps)),
    )
    nodes: list[Node] = [
        Input("latent", IMAGE),
        Input("label", (LABELS,), once=True),
        *stage(0, HIGH, "latent", convolution(rng, IMAGE, HIGH)),
        *stage(1, LOW, "act0", convolution(rng, HIGH, LOW)),
        Affine("update", IMAGE, update, rng.normal(size=(1, 16)) * 0.1),
    ]
    output = Output("update", rng.uniform(-0.4, -0.2, steps), feedback="latent")
    timesteps = tuple(range(10 * steps, 0, -10))
    return Graph({node.name: node for node in nodes}, {"latent": output}, timesteps, samples(8, seed=1))


def small_update(entries: int) -> Graph:
    """Two steps of a scheduler's update, entry by entry: multiples of `latent` and `prediction`, added up."""
    identity = SparseMatrix.diagonal(np.ones(entries))
    factors = {"latent": np.array([1.02, 0.98]), "prediction": np.array([-0.3, 0.2])}
    nodes: dict[str, Node] = {name: Input(name, (entries,)) for name in factors}
    terms = tuple(LinearTerm(name, identity, each) for name, each in factors.items())
    nodes["update"] = Affine("update", (entries,), terms, np.zeros((1, entries)))
    calibration = {name: np.full((1, entries), 4.0) for name in factors}
    return Graph(nodes, {"result": Output("update", np.ones(2))}, (20, 10), calibration)


def samples(images: int, seed: int = 0) -> dict[str, Array]:
    """Noise and one-hot labels, (images, features) each."""
    rng = np.random.default_rng(seed)
    return {"latent": rng.normal(size=(images, 16)), "label": np.eye(LABELS)[np.arange(images) % LABELS]}


def convolution(rng: np.random.Generator, source: tuple[int, ...], target: tuple[int, ...]) -> SparseMatrix:
    """A random 3 x 3 convolution, zero outside, of gain about 1; with stride or nearest upsampling between sizes."""
    (channels, height, _), (out_channels, out_height, out_width) = source, target
    kernel = rng.normal(size=(out_channels, channels, 3, 3)) / np.sqrt(9 * channels)
    dense = np.zeros((*target, *source))
    for row, column, i, j in np.ndindex(out_height, out_width, 3, 3):
        r, c = (index * height // out_height + tap - 1 for index, tap in ((row, i), (column, j)))
        if 0 <= r < height and 0 <= c < source[2]:
            dense[:, row, column, :, r, c] = kernel[:, :, i, j]
    return SparseMatrix.from_dense(dense.reshape(int(np.prod(target)), int(np.prod(source))))


def _embedding(rng: np.random.Generator, shape: tuple[int, ...]) -> SparseMatrix:
    table = rng.normal(size=(shape[0], LABELS)) / 2  # one vector a label, the same at every place
    return SparseMatrix.from_dense(np.repeat(table, shape[1] * shape[2], axis=0))
