"""A graph as one file: safetensors, with the structure as JSON in its header; the file was written by anybody."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from hefw.core.errors import GraphError
from hefw.core.graph import Affine, Graph, Input, LinearTerm, Node, Output, Polynomial, Sum, features
from hefw.core.storage import Budget, narrow, pack_columns, pack_matrix, unpack_columns, unpack_matrix

FORMAT_VERSION = 2
Array = NDArray[np.float64]
Tensors = dict[str, NDArray[Any]]


def digest(graph: Graph) -> str:
    """32 hexadecimal digits that identify structure, weights and schedule (not metadata)."""
    nodes: list[Any] = []
    for node in graph.nodes.values():
        item = _described(node)
        if isinstance(node, Affine):
            terms = [(t.source, t.matrix.fingerprint.hex(), _hashed(t.factors)) for t in node.terms]
            item |= {"terms": terms, "bias": _hashed(node.bias)}
        elif isinstance(node, Polynomial):
            item["coefficients"] = _hashed(node.coefficients)
        nodes.append(item)
    outputs = {name: (o.node, o.feedback, _hashed(o.factors)) for name, o in graph.outputs.items()}
    calibration = {name: _hashed(values) for name, values in graph.calibration.items()}
    whole = [nodes, outputs, [float(t) for t in graph.timesteps], calibration]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


def to_bytes(graph: Graph) -> bytes:
    """The file's content."""
    tensors: Tensors = {}

    def store(key: str, array: NDArray[Any]) -> str:
        kept = narrow(array) if array.dtype == np.float64 else array  # float32 only where nothing is lost
        tensors[key] = np.ascontiguousarray(kept)  # safetensors writes others in the wrong order
        return key

    def store_columns(key: str, values: Array) -> dict[str, str]:
        columns, which = pack_columns(values)
        return {"columns": store(key, columns), "which": store(f"{key}.which", which)}

    nodes = []
    for name, node in graph.nodes.items():
        item = _described(node)
        if isinstance(node, Affine):
            item["bias"] = store_columns(f"{name}.bias", node.bias)
            item["terms"] = []
            for k, term in enumerate(node.terms):
                stem = f"{name}.{k}"
                weights, rows = pack_matrix(term.matrix)
                factors = None if term.factors is None else store(f"{stem}.factors", term.factors)
                stored = {"weights": store(f"{stem}.weights", weights), "rows": store(f"{stem}.rows", rows)}
                item["terms"].append({"source": term.source, "factors": factors, **stored})
        elif isinstance(node, Polynomial):
            item["coefficients"] = store_columns(f"{name}.coefficients", node.coefficients)
        nodes.append(item)
    structure = {
        "format": FORMAT_VERSION,
        "nodes": nodes,
        "outputs": {
            name: {"node": o.node, "feedback": o.feedback, "factors": store(f"output.{name}", o.factors)}
            for name, o in graph.outputs.items()
        },
        "timesteps": [float(t) for t in graph.timesteps],
        "calibration": {name: store(f"calibration.{name}", a) for name, a in graph.calibration.items()},
        "metadata": dict(graph.metadata),
    }
    content: bytes = safetensors.numpy.save(tensors, metadata={"hefw": json.dumps(structure)})
    return content


def read(path: Path) -> Graph:
    """Read a graph file; GraphError if it is missing, not one, or inconsistent."""
    try:
        with safetensors.safe_open(str(path), framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, safetensors.SafetensorError) as error:
        raise GraphError(f"{path} is not a readable graph file: {error}") from None
    if "hefw" not in metadata:
        raise GraphError(f"{path} is a safetensors file, but not a hefw graph; make one with Graph.save")
    try:
        return _restored(json.loads(metadata["hefw"]), tensors)
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise GraphError(f"{path} is not a valid graph: {error!r}") from None


def _restored(structure: dict[str, Any], tensors: Tensors) -> Graph:
    if structure["format"] != FORMAT_VERSION:
        raise GraphError(
            f"graph format {structure['format']} is not supported; this hefw reads format {FORMAT_VERSION}: compile "
            "the model again with it"
        )
    reader = _Reader(tensors)
    nodes: dict[str, Node] = {}
    for item in structure["nodes"]:
        node = reader.node(item, nodes)
        nodes[node.name] = node
    return Graph(
        nodes,
        {n: Output(o["node"], reader.real(o["factors"]), o["feedback"]) for n, o in structure["outputs"].items()},
        tuple(float(t) for t in structure["timesteps"]),
        {name: reader.real(key) for name, key in structure["calibration"].items()},
        dict(structure["metadata"]),
    )


class _Reader:
    """Nodes from their descriptions, in the order of the file."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        self.budget = Budget()

    def node(self, item: dict[str, Any], before: dict[str, Node]) -> Node:
        """One node, which reads those before it."""
        name, shape, kind = item["name"], tuple(item["shape"]), item["kind"]
        if kind == "Input":
            return Input(name, shape, item["once"], item["previous"])
        if kind == "Affine":
            width = features(Input(name, shape))
            terms = tuple(self.term(name, width, term, before) for term in item["terms"])
            return Affine(name, shape, terms, self.columns(item["bias"], width))
        if kind == "Polynomial":
            width = features(Input(name, shape))
            return Polynomial(name, shape, item["source"], self.columns(item["coefficients"], width))
        if kind == "Sum":
            return Sum(name, shape, tuple(item["sources"]))
        raise GraphError(f"node {name!r} is of unknown kind {kind!r}")

    def term(self, name: str, width: int, item: dict[str, Any], before: dict[str, Node]) -> LinearTerm:
        """A term of a region of so many entries."""
        source = item["source"]
        if source not in before:
            raise GraphError(f"node {name!r} reads {source!r}, which does not exist before it")
        shape = (width, features(before[source]))
        try:
            matrix = unpack_matrix(shape, self.real(item["weights"]), self.tensors[item["rows"]], self.budget)
        except GraphError as error:
            raise GraphError(f"matrix of {name!r} on {source!r}: {error}") from None
        return LinearTerm(source, matrix, None if item["factors"] is None else self.real(item["factors"]))

    def columns(self, item: dict[str, Any], width: int) -> Array:
        """An array of so many columns."""
        return unpack_columns(self.real(item["columns"]), self.tensors[item["which"]], width, self.budget)

    def real(self, key: str) -> Array:
        """A tensor of numbers."""
        return self.tensors[key].astype(np.float64)


def _described(node: Node) -> dict[str, Any]:
    """A node without its arrays."""
    item: dict[str, Any] = {"kind": type(node).__name__, "name": node.name, "shape": list(node.shape)}
    if isinstance(node, Input):
        return item | {"once": node.once, "previous": node.previous}
    if isinstance(node, Polynomial):
        return item | {"source": node.source}
    return item | ({"sources": list(node.sources)} if isinstance(node, Sum) else {})


def _hashed(array: Array | None) -> str | None:
    if array is None:
        return None
    return hashlib.sha256(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes()).hexdigest()
