"""Small graphs from numpy alone, and a numpy machine that runs a transform slot by slot."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from hefw.core.graph import Affine, Graph, Input, LinearTerm, Node, Output, Polynomial, Sum
from hefw.core.linear import Transform
from hefw.core.sparse import SparseMatrix

Array = NDArray[np.float64]


def matrix(rng: np.random.Generator, rows: int, columns: int, density: float = 1.0) -> SparseMatrix:
    """Random, of gain about 1; always with an entry in every row."""
    dense = rng.normal(size=(rows, columns)) * (rng.random((rows, columns)) < density)
    dense[np.arange(rows), rng.integers(columns, size=rows)] = rng.choice([-1, 1], size=rows)
    return SparseMatrix.from_dense(dense / np.sqrt(max(1.0, density * columns)))


def identity(features: int) -> SparseMatrix:
    return SparseMatrix.diagonal(np.ones(features))


def denoiser(steps: int = 3, seed: int = 0, activations: int = 2) -> Graph:
    """A latent on a 4 x 4 grid through affine regions and quadratics, a skip, late labels, a scheduler's update."""
    rng = np.random.default_rng(seed)
    nodes: dict[str, Node] = {"latent": Input("latent", (1, 4, 4)), "label": Input("label", (3,), once=True)}
    source, width = "latent", 16
    for k in range(activations):
        shape, size = [((2, 4, 4), 32), ((4, 2, 2), 16)][k % 2]
        terms = (LinearTerm(source, matrix(rng, size, width)), LinearTerm("label", matrix(rng, size, 3)))
        nodes[f"z{k}"] = Affine(f"z{k}", shape, terms, rng.normal(size=(steps, size)) * 0.2)
        curve = np.stack([np.zeros(size), np.ones(size), rng.uniform(0.1, 0.3, size)])
        nodes[f"a{k}"] = Polynomial(f"a{k}", shape, f"z{k}", curve)
        source, width = f"a{k}", size
    last = [LinearTerm(source, matrix(rng, 16, width))]
    if activations > 1:
        last.append(LinearTerm("a0", matrix(rng, 16, 32)))
    last.append(LinearTerm("latent", identity(16), rng.uniform(-2, -1, steps)))
    nodes["update"] = Affine("update", (1, 4, 4), tuple(last), rng.normal(size=(1, 16)) * 0.1)
    factors = rng.uniform(-0.4, -0.2, steps)
    return Graph(
        nodes, {"latent": Output("update", factors, "latent")}, tuple(range(steps, 0, -1)), samples(), {"k": 1}
    )


def samples(images: int = 8, seed: int = 1) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {"latent": rng.normal(size=(images, 16)), "label": np.eye(3)[np.arange(images) % 3]}


def random_graph(seed: int, size: int = 8) -> Graph:
    """Affine regions, sums and polynomials of degree 0 to 8 that read what came before, several times or not at all."""
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(1, 4))
    shape = (2, 2, 2)
    nodes: dict[str, Node] = {"x": Input("x", shape), "y": Input("y", shape, once=True)}
    for k in range(int(rng.integers(3, 9))):
        known, name = list(nodes), f"n{k}"
        kind = rng.choice(["affine", "sum", "polynomial"])
        picked = [str(rng.choice(known[-4:])) for _ in range(int(rng.integers(1, 4)))]
        if kind == "affine":
            terms = [LinearTerm(source, matrix(rng, size, size, 0.5)) for source in picked]
            if rng.random() < 0.3:
                terms.append(LinearTerm(str(rng.choice(known)), identity(size), rng.normal(size=steps)))
            nodes[name] = Affine(name, shape, tuple(terms), rng.normal(size=(int(rng.choice([1, steps])), size)))
        elif kind == "sum":
            nodes[name] = Sum(name, shape, tuple(picked))
        else:
            nodes[name] = Polynomial(name, shape, picked[0], coefficients(rng, size))
    outputs = {
        "out": Output(list(nodes)[-1], np.ones(steps)),
        "second": Output(str(rng.choice(list(nodes))), np.ones(steps)),
    }
    return Graph(nodes, outputs, tuple(range(steps)))


def coefficients(rng: np.random.Generator, size: int) -> Array:
    """(degree + 1, size): degree 0 to 8, some of them quadratics with gaps, exact squares, or with a zero on top."""
    degree = int(rng.choice([0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8]))
    found = rng.normal(size=(degree + 1, size)) / 4.0 ** np.arange(degree + 1)[:, None]
    found[-1] = rng.uniform(0.5, 1, size) / 4.0**degree
    special = rng.random()
    if degree == 2 and special < 0.2:
        found = np.stack([np.zeros(size), np.zeros(size), np.ones(size)])
    elif degree == 2 and special < 0.4:
        found[2, 0] = 0
    elif special < 0.5:
        found = np.concatenate([found, np.zeros((1, size))])
    return found


def run_transform(transform: Transform, inputs: list[Array]) -> tuple[list[Array], Counter[str]]:
    """Executes a transform on slot vectors: the results, and what was done."""
    counts: Counter[str] = Counter()

    def rotate(slots: Array, step: int) -> Array:
        counts["rotate"] += step != 0
        return np.roll(slots, -step)

    rotated = [{s: rotate(v, s) for s in steps} for v, steps in zip(inputs, transform.babies, strict=True)]
    results = []
    for groups in transform.outputs:
        total = np.zeros_like(inputs[0])
        for group in groups:
            counts["mul_plain"] += len(group.terms)
            products = [rotated[t.source][t.baby] * transform.weight(t.weight) for t in group.terms]
            total = total + rotate(sum(products, np.zeros_like(total)), group.giant)
        for step in transform.folds:
            total = total + rotate(total, step)
        results.append(total)
    return results, counts


def combination(shares: dict[str, list[float]], entries: int, size: float = 8.0, named: str = "result") -> Graph:
    """One sum of multiples of inputs, as a scheduler's update is: `shares` are an input's factors, one a step."""
    steps = len(next(iter(shares.values())))
    nodes: dict[str, Node] = {name: Input(name, (entries,)) for name in shares}
    terms = tuple(LinearTerm(name, identity(entries), np.array(factors)) for name, factors in shares.items())
    nodes["sum"] = Affine("sum", (entries,), terms, np.zeros((1, entries)))
    calibration = {name: np.full((1, entries), size) for name in shares}
    return Graph(nodes, {named: Output("sum", np.ones(steps))}, tuple(range(steps)), calibration)
