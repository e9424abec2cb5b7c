"""What is computed, free of any layout: a small DAG of affine regions, polynomials and sums over named inputs.

A graph describes one denoising step for every step of a schedule: weights are shared by all steps; biases and the
factors of identity terms have a row a step. `graph_file` keeps it as one file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.core.errors import GraphError
from hefw.core.files import write_atomically
from hefw.core.sparse import SparseMatrix

Array = NDArray[np.float64]
Values = dict[str, Array]  # node name -> (images, features)
Perturb = Callable[[str, Array], Array]


@dataclass(frozen=True)
class Input:
    """An encrypted input. `once`: sent once a request (a label), not at every step (a latent).

    `previous`: it is what that input was at the step before, and zero at the first: a multistep scheduler's history.
    """

    name: str
    shape: tuple[int, ...]
    once: bool = False
    previous: str | None = None


@dataclass(frozen=True)
class LinearTerm:
    """`matrix` times `source`; with `factors` (steps,), times that step's number too (identity matrices only)."""

    source: str
    matrix: SparseMatrix
    factors: Array | None = None


@dataclass(frozen=True)
class Affine:
    """An affine region: the sum of its terms plus `bias` (1 or steps, features)."""

    name: str
    shape: tuple[int, ...]
    terms: tuple[LinearTerm, ...]
    bias: Array


@dataclass(frozen=True)
class Polynomial:
    """Entry by entry, sum_k coefficients[k] * source**k; `coefficients` is (degree + 1, features)."""

    name: str
    shape: tuple[int, ...]
    source: str
    coefficients: Array

    @property
    def is_square(self) -> bool:
        """True if it is source**2 plus a constant: one operation for an evaluator."""
        c = self.coefficients
        return len(c) == 3 and not c[1].any() and bool((c[2] == 1).all())


@dataclass(frozen=True)
class Sum:
    """The sum of several values of one shape."""

    name: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Output:
    """A result: the key holder multiplies `node` by the public `factors` (steps,); the next step's input `feedback`."""

    node: str
    factors: Array
    feedback: str | None = None


Node = Input | Affine | Polynomial | Sum


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order, outputs by name, and what is known about the steps.

    `calibration` holds public sample inputs (images, features) by input name, from which a planner learns ranges and
    forecasts precision; for a fed-back input these are samples of the first step.
    """

    nodes: Mapping[str, Node]
    outputs: Mapping[str, Output]
    timesteps: tuple[float, ...]  # what the network is given as t, whole or fractional
    calibration: Mapping[str, Array] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def steps(self) -> int:
        return len(self.timesteps)

    @property
    def inputs(self) -> dict[str, Input]:
        """The inputs by name."""
        return {name: node for name, node in self.nodes.items() if isinstance(node, Input)}

    def evaluate(self, step: int, inputs: Mapping[str, Array], perturb: Perturb | None = None) -> Values:
        """All values of one step in plaintext: the reference that every backend is compared with.

        `inputs` maps names to (images, features). `perturb(name, value)` may replace each value as it is computed.
        """
        values: Values = {}
        for name, node in self.nodes.items():
            value = evaluate_node(node, step, inputs, values)
            values[name] = value if perturb is None else perturb(name, value)
        return values

    def trajectory(self, inputs: Mapping[str, Array], perturb: Perturb | None = None) -> list[Values]:
        """The values of every step, each output fed back as its next step's input."""
        current, history = dict(inputs), []
        for step in range(self.steps):
            values = self.evaluate(step, current, perturb)
            history.append(values)
            fed: Values = {}
            for output in self.outputs.values():
                if output.feedback is not None:
                    fed[output.feedback] = values[output.node] * output.factors[step]
            current = advance(current, {n: node.previous for n, node in self.inputs.items()}, fed)
        return history

    def consumers(self) -> dict[str, list[str]]:
        """The names of the nodes that read each node."""
        readers: dict[str, list[str]] = {name: [] for name in self.nodes}
        for name, node in self.nodes.items():
            for source in sources(node):
                readers[source].append(name)
        return readers

    @cached_property
    def digest(self) -> str:
        """32 hexadecimal digits that identify structure, weights and schedule (not metadata)."""
        from hefw.core.graph_file import digest

        return digest(self)

    def save(self, path: Path) -> None:
        """Write the file atomically."""
        from hefw.core.graph_file import to_bytes

        write_atomically(Path(path), to_bytes(self))

    @staticmethod
    def load(path: Path) -> Graph:
        """Read a graph file; GraphError if it is missing, not one, or inconsistent."""
        from hefw.core.graph_file import read

        return read(Path(path))


def advance(current: Mapping[str, Array], previous: Mapping[str, str | None], fed: Mapping[str, Array]) -> Values:
    """A step's inputs from those of the step before and the outputs that are fed back: histories move on by one."""
    moved = {name: current[source] for name, source in previous.items() if source is not None}
    return {**current, **moved, **fed}


def sources(node: Node) -> tuple[str, ...]:
    """The names that a node reads."""
    if isinstance(node, Affine):
        return tuple(term.source for term in node.terms)
    if isinstance(node, Polynomial):
        return (node.source,)
    return node.sources if isinstance(node, Sum) else ()


def features(node: Node) -> int:
    """The number of entries of a node's value, for one image."""
    return math.prod(node.shape)


def evaluate_node(node: Node, step: int, inputs: Mapping[str, Array], values: Mapping[str, Array]) -> Array:
    """A node's value at a step from the graph's inputs and the values of the nodes before it."""
    if isinstance(node, Input):
        if node.name not in inputs:
            raise GraphError(f"input {node.name!r} is missing; given: {', '.join(inputs) or 'none'}")
        return np.asarray(inputs[node.name], dtype=np.float64)
    if isinstance(node, Affine):
        images = max((len(value) for value in inputs.values()), default=1)
        total = np.repeat(node.bias[step if len(node.bias) > 1 else 0][:, None], images, axis=1)
        for term in node.terms:
            factor = 1.0 if term.factors is None else term.factors[step]
            total = total + factor * (term.matrix @ values[term.source].T)
        return np.asarray(total.T)
    if isinstance(node, Polynomial):
        result: Array = np.zeros_like(values[node.source])
        for coefficient in node.coefficients[::-1]:
            result = result * values[node.source] + coefficient
        return result
    return np.asarray(np.sum([values[name] for name in node.sources], axis=0))


def _check(graph: Graph) -> None:
    steps = graph.steps
    if steps < 1 or not graph.outputs:
        raise GraphError(f"a graph needs at least one step and one output; it has {steps} and {len(graph.outputs)}")
    seen: set[str] = set()
    for name, node in graph.nodes.items():
        if node.name != name:
            raise GraphError(f"node {node.name!r} is filed under {name!r}")
        for source in sources(node):
            if source not in seen:
                raise GraphError(f"node {name!r} reads {source!r}, which does not exist before it")
        seen.add(name)
        _check_node(graph, node, steps)
    for name, output in graph.outputs.items():
        if output.node not in seen:
            raise GraphError(f"output {name!r} is {output.node!r}, which does not exist")
        if output.factors.shape != (steps,) or not np.isfinite(output.factors).all():
            raise GraphError(f"output {name!r} needs {steps} finite factors")
        if output.feedback is not None:
            if output.feedback not in graph.inputs:
                raise GraphError(f"output {name!r} feeds back into {output.feedback!r}, which is not an input")
            given, wanted = features(graph.nodes[output.node]), features(graph.nodes[output.feedback])
            if given != wanted:
                raise GraphError(f"output {name!r} of {given} entries feeds back into {output.feedback!r} of {wanted}")
    for name, node in graph.inputs.items():
        if node.previous is not None:
            earlier = graph.inputs.get(node.previous)
            if earlier is None or earlier.shape != node.shape or earlier.once or node.once:
                raise GraphError(f"input {name!r} is what {node.previous!r} was, which is no input of its kind")
    for name, values in graph.calibration.items():
        width = features(graph.inputs[name]) if name in graph.inputs else 0
        if (
            not width
            or values.ndim != 2
            or values.shape[1] != width
            or not len(values)
            or not np.isfinite(values).all()
        ):
            raise GraphError(f"calibration of {name!r} must be finite (images, {width}) values of an input")


def _check_node(graph: Graph, node: Node, steps: int) -> None:
    if not node.shape or not all(type(size) is int and 0 < size < 2**31 for size in node.shape):
        raise GraphError(f"node {node.name!r} has the shape {node.shape}; sizes must be positive integers")
    width = features(node)
    if isinstance(node, Affine):
        if node.bias.shape not in ((1, width), (steps, width)) or not np.isfinite(node.bias).all():
            raise GraphError(
                f"bias of {node.name!r} must be finite and (1 or {steps}, {width}), it is {node.bias.shape}"
            )
        for term in node.terms:
            expected = (width, features(graph.nodes[term.source]))
            m = term.matrix
            if m.shape != expected:
                raise GraphError(f"matrix of {node.name!r} on {term.source!r} must be {expected}, it is {m.shape}")
            if term.factors is not None and (
                term.factors.shape != (steps,) or not np.isfinite(term.factors).all() or m.identity_factor is None
            ):
                raise GraphError(
                    f"term {term.source!r} of {node.name!r}: factors need {steps} finite numbers and an identity matrix"
                )
    elif isinstance(node, Polynomial):
        if (
            node.coefficients.ndim != 2
            or len(node.coefficients) < 1
            or node.coefficients.shape[1] != width
            or not np.isfinite(node.coefficients).all()
        ):
            raise GraphError(f"coefficients of {node.name!r} must be finite and (degree + 1, {width})")
        if graph.nodes[node.source].shape != node.shape:
            raise GraphError(
                f"polynomial {node.name!r} has the shape {node.shape}, its source {graph.nodes[node.source].shape}"
            )
    elif isinstance(node, Sum) and (
        not node.sources or any(features(graph.nodes[name]) != width for name in node.sources)
    ):
        raise GraphError(f"sum {node.name!r} of {width} entries needs at least one source, all of as many")
