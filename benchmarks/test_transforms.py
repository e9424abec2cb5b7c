"""Linear transforms of several shapes on tenseal: dense matrices, and convolutions as matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.prepared import ready
from hefw.core.backend import Backend
from hefw.core.graph import Affine, Graph, Input, LinearTerm, Output
from hefw.core.sparse import SparseMatrix
from hefw.testing.graphs import convolution

RNG_SEED = 0
DENSE = {f"{rows} x {columns}": (rows, columns) for rows, columns in ((64, 64), (10, 512), (512, 10), (256, 256))}
CONVOLUTIONS = {
    "32 channels of 4 x 4": ((32, 4, 4), (32, 4, 4)),
    "16 channels of 8 x 8": ((16, 8, 8), (16, 8, 8)),
    "stride 2, 32 to 64": ((32, 4, 4), (64, 2, 2)),
    "upsampling, 64 to 32": ((64, 2, 2), (32, 4, 4)),
}


@pytest.mark.parametrize("images", [1, 16])
@pytest.mark.parametrize("shape", DENSE)
def test_dense(benchmark: Any, tenseal: Backend, shape: str, images: int) -> None:
    rows, columns = DENSE[shape]
    dense = np.random.default_rng(RNG_SEED).normal(size=(rows, columns)) / np.sqrt(columns)
    benchmark(ready(region(SparseMatrix.from_dense(dense), (columns,), (rows,)), tenseal, images))


@pytest.mark.parametrize("images", [1, 16])
@pytest.mark.parametrize("shape", CONVOLUTIONS)
def test_convolution(benchmark: Any, tenseal: Backend, shape: str, images: int) -> None:
    source, target = CONVOLUTIONS[shape]
    matrix = convolution(np.random.default_rng(RNG_SEED), source, target)
    benchmark(ready(region(matrix, source, target), tenseal, images))


def region(matrix: SparseMatrix, source: tuple[int, ...], target: tuple[int, ...]) -> Graph:
    """One affine region."""
    nodes = {
        "latent": Input("latent", source),
        "out": Affine("out", target, (LinearTerm("latent", matrix),), np.zeros((1, matrix.shape[0]))),
    }
    samples = np.random.default_rng(1).normal(size=(20, matrix.shape[1]))
    return Graph(nodes, {"out": Output("out", np.ones(1))}, (0.0,), {"latent": samples})
