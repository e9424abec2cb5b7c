"""Number-theoretic transforms in place, as SEAL orders them, for numba to compile.

There are three ways: by 64-bit products for any prime below 2^60, and for those below 2^50 by `lanes`, three to four
times faster, or by `doubles`, twice as fast. All begin with the layers whose pairs are far apart; the last ones are
done in columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from hefw.backends.rns import doubles, lanes
from hefw.backends.rns.abi import ENDS, FAST_BITS, IFMA, PRIME, SIZE, SIZE_, fast
from hefw.backends.rns.modular import TWO, address, below, inlined, times, whole

FAST = np.uint64(FAST_BITS)
BYTES = np.uint64(8)


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def _transpose(_: Any, source: Any, apart: Any, target: Any, apart_there: Any) -> Any:
    """Four rows of four words become four columns; rows are so many bytes apart."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(ir.IntType(64), 4)

        def row(start: Any, step: Any, k: int) -> Any:
            at = builder.add(start, builder.mul(step, ir.Constant(ir.IntType(64), k)))
            return builder.inttoptr(at, vector.as_pointer())

        def mixed(x: Any, y: Any, order: list[int]) -> Any:
            return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), 4), order))

        rows = [builder.load(row(args[0], args[1], k), align=8) for k in range(4)]
        even, odd = [0, 4, 2, 6], [1, 5, 3, 7]
        pairs = [[mixed(rows[k], rows[k + 1], order) for k in (0, 2)] for order in (even, odd)]
        for k, (order, half) in enumerate([(0, [0, 1, 4, 5]), (1, [0, 1, 4, 5]), (0, [2, 3, 6, 7]), (1, [2, 3, 6, 7])]):
            first, second = pairs[order]
            builder.store(mixed(first, second, half), row(args[2], args[3], k), align=8)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64, types.uint64, types.uint64), code


@inlined
def _columns(a, start, columns):  # type: ignore[no-untyped-def]
    """Words 4 k + c of a block of `a` to word k of row c of `columns` (4, ENDS)."""
    source, target = address(a) + np.uint64(8 * start), address(columns)
    for k in range(ENDS // 4):
        _transpose(source + np.uint64(128 * k), np.uint64(32), target + np.uint64(32 * k), np.uint64(8 * ENDS))


@inlined
def _rows(columns, a, start):  # type: ignore[no-untyped-def]
    """Back again."""
    source, target = address(columns), address(a) + np.uint64(8 * start)
    for k in range(ENDS // 4):
        _transpose(source + np.uint64(32 * k), np.uint64(8 * ENDS), target + np.uint64(128 * k), np.uint64(32))


@inlined
def _forward(a, roots, quotient, ends, q, columns):  # type: ignore[no-untyped-def]
    """`forward` modulo any prime below 2^60: `ends` are four rows of the last layer's roots, even ones and odd ones,
    each with their quotients."""
    q4 = q << TWO
    t, m = a.shape[0] >> 1, 1
    while t >= 4:
        for i in range(m):
            w, wq = roots[m + i], quotient[m + i]
            low, high = a[2 * i * t : 2 * i * t + t], a[2 * i * t + t : 2 * i * t + 2 * t]
            for j in range(t):
                x = below(low[j], q4)
                y = times(high[j], w, wq, q)
                low[j] = x + y
                high[j] = x + q4 - y
        m, t = m << 1, t >> 1
    b0, b1, b2, b3 = columns[0], columns[1], columns[2], columns[3]
    for start in range(0, m, ENDS):  # the last two layers, in columns
        _columns(a, 4 * start, columns)
        ws, wqs = roots[m + start : m + start + ENDS], quotient[m + start : m + start + ENDS]
        us, uqs, vs, vqs = (
            ends[start : start + ENDS],
            ends[m + start : m + start + ENDS],
            ends[2 * m + start : 2 * m + start + ENDS],
            ends[3 * m + start : 3 * m + start + ENDS],
        )
        for i in range(ENDS):
            x0, x1 = below(b0[i], q4), below(b1[i], q4)
            y0, y1 = times(b2[i], ws[i], wqs[i], q), times(b3[i], ws[i], wqs[i], q)
            x2, x3 = below(x0 + q4 - y0, q4), times(x1 + q4 - y1, vs[i], vqs[i], q)
            x0, x1 = below(x0 + y0, q4), times(x1 + y1, us[i], uqs[i], q)
            b0[i], b1[i] = whole(x0 + x1, q), whole(x0 + q4 - x1, q)
            b2[i], b3[i] = whole(x2 + x3, q), whole(x2 + q4 - x3, q)
        _rows(columns, a, 4 * start)


@inlined
def _backward(a, roots, quotient, ends, constants, columns):  # type: ignore[no-untyped-def]
    """`backward` modulo any prime below 2^60."""
    q = constants[PRIME]
    q4 = q << TWO
    m = a.shape[0] >> 2
    b0, b1, b2, b3 = columns[0], columns[1], columns[2], columns[3]
    for start in range(0, m, ENDS):
        _columns(a, 4 * start, columns)
        ws, wqs = roots[m + start : m + start + ENDS], quotient[m + start : m + start + ENDS]
        us, uqs, vs, vqs = (
            ends[start : start + ENDS],
            ends[m + start : m + start + ENDS],
            ends[2 * m + start : 2 * m + start + ENDS],
            ends[3 * m + start : 3 * m + start + ENDS],
        )
        for i in range(ENDS):
            x0, x1 = below(b0[i] + b1[i], q4), times(b0[i] + q4 - b1[i], us[i], uqs[i], q)
            x2, x3 = below(b2[i] + b3[i], q4), times(b2[i] + q4 - b3[i], vs[i], vqs[i], q)
            b0[i], b2[i] = below(x0 + x2, q4), times(x0 + q4 - x2, ws[i], wqs[i], q)
            b1[i], b3[i] = below(x1 + x3, q4), times(x1 + q4 - x3, ws[i], wqs[i], q)
        _rows(columns, a, 4 * start)
    t, m = 4, m >> 1
    while m >= 1:
        for i in range(m):
            w, wq = roots[m + i], quotient[m + i]
            low, high = a[2 * i * t : 2 * i * t + t], a[2 * i * t + t : 2 * i * t + 2 * t]
            for j in range(t):
                x, y = low[j], high[j]
                low[j] = below(x + y, q4)
                high[j] = times(x + q4 - y, w, wq, q)
        m, t = m >> 1, t << 1
    for j in range(a.shape[0]):
        a[j] = whole(times(a[j], constants[SIZE], constants[SIZE_], q), q)


@inlined
def _odd(blocks):  # type: ignore[no-untyped-def]
    """Whether it takes an odd number of layers to so many blocks."""
    layers = 0
    while (1 << layers) < blocks:
        layers += 1
    return layers % 2 == 1


if fast() == IFMA:

    @inlined
    def _three(roots, quotient, k):  # type: ignore[no-untyped-def]
        """Root number k of a layer and two of the next one, each with its quotient."""
        return roots[k], quotient[k], roots[2 * k], quotient[2 * k], roots[2 * k + 1], quotient[2 * k + 1]

    @inlined
    def _forward_fast(a, roots, quotient, ends, q):  # type: ignore[no-untyped-def]
        at, m, t = address(a), 1, a.shape[0]
        if _odd(t // lanes.COUNT):
            half, w, wq = np.uint64(t >> 1) * BYTES, roots[1], quotient[1]
            for j in range(0, t >> 1, lanes.COUNT):
                x = at + np.uint64(j) * BYTES
                lanes.forward_pair(x, x + half, w, wq, q)
            m, t = 2, t >> 1
        while t > lanes.COUNT:
            apart = np.uint64(t >> 2) * BYTES
            for i in range(m):
                r, rq, s, sq, u, uq = _three(roots, quotient, m + i)
                start = at + np.uint64(i * t) * BYTES
                for j in range(0, t >> 2, lanes.COUNT):
                    lanes.forward_quad(start + np.uint64(j) * BYTES, apart, r, rq, s, sq, u, uq, q)
            m, t = m << 2, t >> 2
        e, row = address(ends), np.uint64(m) * BYTES
        for i in range(0, m, lanes.COUNT):
            lanes.forward_end(at + np.uint64(i * lanes.COUNT) * BYTES, e + np.uint64(i) * BYTES, row, q)

    @inlined
    def _backward_fast(a, roots, quotient, ends, constants):  # type: ignore[no-untyped-def]
        at, t, q = address(a), lanes.COUNT, constants[PRIME]
        m = a.shape[0] // t
        e, row = address(ends), np.uint64(m) * BYTES
        for i in range(0, m, lanes.COUNT):
            lanes.backward_end(at + np.uint64(i * lanes.COUNT) * BYTES, e + np.uint64(i) * BYTES, row, q)
        while m >= 4:
            apart, m = np.uint64(t) * BYTES, m >> 2
            t = t << 2
            for i in range(m):
                r, rq, s, sq, u, uq = _three(roots, quotient, m + i)
                start = at + np.uint64(i * t) * BYTES
                for j in range(0, t >> 2, lanes.COUNT):
                    lanes.backward_quad(start + np.uint64(j) * BYTES, apart, r, rq, s, sq, u, uq, q)
        if m == 2:
            half, w, wq = np.uint64(t) * BYTES, roots[1], quotient[1]
            for j in range(0, t, lanes.COUNT):
                x = at + np.uint64(j) * BYTES
                lanes.backward_pair(x, x + half, w, wq, q)
        for j in range(0, a.shape[0], lanes.COUNT):
            lanes.scale(at + np.uint64(j) * BYTES, constants[SIZE], constants[SIZE_], q)

elif fast():

    @inlined
    def _forward_fast(a, roots, quotient, ends, q):  # type: ignore[no-untyped-def]
        at, m, t = address(a), 1, a.shape[0]
        if _odd(t // doubles.COUNT):
            half = np.uint64(t >> 1) * BYTES
            for j in range(0, t >> 1, doubles.COUNT):
                x = at + np.uint64(j) * BYTES
                doubles.forward_pair(x, x + half, quotient[1], q)
            m, t = 2, t >> 1
        else:
            apart = np.uint64(t >> 2) * BYTES
            for j in range(0, t >> 2, doubles.COUNT):
                doubles.forward_first(at + np.uint64(j) * BYTES, apart, quotient[1], quotient[2], quotient[3], q)
            m, t = 4, t >> 2
        while t > doubles.COUNT:
            apart = np.uint64(t >> 2) * BYTES
            for i in range(m):
                r, s, u = quotient[m + i], quotient[2 * (m + i)], quotient[2 * (m + i) + 1]
                start = at + np.uint64(i * t) * BYTES
                for j in range(0, t >> 2, doubles.COUNT):
                    doubles.forward_quad(start + np.uint64(j) * BYTES, apart, r, s, u, q)
            m, t = m << 2, t >> 2
        e, row = address(ends), np.uint64(m) * BYTES
        for start in range(0, m, ENDS):
            for i in range(start, start + ENDS, doubles.COUNT):
                doubles.forward_end(at + np.uint64(i * doubles.COUNT) * BYTES, e + np.uint64(i) * BYTES, row, q)
            for i in range(start, start + ENDS, doubles.COUNT):  # apart, or a processor would look ahead too little
                doubles.forward_close(at + np.uint64(i * doubles.COUNT) * BYTES, q)

    @inlined
    def _backward_fast(a, roots, quotient, ends, constants):  # type: ignore[no-untyped-def]
        at, t, q, scale = address(a), doubles.COUNT, constants[PRIME], constants[SIZE]
        m = a.shape[0] // t
        e, row = address(ends), np.uint64(m) * BYTES
        for i in range(0, m, doubles.COUNT):
            doubles.backward_end(at + np.uint64(i * doubles.COUNT) * BYTES, e + np.uint64(i) * BYTES, row, q)
        while m > 4:
            apart, m = np.uint64(t) * BYTES, m >> 2
            t = t << 2
            for i in range(m):
                r, s, u = quotient[m + i], quotient[2 * (m + i)], quotient[2 * (m + i) + 1]
                start = at + np.uint64(i * t) * BYTES
                for j in range(0, t >> 2, doubles.COUNT):
                    doubles.backward_quad(start + np.uint64(j) * BYTES, apart, r, s, u, q)
        apart = np.uint64(t) * BYTES
        for j in range(0, t, doubles.COUNT):
            x = at + np.uint64(j) * BYTES
            if m == 2:
                doubles.backward_pair(x, x + apart, quotient[1], scale, q)
            else:
                doubles.backward_last(x, apart, quotient[1], quotient[2], quotient[3], scale, q)


if fast():

    @inlined
    def forward(a, roots, quotient, ends, q, columns):  # type: ignore[no-untyped-def]
        """The transform of a (N,) below 4 primes, then below one.

        `ends` (2 N,) are the roots of the last layers in the order of use (`switching`); `columns` (4, ENDS) is
        written over.
        """
        if q >> FAST:
            _forward(a, roots, quotient, ends, q, columns)
        else:
            _forward_fast(a, roots, quotient, ends, q)

    @inlined
    def backward(a, roots, quotient, ends, constants, columns):  # type: ignore[no-untyped-def]
        """The inverse of `forward`, with the inverses of its roots; a (N,) below 4 primes, then below one."""
        if constants[PRIME] >> FAST:
            _backward(a, roots, quotient, ends, constants, columns)
        else:
            _backward_fast(a, roots, quotient, ends, constants)

else:
    forward, backward = _forward, _backward
