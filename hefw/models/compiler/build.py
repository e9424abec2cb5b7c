"""From a list of operators to the nodes of a graph: affine regions and polynomials of the encrypted inputs.

Each operator of the exported graph is interpreted once. What depends on no encrypted input is evaluated in the clear
for every step; what depends on the label only, for every label; and what is encrypted is kept as an expression in nodes
of the graph, which becomes a node of its own where that is cheaper or where a polynomial needs it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from hefw.core.errors import CompileError
from hefw.core.graph import Affine, LinearTerm, Node, Polynomial
from hefw.core.polynomial import MAX_DEGREE, trim
from hefw.core.sparse import SparseMatrix
from hefw.models.compiler import values as v
from hefw.models.compiler.advice import ATTENTION, advice
from hefw.models.compiler.clear import evaluate
from hefw.models.compiler.labels import split
from hefw.models.compiler.matrices import Shape
from hefw.models.compiler.trace import path_of
from hefw.models.compiler.values import Expression, Power, Secret, Table, Value

Array = NDArray[np.float64]

#: Names that the scheduler's update gives to nodes.
RESERVED = ("latent", "label", "condition", "scaled", "prediction", "update")
#: Operators that may need their argument as one node: it is read entry by entry.
CURVED = ("mul", "pow", "square", "div")


class Builder:
    """The nodes made so far, and how values become nodes. `nodes` has the inputs already."""

    def __init__(self, nodes: dict[str, Node], steps: int) -> None:
        self.nodes = nodes
        self.steps = steps
        self.made: dict[tuple[str, bytes], str] = {}  # (base, coefficients) -> polynomial

    def name(self, at: str) -> str:
        """A name after a module's path that no node has."""
        wanted = name = at or "model"
        count = 1
        while name in self.nodes or name in RESERVED:
            count += 1
            name = f"{wanted}.{count}"
        return name

    def expression(self, value: Value, shape: Shape, at: str) -> Expression:
        """A value of this shape as an expression; a polynomial becomes a node."""
        if isinstance(value, Expression):
            return value
        if isinstance(value, Power):
            return v.whole(value.shape, self.polynomial(value, at))
        size = math.prod(shape)
        if isinstance(value, Table):
            return self.selected(value, shape, at)
        rows = [np.asarray(torch.as_tensor(x).expand(shape).double().reshape(-1).numpy()) for x in value.values]
        return Expression(shape, {}, np.stack(rows).reshape(-1, size))

    def selected(self, table: Table, shape: Shape, at: str) -> Expression:
        """What the encrypted one-hot label selects from a table."""
        size = math.prod(shape)
        rows = [torch.stack([entry.expand(shape) for entry in t.double()]).reshape(len(t), size) for t in table.values]
        parts = split(np.stack([row.numpy() for row in rows]))
        terms = {"label": SparseMatrix.from_dense(parts.fixed.T)} if parts.fixed.any() else {}
        scaled = []
        for factors, labels in zip(parts.factors, parts.tables, strict=True):
            name = self.name(f"{at}.label" if at else "label.1")
            term = LinearTerm("label", SparseMatrix.from_dense(labels.T))
            self.nodes[name] = Affine(name, _node_shape(shape), (term,), np.zeros((1, size)))
            scaled.append((name, factors))
        return Expression(shape, terms, parts.bias, tuple(scaled), weighty=True)

    def placed(self, value: Secret, at: str) -> str:
        """The name of the node that is this value, made where there is none."""
        if isinstance(value, Power):
            return self.polynomial(value, at)
        source = value.source
        if source is not None and self.nodes[source].shape == _node_shape(value.shape):
            return source
        name = self.name(value.module or at)
        terms = [LinearTerm(source, matrix) for source, matrix in value.terms.items() if matrix.count]
        ones = SparseMatrix.identity(math.prod(value.shape))
        terms += [LinearTerm(source, ones, factors) for source, factors in value.scaled]
        if not terms:
            raise CompileError(
                f"module {at or 'itself'!r}: a value does not depend on the sample at all, its weights are zero; "
                "remove it"
            )
        self.nodes[name] = Affine(name, _node_shape(value.shape), tuple(terms), value.bias)
        return name

    def polynomial(self, value: Power, at: str) -> str:
        """The name of the polynomial's node."""
        coefficients = trim(value.coefficients)
        key = (value.base, coefficients.tobytes())
        if key not in self.made:
            name = self.made[key] = self.name(value.module or at)
            self.nodes[name] = Polynomial(name, self.nodes[value.base].shape, value.base, coefficients)
        return self.made[key]

    def settled(self, value: Secret, at: str) -> Expression:
        """The value as one node."""
        return v.whole(value.shape, self.placed(value, at))

    def without_factors(self, value: Expression, at: str) -> Expression:
        """The value as terms alone."""
        return self.settled(value, at) if value.scaled else value

    def polynomial_of(self, value: Secret) -> Power | None:
        """The value as a polynomial of one node, entry by entry, if it is one."""
        if isinstance(value, Power):
            return value
        found = v.diagonal_of(value)
        if found is None or self.nodes[found[0]].shape != _node_shape(value.shape):
            return None
        return Power(value.shape, found[0], found[1])

    def common(self, a: Secret, b: Secret) -> tuple[Power, Power] | None:
        """Both as polynomials of one node, if they are."""
        p, q = self.polynomial_of(a), self.polynomial_of(b)
        if p is None or q is None:
            return None
        if p.base != q.base:
            p, q = self.unfolded(p, q.base), self.unfolded(q, p.base)
        return (p, q) if p.base == q.base else None

    def unfolded(self, p: Power, base: str) -> Power:
        """A polynomial's multiple as a polynomial of what that one is of, if it is `base`."""
        node = self.nodes[p.base]
        if not isinstance(node, Polynomial) or node.source != base or len(p.coefficients) > 2:
            return p
        inner = p.coefficients[1] * node.coefficients if len(p.coefficients) > 1 else 0 * node.coefficients
        return Power(p.shape, base, v.plus(inner, p.coefficients[:1]))

    def product(self, a: Secret, b: Secret, at: str) -> Secret:
        """a times b, entry by entry: a polynomial, or ((a + b) / 2)^2 - ((a - b) / 2)^2."""
        both = self.common(a, b)
        if both is None and a is b:
            node = self.settled(a, at)
            both = self.common(node, node)
        if both is not None:
            degree = len(both[0].coefficients) + len(both[1].coefficients) - 2
            if degree > MAX_DEGREE:
                raise CompileError(
                    f"a polynomial of degree {degree}; at most {MAX_DEGREE} is supported: use a lower one"
                )
            return Power(a.shape, both[0].base, v.multiply(both[0].coefficients, both[1].coefficients), at)
        left, right = self.expression(a, a.shape, at), self.expression(b, b.shape, at)
        total = Expression(a.shape, {}, np.zeros((1, math.prod(a.shape))))
        for sign in (1.0, -1.0):
            half = scaled(self.without_factors(v.add(left, right, sign), at), np.array([0.5]))
            base = self.placed(half, at)
            square = np.zeros((3, math.prod(a.shape)))
            square[2] = 1
            total = v.add(total, self.expression(Power(a.shape, base, square), a.shape, at), sign)
        return total


def scaled(value: Expression, factors: Array) -> Expression:
    """The value times a number, or a number an entry (entries,)."""
    size = math.prod(value.shape)
    diagonal = SparseMatrix.diagonal(np.broadcast_to(factors, size))
    return v.apply(diagonal, value, value.shape, weighty=False)


def _node_shape(shape: Shape) -> Shape:
    """Of one image; a number is one entry. Operators such as bmm fold the batch of one into another axis."""
    return tuple(int(size) for size in (shape[1:] if shape[:1] == (1,) else shape)) or (1,)


def interpret(
    graph: fx.Graph, given: Mapping[str, Value], builder: Builder, rules: Mapping[str, Any], wanted: Shape
) -> Expression:
    """Run all operators; returns the prediction. `given` has the values of the placeholders."""
    values: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = given[node.name]
        elif node.op == "output":
            result = node.args[0][0]
            value = values[result]
            shape = tuple(int(size) for size in result.meta["val"].shape)
            if shape != (1, *wanted):
                raise CompileError(
                    f"the module returns {shape[1:] if shape else 'a number'} for a sample of {wanted}; a prediction "
                    "must "
                    "have the sample's shape (a model that predicts a variance, too, is not supported)"
                )
            if not isinstance(value, (Expression, Power)):
                raise CompileError("the module's result does not depend on the sample: there is nothing to encrypt")
            return builder.without_factors(builder.expression(value, shape, "out"), "out")
        else:
            values[node] = _value(node, values, builder, rules)
    raise AssertionError("a graph has an output")


def _value(node: fx.Node, values: dict[fx.Node, Any], builder: Builder, rules: Mapping[str, Any]) -> Any:
    secret = any(isinstance(values[n], (Expression, Power, tuple)) for n in node.all_input_nodes)
    operator, at = operator_name(node), path_of(node)
    where = f"module {at!r}" if at else "the model's own forward"
    random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    if random and operator not in ATTENTION:
        raise CompileError(
            f"{where}: operator {operator!r} draws random numbers; a prediction may not depend on chance"
        )
    if not secret:
        try:
            return evaluate(node, values.__getitem__, builder.steps)
        except RuntimeError as error:
            text = " ".join(str(error).split())[:200]
            raise CompileError(
                f"{where}: operator {operator!r} cannot be evaluated ({text}): networks are compiled in float64; "
                "where it "
                "mixes float32 and float64, write t.to(x.dtype) instead of t.float()"
            ) from error
    for result in node.meta["val"] if isinstance(node.meta["val"], (tuple, list)) else [node.meta["val"]]:
        if isinstance(result, torch.Tensor) and result.is_complex():
            raise CompileError(
                f"{where}: operator {operator!r} makes complex numbers; slots hold real numbers: write it with real "
                "ones"
            )
    rule = rules.get(operator)
    if rule is None:
        raise CompileError(f"{where}: operator {operator!r} {advice(operator)}")
    try:
        value = rule(builder, node, values, at)
    except CompileError as error:
        message = str(error)
        raise CompileError(message if message.startswith(("module ", "the model")) else f"{where}: {message}") from None
    if isinstance(value, Expression) and _worth_a_node(node, value):
        value = builder.settled(value, at)
    return value


def _worth_a_node(node: fx.Node, value: Expression) -> bool:
    """Read more than once, at a cost, or entry by entry."""
    if len(node.users) < 2 or value.source is not None:
        return False
    curved = any(operator_name(user) in CURVED for user in node.users)
    return not value.selects or (curved and v.diagonal_of(value) is None)


def operator_name(node: fx.Node) -> str:
    """Without namespace and overload where it is one of torch's own."""
    name = getattr(node.target, "name", None)
    if not callable(name):
        return getattr(node.target, "__name__", str(node.target))
    return str(name()).removeprefix("aten::").partition(".")[0]
