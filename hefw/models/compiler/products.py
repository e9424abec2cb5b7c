"""Matrix products of two encrypted tensors, as attention has them: sums of products entry by entry."""

from __future__ import annotations

import math

import numpy as np

from hefw.core.errors import CompileError
from hefw.core.sparse import SparseMatrix
from hefw.models.compiler import matrices
from hefw.models.compiler import values as v
from hefw.models.compiler.build import Builder
from hefw.models.compiler.matrices import Shape
from hefw.models.compiler.values import Expression, Value

#: A product of n x k by k x m matrices has n m k of them; each is an entry of two squares.
MOST_PRODUCTS = 1 << 16


def matrix_product(builder: Builder, a: Value, b: Value, shapes: tuple[Shape, Shape], at: str) -> Expression:
    """a b, for tensors (..., n, k) and (..., k, m): both are repeated to (..., n, m, k), multiplied, and summed over k.

    CompileError if that are more than `MOST_PRODUCTS` entries.
    """
    *batch, n, k = shapes[0]
    m = shapes[1][-1]
    wide = (*batch, n, m, k)
    products = math.prod(wide)
    if products > MOST_PRODUCTS:
        raise CompileError(
            f"a product of two encrypted matrices, {n}x{k} by {k}x{m} ({math.prod(batch)} of them), is made of "
            f"{products:,} products; at most {MOST_PRODUCTS:,} are supported: use fewer tokens, heads or channels"
        )
    (left,) = matrices.selection(lambda tensors: tensors[0].unsqueeze(-2).expand(wide), [shapes[0]])
    (right,) = matrices.selection(lambda tensors: tensors[0].mT.unsqueeze(-3).expand(wide), [shapes[1]])
    factors = [
        v.apply(matrix, builder.without_factors(builder.expression(value, shape, at), at), wide, weighty=False)
        for matrix, value, shape in zip((left, right), (a, b), shapes, strict=True)
    ]
    product = builder.expression(builder.product(factors[0], factors[1], at), wide, at)
    sums = SparseMatrix.from_rows(
        (products // k, products), np.arange(0, products + 1, k), np.arange(products), np.ones(products)
    )
    return v.apply(sums, product, (*batch, n, m), weighty=False, at=at)
