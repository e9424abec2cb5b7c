"""Polynomials of several degrees between two affine regions, on tenseal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.prepared import ready
from hefw.core.backend import Backend
from hefw.core.graph import Affine, Graph, Input, LinearTerm, Output, Polynomial
from hefw.core.sparse import SparseMatrix

FEATURES = 64


@pytest.mark.parametrize("degree", [2, 3, 4, 7])
def test_polynomial(benchmark: Any, tenseal: Backend, degree: int) -> None:
    coefficients = np.repeat((0.5 ** np.arange(degree + 1))[:, None], FEATURES, axis=1)
    diagonal = SparseMatrix.diagonal(np.full(FEATURES, 0.5))
    zero = np.zeros((1, FEATURES))
    shape = (FEATURES,)
    nodes = {
        "latent": Input("latent", shape),
        "before": Affine("before", shape, (LinearTerm("latent", diagonal),), zero),
        "curve": Polynomial("curve", shape, "before", coefficients),
        "after": Affine("after", shape, (LinearTerm("curve", diagonal),), zero),
    }
    samples = np.random.default_rng(1).normal(size=(20, FEATURES))
    graph = Graph(nodes, {"after": Output("after", np.ones(1))}, (0.0,), {"latent": samples})
    benchmark(ready(graph, tenseal))
