"""Several denoising steps as one: what a server can do from one message without giving levels back on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hefw.core.errors import LoweringError
from hefw.core.graph import Affine, Graph, Input, LinearTerm, Node, Polynomial, Sum, features
from hefw.core.sparse import SparseMatrix

Array = NDArray[np.float64]


def unroll(graph: Graph, every: int) -> Graph:
    """A graph whose steps are `every` steps of `graph` each, inner results fed back by its own public factors.

    The copies' nodes are called NAME@1, NAME@2, ... LoweringError if `every` does not divide the steps.
    """
    check_every(graph, every)
    return graph if every == 1 else _Unroller(graph, every).run()


def check_every(graph: Graph, every: int) -> None:
    """LoweringError if a graph cannot be unrolled so."""
    if every < 1 or graph.steps % every:
        divisors = [str(k) for k in range(1, graph.steps + 1) if graph.steps % k == 0]
        raise LoweringError(f"every {every} does not divide {graph.steps} steps; choose one of {', '.join(divisors)}")
    if every > 1 and any(node.previous is not None for node in graph.inputs.values()):
        raise LoweringError(
            "a scheduler that goes back several steps needs a message a step; use refresh: client without every, or a "
            "one-step scheduler such as ddim"
        )


def boundaries(graph: Graph, every: int) -> frozenset[str]:
    """Names of the nodes of `unroll(graph, every)` that are results of its inner steps."""
    fed = [output.node for output in graph.outputs.values() if output.feedback is not None]
    return frozenset(_named(node, copy) for node in fed for copy in range(every - 1))


class _Unroller:
    def __init__(self, graph: Graph, every: int) -> None:
        self.graph = graph
        self.every = every
        self.nodes: dict[str, Node] = dict(graph.inputs)

    def run(self) -> Graph:
        graph, every = self.graph, self.every
        #: Inputs of the copy being made that are results of the one before: (node, factors of each message).
        fed: dict[str, tuple[str, Array]] = {}
        for copy in range(every):
            for node in graph.nodes.values():
                if not isinstance(node, Input):
                    self.add(node, copy, fed)
            results = {key: self.value(output.node, copy, fed) for key, output in graph.outputs.items()}
            fed = {
                output.feedback: (results[key], output.factors[copy::every])
                for key, output in graph.outputs.items()
                if output.feedback is not None
            }
        outputs = {
            key: replace(output, node=results[key], factors=output.factors[every - 1 :: every])
            for key, output in graph.outputs.items()
        }
        return replace(graph, nodes=self.nodes, outputs=outputs, timesteps=graph.timesteps[::every])

    def add(self, node: Node, copy: int, fed: Mapping[str, tuple[str, Array]]) -> None:
        """One node of one copy."""
        name = _named(node.name, copy)
        if isinstance(node, Affine):
            terms = tuple(self.term(term, copy, fed) for term in node.terms)
            self.nodes[name] = Affine(name, node.shape, terms, self.rows(node.bias, copy))
        elif isinstance(node, Polynomial):
            self.nodes[name] = replace(node, name=name, source=self.value(node.source, copy, fed))
        elif isinstance(node, Sum):
            self.nodes[name] = replace(node, name=name, sources=tuple(self.value(s, copy, fed) for s in node.sources))

    def term(self, term: LinearTerm, copy: int, fed: Mapping[str, tuple[str, Array]]) -> LinearTerm:
        """One term: factors of the feedback join the matrix where there is one message, else the term's factors."""
        factors = None if term.factors is None else term.factors[copy :: self.every]
        if term.source not in fed:
            return LinearTerm(self.value(term.source, copy, fed), term.matrix, factors)
        source, back = fed[term.source]
        if factors is not None:
            return LinearTerm(source, term.matrix, factors * back)
        if len(back) == 1:
            return LinearTerm(source, term.matrix.scale_columns(np.full(term.matrix.shape[1], back[0])))
        return LinearTerm(self.value(term.source, copy, fed), term.matrix)

    def value(self, source: str, copy: int, fed: Mapping[str, tuple[str, Array]]) -> str:
        """The node that holds a value in a copy; a result that is fed back is computed once for all its readers."""
        if source in fed:
            name = _named(source, copy)
            if name not in self.nodes:
                node, factors = fed[source]
                width = features(self.graph.nodes[source])
                identity = SparseMatrix.diagonal(np.ones(width))
                if len(factors) == 1:
                    term = LinearTerm(node, SparseMatrix.diagonal(np.full(width, factors[0])))
                else:
                    term = LinearTerm(node, identity, factors)
                self.nodes[name] = Affine(name, self.graph.nodes[source].shape, (term,), np.zeros((1, width)))
            return name
        return source if source in self.graph.inputs else _named(source, copy)

    def rows(self, bias: Array, copy: int) -> Array:
        """The rows of a bias that belong to a copy."""
        return bias if len(bias) == 1 else bias[copy :: self.every]


def _named(name: str, copy: int) -> str:
    return f"{name}@{copy + 1}"
