"""Passes that bring a graph to what a program consists of: affine regions and squares, and nothing else.

Every pass keeps the function that the graph computes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hefw.core.errors import GraphError
from hefw.core.graph import Affine, Graph, LinearTerm, Node, Polynomial, Sum, features, sources
from hefw.core.polynomial import MAX_DEGREE, complete_square, square_root, trim, without_small_lead
from hefw.core.sparse import SparseMatrix

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Expression:
    """A value that is not computed itself: sum_k factors_k * node_k + constant, entry by entry (features,)."""

    terms: tuple[tuple[str, Array], ...]
    constant: Array


def normalise(graph: Graph) -> Graph:
    """All passes in order. The result has Input, Affine and exact squares only."""
    return drop_unused(merge_affines(drop_unused(squares_only(fold_sums(drop_zeros(graph))))))


def drop_zeros(graph: Graph) -> Graph:
    """Terms that are zero at every step are removed: what they read need not be laid out as the sum is."""
    nodes: dict[str, Node] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, Affine):
            kept = tuple(term for term in node.terms if term.factors is None or term.factors.any())
            node = replace(node, terms=kept) if kept else node
        nodes[name] = node
    return replace(graph, nodes=nodes)


def fold_sums(graph: Graph) -> Graph:
    """Sums become affine regions of identity terms."""
    nodes: dict[str, Node] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, Sum):
            identity = SparseMatrix.diagonal(np.ones(features(node)))
            terms = tuple(LinearTerm(source, identity) for source in node.sources)
            nodes[name] = Affine(name, node.shape, terms, np.zeros((1, features(node))))
        else:
            nodes[name] = node
    return replace(graph, nodes=nodes)


def squares_only(graph: Graph) -> Graph:
    """Every polynomial becomes squares; the rest of it folds into the affine regions around it.

    A quadratic's square is completed: its shift joins the bias of the region before it, its factor the matrices after.
    """
    return _Squares(graph).run()


class _Squares:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: dict[str, Node] = {}
        self.expressions: dict[str, Expression] = {}  # values that are replaced by others
        self.squares: dict[str, str] = {}  # node -> its square
        self.placed: dict[str, str] = {}  # value -> the node that computes it

    def run(self) -> Graph:
        for name, node in self.graph.nodes.items():
            if isinstance(node, Affine):
                self.add_affine(node)
            elif isinstance(node, Polynomial):
                self.add_polynomial(node)
            else:
                self.nodes[name] = node
        outputs = {
            key: replace(output, node=self.materialise(output.node)) for key, output in self.graph.outputs.items()
        }
        return replace(self.graph, nodes=self.nodes, outputs=outputs)

    def add_affine(self, node: Affine) -> None:
        terms: list[LinearTerm] = []
        bias = node.bias
        for term in node.terms:
            expression = self.expressions.get(term.source)
            if expression is None:
                terms.append(term)
                continue
            if term.factors is not None:  # factors need the value itself
                terms.append(replace(term, source=self.materialise(term.source)))
                continue
            bias = bias + term.matrix @ expression.constant
            terms += [LinearTerm(source, term.matrix.scale_columns(f)) for source, f in expression.terms if f.any()]
        self.nodes[node.name] = Affine(node.name, node.shape, _join(terms), bias)

    def add_polynomial(self, node: Polynomial) -> None:
        coefficients = trim(node.coefficients)
        degree = len(coefficients) - 1
        if degree > MAX_DEGREE:
            raise GraphError(
                f"polynomial {node.name!r} has degree {degree}; at most {MAX_DEGREE} is supported: fit a lower one"
            )
        source = self.materialise(node.source)
        if node.is_square:
            self.nodes[node.name] = replace(node, source=source)
        elif degree == 2 and coefficients[2].all() and self.can_shift(node.source):
            scale, shift, constant = complete_square(coefficients)
            region = self.nodes[source]
            assert isinstance(region, Affine)
            self.nodes[source] = replace(region, bias=region.bias + shift)
            # Whoever reads the region from here on gets the value without the shift.
            self.expressions[source] = Expression(((source, np.ones_like(shift)),), -shift)
            square = self.square(source)
            self.expressions[node.name] = Expression(((square, scale),), constant)
        else:
            self.expressions[node.name] = self.expand(source, coefficients)

    def can_shift(self, source: str) -> bool:
        """A region's bias may take the shift of one polynomial, if nothing has read the region before."""
        read = {name for node in self.nodes.values() for name in sources(node)}
        read |= {name for expression in self.expressions.values() for name, _ in expression.terms}
        return isinstance(self.nodes.get(source), Affine) and source not in read

    def fresh(self, name: str) -> str:
        """A name that neither a node of the graph has nor one made before."""
        while name in self.graph.nodes or name in self.nodes:
            name += "'"
        return name

    def expand(self, source: str, coefficients: Array) -> Expression:
        """A polynomial of `source` by squares and linear combinations, without a shift of the source."""
        coefficients = trim(coefficients)
        degree = len(coefficients) - 1
        ones = np.ones(coefficients.shape[1])
        if degree <= 1:
            slope = coefficients[1] if degree else 0 * ones
            return Expression(((source, slope),), coefficients[0])
        if degree == 2:
            square = self.square(source)
            return Expression(((square, coefficients[2]), (source, coefficients[1])), coefficients[0])
        powers = without_small_lead(coefficients)
        if powers is not None:
            return _add(self.expand(source, powers[0]), self.expand(source, powers[1]))
        lead, q, rest = square_root(coefficients)
        inner = self.expand(source, q)
        square = self.square(self.root(inner, source))
        return _add(Expression(((square, lead),), 0 * ones), self.expand(source, rest))

    def root(self, expression: Expression, source: str) -> str:
        """A node that is an expression of `source`: one that exists already, where it is that one."""
        if len(expression.terms) == 1 and not expression.constant.any():
            ((name, factor),) = expression.terms
            if (factor == 1).all():
                return name
        return self.place(expression, self.fresh(f"{source}.root"), self.nodes[source].shape)

    def square(self, source: str) -> str:
        """The name of the square of a node, made once."""
        if source not in self.squares:
            name = self.squares[source] = self.fresh(f"{source}.square")
            shape = self.nodes[source].shape
            coefficients = np.zeros((3, int(np.prod(shape))))
            coefficients[2] = 1
            self.nodes[name] = Polynomial(name, shape, source, coefficients)
        return self.squares[source]

    def materialise(self, name: str) -> str:
        """The name of a node that holds a value, computed if it only existed as an expression."""
        if name not in self.expressions:
            return name
        if name not in self.placed:
            made = self.fresh(f"{name}.value")
            self.placed[name] = self.place(self.expressions[name], made, self.graph.nodes[name].shape)
        return self.placed[name]

    def place(self, expression: Expression, name: str, shape: tuple[int, ...]) -> str:
        terms = [LinearTerm(source, SparseMatrix.diagonal(f)) for source, f in expression.terms if f.any()]
        self.nodes[name] = Affine(name, shape, _join(terms), expression.constant[None, :])
        return name


def centre_squares(graph: Graph) -> Graph:
    """Each square gives up its mean over the calibration, which joins the biases of the regions that read it.

    Weights are rounded when they are encoded, and that error is multiplied by the value: the smaller, the more precise.
    """
    history = graph.trajectory(graph.calibration)
    readers = graph.consumers()
    kept = {output.node for output in graph.outputs.values()}
    means: dict[str, Array] = {}
    nodes = dict(graph.nodes)
    for name, node in graph.nodes.items():
        regions = all(isinstance(graph.nodes[reader], Affine) for reader in readers[name])
        if isinstance(node, Polynomial) and node.is_square and regions and name not in kept:
            means[name] = np.mean([values[name] for values in history], axis=(0, 1))
            coefficients = node.coefficients.copy()
            coefficients[0] -= means[name]
            nodes[name] = replace(node, coefficients=coefficients)
    for name, node in graph.nodes.items():
        if isinstance(node, Affine):
            bias = node.bias
            for term in node.terms:
                if term.source in means and term.factors is None:
                    bias = bias + term.matrix @ means[term.source]
                elif term.source in means and term.factors is not None:
                    bias = bias + term.factors[:, None] * (term.matrix @ means[term.source])
            nodes[name] = replace(node, bias=bias)
    return replace(graph, nodes=nodes)


def merge_affines(graph: Graph) -> Graph:
    """An affine region that only affine regions read is multiplied into them: one matrix, and a level saved."""
    nodes = dict(graph.nodes)
    kept = {output.node for output in graph.outputs.values()}
    for name in list(nodes):
        node = nodes[name]
        readers = [reader for reader in nodes.values() if name in sources(reader)]
        if not isinstance(node, Affine) or name in kept or not readers:
            continue
        if not all(isinstance(reader, Affine) for reader in readers) or any(t.factors is not None for t in node.terms):
            continue
        if any(t.source == name and t.factors is not None for r in readers if isinstance(r, Affine) for t in r.terms):
            continue
        for reader in readers:
            if isinstance(reader, Affine):
                nodes[reader.name] = _inline(reader, node)
        del nodes[name]
    return replace(graph, nodes=nodes)


def drop_unused(graph: Graph) -> Graph:
    """Nodes that no output depends on are removed; inputs stay."""
    needed: set[str] = set()
    pending = [output.node for output in graph.outputs.values()]
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending += sources(graph.nodes[name])
    return replace(graph, nodes={n: node for n, node in graph.nodes.items() if n in needed or n in graph.inputs})


def _inline(reader: Affine, region: Affine) -> Affine:
    terms: list[LinearTerm] = []
    bias = reader.bias
    for term in reader.terms:
        if term.source != region.name:
            terms.append(term)
            continue
        bias = bias + (term.matrix @ region.bias.T).T
        terms += [LinearTerm(inner.source, term.matrix.compose(inner.matrix)) for inner in region.terms]
    return replace(reader, terms=_join(terms), bias=bias)


def _join(terms: Iterable[LinearTerm]) -> tuple[LinearTerm, ...]:
    """Terms of one source without factors become one matrix."""
    joined: dict[tuple[str, int], LinearTerm] = {}
    for k, term in enumerate(terms):
        key = (term.source, k if term.factors is not None else -1)
        if key in joined:
            joined[key] = replace(term, matrix=joined[key].matrix.plus(term.matrix))
        else:
            joined[key] = term
    return tuple(joined.values())


def _add(a: Expression, b: Expression) -> Expression:
    return Expression(a.terms + b.terms, a.constant + b.constant)
