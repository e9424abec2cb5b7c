"""What each operator does to encrypted values: one rule an operator, found by its name in ATen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.fx.node import map_arg

from hefw.core.errors import CompileError
from hefw.core.polynomial import MAX_DEGREE
from hefw.core.sparse import SparseMatrix
from hefw.models.compiler import matrices
from hefw.models.compiler import values as v
from hefw.models.compiler.build import Builder, operator_name, scaled
from hefw.models.compiler.matrices import Shape
from hefw.models.compiler.products import matrix_product
from hefw.models.compiler.values import Clear, Expression, Power, Table, Value

Values = Mapping[fx.Node, Any]
Rule = Callable[[Builder, fx.Node, Values, str], Any]

COPIES = ["clone", "alias", "detach", "lift_fresh_copy", "contiguous"]
SELECTIONS = [
    "view",
    "_unsafe_view",
    "reshape",
    "permute",
    "transpose",
    "t",
    "expand",
    "slice",
    "select",
    "squeeze",
    "unsqueeze",
    "pixel_shuffle",
    "pixel_unshuffle",
    "upsample_nearest2d",
    "_upsample_nearest_exact2d",
    "constant_pad_nd",
    "reflection_pad1d",
    "reflection_pad2d",
    "replication_pad2d",
    "flip",
    "roll",
    "repeat",
    "index",
    "index_select",
    "split",
    "split_with_sizes",
    "chunk",
    "unbind",
    "im2col",
    "channel_shuffle",
    "native_channel_shuffle",
    "diagonal",
    "unfold",
]
JOINS = ["cat", "stack"]
#: Operators linear in their one encrypted tensor, and the places of the arguments that are only added.
LINEAR = {
    "linear": (2,),
    "mm": (),
    "bmm": (),
    "mv": (),
    "dot": (),
    "addmm": (0,),
    "baddbmm": (0,),
    "convolution": (2,),
    "avg_pool1d": (),
    "avg_pool2d": (),
    "avg_pool3d": (),
    "adaptive_avg_pool2d": (),
    "_adaptive_avg_pool2d": (),
    "upsample_bilinear2d": (),
    "upsample_bicubic2d": (),
    "mean": (),
    "sum": (),
    "cumsum": (),
    "col2im": (),
}
CONSTANTS = ["zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "empty_like"]


def shape_of(node: fx.Node) -> Shape:
    """The shape of a node's tensor, its batch of one included."""
    return tuple(int(size) for size in node.meta["val"].shape)


def operand(argument: Any, values: Values) -> tuple[Value, Shape]:
    """An argument that is a tensor or a number."""
    if isinstance(argument, fx.Node):
        return values[argument], shape_of(argument)
    return Clear((torch.tensor(argument, dtype=torch.float64),)), ()


def called(node: fx.Node, values: Values, step: int, data: Mapping[fx.Node, torch.Tensor]) -> Any:
    """The operator's result at a step with these tensors for its encrypted arguments."""

    def lookup(n: fx.Node) -> Any:
        return data[n] if n in data else values[n].at(step)

    assert callable(node.target)
    return node.target(*map_arg(node.args, lookup), **map_arg(node.kwargs, lookup))


def encrypted(node: fx.Node, values: Values) -> list[fx.Node]:
    """The arguments that are not in the clear."""
    return [n for n in node.all_input_nodes if not isinstance(values[n], Clear)]


def changing(node: fx.Node, values: Values) -> list[fx.Node]:
    """The arguments that are in the clear, and another at every step."""
    return [n for n in node.all_input_nodes if isinstance(values[n], Clear) and not values[n].fixed]


def constants(node: fx.Node, values: Values, steps: int, part: int | None) -> np.ndarray[Any, Any]:
    """The operator's values where everything encrypted is zero: (1 or steps, entries)."""
    zeros = {n: torch.zeros(shape_of(n), dtype=torch.float64) for n in encrypted(node, values)}
    rows = []
    for step in range(steps if changing(node, values) else 1):
        result = called(node, values, step, zeros)
        rows.append((result if part is None else result[part]).reshape(-1).double().numpy())
    return np.stack(rows)


def copy(builder: Builder, node: fx.Node, values: Values, at: str) -> Value:
    """The same value."""
    found: Value = values[node.all_input_nodes[0]]
    return found


def to_copy(builder: Builder, node: fx.Node, values: Values, at: str) -> Value:
    """Another precision: everything is computed in float64 here, and by CKKS there."""
    if not node.meta["val"].is_floating_point():
        raise CompileError(
            f"operator '_to_copy' makes {node.meta['val'].dtype} of encrypted values, which rounds them; leave them "
            "real"
        )
    return copy(builder, node, values, at)


def select(builder: Builder, node: fx.Node, values: Values, at: str) -> Value | tuple[Value, ...]:
    """Entries are moved, repeated, dropped, or joined with constants."""
    operator, data = operator_name(node), encrypted(node, values)
    if operator not in JOINS and (changing(node, values) or len(data) > 1):
        raise CompileError(f"operator {operator!r} moves entries to places that depend on the timestep or on a secret")
    results = node.meta["val"]
    if not isinstance(results, (tuple, list)):
        return _selected(builder, node, values, data, None, shape_of(node), at)
    return tuple(
        _selected(builder, node, values, data, part, tuple(int(size) for size in result.shape), at)
        for part, result in enumerate(results)
    )


def _selected(
    builder: Builder, node: fx.Node, values: Values, data: list[fx.Node], part: int | None, shape: Shape, at: str
) -> Value:
    shapes = [shape_of(n) for n in data]

    def operator(tensors: Any) -> torch.Tensor:
        result = called(node, values, 0, dict(zip(data, tensors, strict=True)))
        return result if part is None else result[part]

    blocks = matrices.selection(operator, shapes)
    total = Expression(shape, {}, constants(node, values, builder.steps, part))
    for n, inner, block in zip(data, shapes, blocks, strict=True):
        value = builder.without_factors(builder.expression(values[n], inner, at), at)
        total = v.add(total, v.apply(block, value, shape, weighty=False))
    return total


def part_of(builder: Builder, node: fx.Node, values: Values, at: str) -> Value:
    """One of several results."""
    found: Value = values[node.args[0]][node.args[1]]
    return found


def linear(builder: Builder, node: fx.Node, values: Values, at: str) -> Value:
    """A matrix times the one encrypted argument, plus what is added in the clear."""
    operator, data = operator_name(node), encrypted(node, values)
    factors = [n for n in node.args[:2] if isinstance(n, fx.Node) and not isinstance(values[n], Clear)]
    if operator == "bmm" and len(factors) == 2:
        a, b = factors
        return matrix_product(builder, values[a], values[b], (shape_of(a), shape_of(b)), at)
    if len(data) > 1:
        raise CompileError(
            f"operator {operator!r} multiplies two encrypted tensors; only a * b and matrix products of two are "
            "supported: write it with a @ b"
        )
    added = [node.args[k] for k in LINEAR[operator] if k < len(node.args)]
    for n in changing(node, values):
        if n not in added:
            raise CompileError(
                f"operator {operator!r} has weights that change with the timestep, so that all would be encoded again "
                "at "
                "every step: let the timestep be added (a bias) instead"
            )
    if any(n in added for n in data):
        raise CompileError(f"operator {operator!r} adds an encrypted value to a constant product; use + instead")
    (n,) = data
    value = builder.expression(values[n], shape_of(n), at)
    if value.weighty or value.scaled:  # two linear maps in a row stay two nodes; the planner merges what is cheaper so
        value = builder.settled(value, at)
    matrix = _convolution(node, values) if operator == "convolution" else None
    if matrix is None:
        matrix = matrices.probed(lambda tensors: called(node, values, 0, {n: tensors[0]}), shape_of(n))
    bias = constants(node, values, builder.steps, None)
    return v.shifted(v.apply(matrix, value, shape_of(node), weighty=True, at=at), bias)


def batch_norm(builder: Builder, node: fx.Node, values: Values, at: str) -> tuple[Value, ...]:
    """A fixed scale and shift per channel; the first of three results."""
    data = encrypted(node, values)
    if data != node.all_input_nodes[:1] or changing(node, values):
        raise CompileError("a norm has statistics that are encrypted or change with the timestep; make them fixed")
    shape = shape_of(data[0])
    ones = {data[0]: torch.ones(shape, dtype=torch.float64)}
    bias = constants(node, values, builder.steps, 0)
    scale = called(node, values, 0, ones)[0].reshape(-1).double().numpy() - bias[0]
    value = scaled(builder.without_factors(builder.expression(values[data[0]], shape, at), at), scale)
    return (v.shifted(value, bias),)


def _convolution(node: fx.Node, values: Values) -> SparseMatrix | None:
    """The matrix of a convolution in two dimensions of a picture by a known kernel; None for others."""
    image, kernel, _, stride, padding, dilation, transposed, _, groups = node.args
    if not isinstance(image, fx.Node) or not isinstance(kernel, fx.Node):
        return None
    if len(shape_of(image)) != 4 or not isinstance(values[kernel], Clear):
        return None
    weight: Any = values[kernel].at(0)
    make = matrices.transposed_convolution if transposed else matrices.convolution
    shape = shape_of(node)[1:] if transposed else shape_of(image)[1:]
    return make(weight, shape, stride, padding, dilation, groups)


def _broadcast(builder: Builder, value: Value, shape: Shape, wanted: Shape, at: str) -> Value:
    """An encrypted value under a larger shape; tables and what is in the clear are left alone."""
    if isinstance(value, (Clear, Table)) or shape == wanted:
        return value
    (matrix,) = matrices.selection(lambda tensors: tensors[0].expand(wanted), [shape])
    inner = builder.without_factors(builder.expression(value, shape, at), at)
    return v.apply(matrix, inner, wanted, weighty=False)


def _sum(builder: Builder, a: Value, b: Value, factor: float, shape: Shape, at: str) -> Value:
    """a + factor * b of one shape."""
    if isinstance(a, Power) or isinstance(b, Power):
        both = None
        if isinstance(a, (Power, Expression)) and isinstance(b, (Power, Expression)):
            both = builder.common(a, b)
        elif isinstance(a, Power) and isinstance(b, Clear) and b.fixed:
            both = a, Power(shape, a.base, builder.expression(b, shape, at).bias)
        elif isinstance(b, Power) and isinstance(a, Clear) and a.fixed:
            both = Power(shape, b.base, builder.expression(a, shape, at).bias), b
        if both is not None:
            return Power(shape, both[0].base, v.plus(both[0].coefficients, factor * both[1].coefficients), at)
    return v.add(builder.expression(a, shape, at), builder.expression(b, shape, at), factor)


def _added(sign: float, *, swapped: bool = False) -> Rule:
    """add, sub and rsub."""

    def rule(builder: Builder, node: fx.Node, values: Values, at: str) -> Value:
        first, second = node.args[:2]
        alpha: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("alpha", 1)
        (a, a_shape), (b, b_shape) = (operand(x, values) for x in ((second, first) if swapped else (first, second)))
        if swapped and alpha != 1:
            raise CompileError(f"operator {operator_name(node)!r} with alpha={alpha} is not supported; multiply first")
        shape = shape_of(node)
        a, b = _broadcast(builder, a, a_shape, shape, at), _broadcast(builder, b, b_shape, shape, at)
        return _sum(builder, a, b, sign * float(alpha), shape, at)

    return rule


def negate(builder: Builder, node: fx.Node, values: Values, at: str) -> Value:
    """-x."""
    minus = Clear((torch.tensor(-1.0, dtype=torch.float64),))
    return _times(builder, values[node.all_input_nodes[0]], minus, shape_of(node), at)


def _times(builder: Builder, a: Value, b: Value, shape: Shape, at: str) -> Value:
    """a * b of one shape; one of them at least is encrypted."""
    if isinstance(a, Clear):
        a, b = b, a
    if not isinstance(b, Clear):
        left = a if isinstance(a, Power) else builder.expression(a, shape, at)
        right = left if a is b else b if isinstance(b, Power) else builder.expression(b, shape, at)
        return builder.product(left, right, at)
    factors = builder.expression(b, shape, at).bias
    if not np.isfinite(factors).all():
        raise CompileError(
            "a factor is not finite at some step: a division by zero, or a logarithm of timestep 0; leave that step out"
        )
    if len(factors) > 1 and (factors == factors[0]).all():
        factors = factors[:1]
    if len(factors) == 1:
        if isinstance(a, Power):
            return Power(shape, a.base, a.coefficients * factors[0], a.module)
        return scaled(builder.without_factors(builder.expression(a, shape, at), at), factors[0])
    # a number a step, times what is the same at every step
    peak = int(np.abs(factors).max(axis=0).argmax())
    per_step = factors[:, peak]
    first = int(np.abs(per_step).argmax())
    fixed = factors[first] / per_step[first]
    if not np.allclose(per_step[:, None] * fixed, factors, rtol=1e-9, atol=1e-12 * np.abs(factors).max()):
        raise CompileError(
            "entries are multiplied by factors that change with the timestep, each in its own way (as scale_shift "
            "conditioning does), so that all weights would be encoded again at every step: let the timestep be added, "
            "as "
            "resnet_time_scale_shift='default' does, and train on"
        )
    value = builder.expression(a, shape, at)
    if (fixed != 1).any():
        value = scaled(builder.without_factors(value, at), fixed)
    node = builder.placed(value, at)
    return Expression(shape, {}, np.zeros((1, factors.shape[1])), ((node, per_step),), weighty=True)


def times(builder: Builder, node: fx.Node, values: Values, at: str) -> Value:
    """a * b."""
    (a, a_shape), (b, b_shape) = (operand(x, values) for x in node.args[:2])
    shape = shape_of(node)
    first = _broadcast(builder, a, a_shape, shape, at)
    second = first if a is b else _broadcast(builder, b, b_shape, shape, at)
    return _times(builder, first, second, shape, at)


def divide(builder: Builder, node: fx.Node, values: Values, at: str) -> Value:
    """a / b, where b is in the clear."""
    (a, a_shape), (b, _) = (operand(x, values) for x in node.args[:2])
    if not isinstance(b, Clear):
        raise CompileError(
            "operator 'div' divides by an encrypted value, which CKKS cannot do: multiply by a polynomial or a "
            "constant, and "
            "train on"
        )
    if node.kwargs.get("rounding_mode"):
        raise CompileError("operator 'div' rounds encrypted values, which CKKS cannot do: leave rounding_mode out")
    reciprocal = Clear(tuple(1 / torch.as_tensor(x).double() for x in b.values))
    shape = shape_of(node)
    return _times(builder, _broadcast(builder, a, a_shape, shape, at), reciprocal, shape, at)


def power(builder: Builder, node: fx.Node, values: Values, at: str) -> Value:
    """x ** n for a whole number n."""
    (x, shape), (n, _) = operand(node.args[0], values), operand(node.args[1], values)
    exponent = float(torch.as_tensor(n.values[0])) if isinstance(n, Clear) and n.fixed else float("nan")
    if not (exponent.is_integer() and 1 <= exponent <= MAX_DEGREE) or isinstance(x, Clear):
        raise CompileError(
            f"operator 'pow' raises to {exponent:g}; allowed: whole numbers from 1 to {MAX_DEGREE} (a root or a "
            "division is no "
            "polynomial)"
        )
    value = x if isinstance(x, Power) else builder.expression(x, shape, at)
    result = value
    for _ in range(int(exponent) - 1):
        if result is value and not isinstance(value, Power):
            value = result = builder.settled(value, at)
        result = builder.product(result, value, at)
    return result


def square(builder: Builder, node: fx.Node, values: Values, at: str) -> Value:
    """x * x."""
    x = values[node.args[0]]
    return _times(builder, x, x, shape_of(node), at)


def addcmul(builder: Builder, node: fx.Node, values: Values, at: str) -> Value:
    """a + value * b * c."""
    shape = shape_of(node)
    a, b, c = (_broadcast(builder, *operand(x, values), shape, at) for x in node.args[:3])
    if isinstance(b, Clear) and isinstance(c, Clear):
        raise CompileError("operator 'addcmul' with constant factors is not supported; write a + b * c")
    return _sum(builder, a, _times(builder, b, c, shape, at), float(node.kwargs.get("value", 1)), shape, at)


def constant(builder: Builder, node: fx.Node, values: Values, at: str) -> Value:
    """A tensor of the shape of an encrypted one, which reads nothing of it."""
    zeros = {n: torch.zeros(shape_of(n), dtype=torch.float64) for n in encrypted(node, values)}
    return Clear((called(node, values, 0, zeros),))


RULES: dict[str, Rule] = (
    dict.fromkeys(COPIES, copy)
    | dict.fromkeys((*SELECTIONS, *JOINS), select)
    | dict.fromkeys(LINEAR, linear)
    | dict.fromkeys(CONSTANTS, constant)
    | {
        "_to_copy": to_copy,
        "getitem": part_of,
        "_native_batch_norm_legit_no_training": batch_norm,
        "add": _added(1.0),
        "sub": _added(-1.0),
        "rsub": _added(-1.0, swapped=True),
        "neg": negate,
        "mul": times,
        "div": divide,
        "pow": power,
        "square": square,
        "addcmul": addcmul,
    }
)
