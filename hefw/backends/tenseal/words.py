"""Loops over 64-bit residues, for numba to compile: transforms, products and sums modulo primes below 2^60.

They are written so that LLVM makes vector instructions of them. Those have no high half of a 64-bit product, so it is
put together from 32-bit parts without its lowest carry: a quotient may be 2 too small, and a remainder is then below
four times the prime instead of two. Nothing in them can raise or takes memory, so that they need neither numba nor
Python when they run (`compiling`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

from hefw.backends.tenseal.abi import AT_ONCE, ENDS, HALF, ONE, PRIME, SIZE, SIZE_, WORD, WORD_

LOW = np.uint64(0xFFFFFFFF)
THIRTY = np.uint64((1 << 30) - 1)
U30, U32, ZERO, TWO, THREE = (np.uint64(k) for k in (30, 32, 0, 2, 3))
inlined = njit(forceinline=True, boundscheck=False, error_model="numpy")


def _pointer(kind: Any) -> Any:
    @intrinsic  # type: ignore[untyped-decorator,unused-ignore]
    def pointer(_: Any, address: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.uint64), code

    return pointer


#: Addresses of words, integers and floats as pointers.
pointer, to_integers, to_floats = (_pointer(kind) for kind in (types.uint64, types.int64, types.float64))


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
def copy(a, out):  # type: ignore[no-untyped-def]
    for n in range(out.shape[0]):
        out[n] = a[n]


@inlined
def below(x, most):  # type: ignore[no-untyped-def]
    """x modulo `most` for x below twice that; x is below 2^63."""
    less = x - most
    return x if np.int64(less) < 0 else less


@inlined
def times(x, factor, quotient, prime):  # type: ignore[no-untyped-def]
    """x times a factor modulo a prime, below 4 primes; `quotient` is factor * 2^64 // prime, x any 64-bit number."""
    x0, x1, q0, q1 = x & LOW, x >> U32, quotient & LOW, quotient >> U32
    return x * factor - (x1 * q1 + ((x1 * q0) >> U32) + ((x0 * q1) >> U32)) * prime


@inlined
def whole(x, prime):  # type: ignore[no-untyped-def]
    """x below 8 primes -> below one."""
    return below(below(below(x, prime << TWO), prime + prime), prime)


@inlined
def powers(base, quotient, constants, out):  # type: ignore[no-untyped-def]
    """Write the powers of a number from 0 on."""
    q, value = constants[PRIME], np.uint64(1)
    for k in range(out.shape[0]):
        out[k] = value
        value = whole(times(value, base, quotient, q), q)


@inlined
def quotients(values, high, low, prime, out):  # type: ignore[no-untyped-def]
    """value * 2^64 // prime for each; `high` and `low` are the two words of 2^128 // prime."""
    for k in range(values.shape[0]):
        x = values[k]
        x0, x1, l0, l1 = x & LOW, x >> U32, low & LOW, low >> U32
        middle = x1 * l0 + ((x0 * l0) >> U32)
        top = x1 * l1 + (middle >> U32) + ((x0 * l1 + (middle & LOW)) >> U32)
        found = x * high + top
        rest = ZERO - found * prime  # of value * 2^64, modulo 2^64
        out[k] = found + np.uint64(1) if rest >= prime else found


@inlined
def _columns(a, start, columns):  # type: ignore[no-untyped-def]
    """Words 4 k + c of a block of `a` to word k of row c of `columns` (4, ENDS)."""
    source, target = np.uint64(a.ctypes.data) + np.uint64(8 * start), np.uint64(columns.ctypes.data)
    for k in range(ENDS // 4):
        _transpose(source + np.uint64(128 * k), np.uint64(32), target + np.uint64(32 * k), np.uint64(8 * ENDS))


@inlined
def _rows(columns, a, start):  # type: ignore[no-untyped-def]
    """Back again."""
    source, target = np.uint64(columns.ctypes.data), np.uint64(a.ctypes.data) + np.uint64(8 * start)
    for k in range(ENDS // 4):
        _transpose(source + np.uint64(32 * k), np.uint64(8 * ENDS), target + np.uint64(128 * k), np.uint64(32))


@inlined
def forward(a, roots, quotient, ends, q, columns):  # type: ignore[no-untyped-def]
    """Number-theoretic transform in place, as SEAL orders it; a (N,) below 4 primes, then below one.

    `ends` (4, N / 4) are the roots of the last layer, even ones and odd ones, each with their quotients; `columns`
    (4, ENDS) is written over.
    """
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
        us, uqs = ends[0, start : start + ENDS], ends[1, start : start + ENDS]
        vs, vqs = ends[2, start : start + ENDS], ends[3, start : start + ENDS]
        for i in range(ENDS):
            x0, x1 = below(b0[i], q4), below(b1[i], q4)
            y0, y1 = times(b2[i], ws[i], wqs[i], q), times(b3[i], ws[i], wqs[i], q)
            x2, x3 = below(x0 + q4 - y0, q4), times(x1 + q4 - y1, vs[i], vqs[i], q)
            x0, x1 = below(x0 + y0, q4), times(x1 + y1, us[i], uqs[i], q)
            b0[i], b1[i] = whole(x0 + x1, q), whole(x0 + q4 - x1, q)
            b2[i], b3[i] = whole(x2 + x3, q), whole(x2 + q4 - x3, q)
        _rows(columns, a, 4 * start)


@inlined
def backward(a, roots, quotient, ends, constants, columns):  # type: ignore[no-untyped-def]
    """The inverse of `forward`, with the inverses of its roots; a (N,) below 4 primes, then below one."""
    q = constants[PRIME]
    q4 = q << TWO
    m = a.shape[0] >> 2
    b0, b1, b2, b3 = columns[0], columns[1], columns[2], columns[3]
    for start in range(0, m, ENDS):
        _columns(a, 4 * start, columns)
        ws, wqs = roots[m + start : m + start + ENDS], quotient[m + start : m + start + ENDS]
        us, uqs = ends[0, start : start + ENDS], ends[1, start : start + ENDS]
        vs, vqs = ends[2, start : start + ENDS], ends[3, start : start + ENDS]
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
def coefficients(part, tables, centred, columns, out, first, last):  # type: ignore[no-untyped-def]
    """Some rows of a polynomial (level + 1, N) as coefficients, with half of their prime added if `centred`."""
    constants, _, _, _, inverse, inverse_, ends_ = tables
    for j in range(first, last):
        row = out[j]
        copy(part[j], row)
        backward(row, inverse[j], inverse_[j], ends_[j], constants[j], columns)
        p, half = constants[j, PRIME], constants[j, HALF] if centred else ZERO
        for n in range(row.shape[0]):
            row[n] = below(row[n] + half, p)


@inlined
def decompose(given, tables, rows, centred, columns, out, first, last):  # type: ignore[no-untyped-def]
    """What `coefficients` gave (level + 1, N) into digits (level + 1, len(rows), N) modulo the primes of `rows`.

    `tables` is (constants, roots, quotients, ends, inverse roots, their quotients and ends); the last of `rows` is the
    special prime. Digits are taken between minus and plus half of their prime if `centred`, else from 0 on, as SEAL
    does: they are then twice as large in the mean square's root, and have a mean. Only some are written, of those that
    are not what the polynomial itself is modulo their own prime.
    """
    constants, roots, quotient, ends, _, _, _ = tables
    for number in range(first, last):
        j = number // (rows.shape[0] - 1)
        k = number - j * (rows.shape[0] - 1)
        k = k + 1 if k >= j else k
        p, half = constants[j, PRIME], constants[j, HALF] if centred else ZERO
        row, digit, whole_digit = rows[k], out[j, k], given[j]
        q = constants[row, PRIME]
        less = q - whole(times(half, np.uint64(1), constants[row, ONE], q), q)
        if p > q + (q << np.uint64(1)):
            for n in range(digit.shape[0]):
                digit[n] = below(times(whole_digit[n], np.uint64(1), constants[row, ONE], q), q << np.uint64(1)) + less
        else:
            for n in range(digit.shape[0]):
                digit[n] = whole_digit[n] + less
        forward(digit, roots[row], quotient[row], ends[row], q, columns)


@inlined
def _products(x, y, z, u, v, w, held):  # type: ignore[no-untyped-def]
    """Add x times y and z, and u times v and w, by halves: to the first three and to the next three rows of `held`."""
    a, b, c, d, e, f = held[0], held[1], held[2], held[3], held[4], held[5]
    for n in range(x.shape[0]):
        x0, x1, u0, u1 = x[n] & THIRTY, (x[n] >> U30) & LOW, u[n] & THIRTY, (u[n] >> U30) & LOW
        y0, y1, v0, v1 = y[n] & THIRTY, (y[n] >> U30) & LOW, v[n] & THIRTY, (v[n] >> U30) & LOW
        z0, z1, w0, w1 = z[n] & THIRTY, (z[n] >> U30) & LOW, w[n] & THIRTY, (w[n] >> U30) & LOW
        a[n] += x0 * y0 + u0 * v0
        b[n] += x0 * y1 + x1 * y0 + u0 * v1 + u1 * v0
        c[n] += x1 * y1 + u1 * v1
        d[n] += x0 * z0 + u0 * w0
        e[n] += x0 * z1 + x1 * z0 + u0 * w1 + u1 * w0
        f[n] += x1 * z1 + u1 * w1


@inlined
def _product(x, y, z, held):  # type: ignore[no-untyped-def]
    """Add x times y and z, as `_products`."""
    a, b, c, d, e, f = held[0], held[1], held[2], held[3], held[4], held[5]
    for n in range(x.shape[0]):
        x0, x1 = x[n] & THIRTY, (x[n] >> U30) & LOW
        y0, y1, z0, z1 = y[n] & THIRTY, (y[n] >> U30) & LOW, z[n] & THIRTY, (z[n] >> U30) & LOW
        a[n] += x0 * y0
        b[n] += x0 * y1 + x1 * y0
        c[n] += x1 * y1
        d[n] += x0 * z0
        e[n] += x0 * z1 + x1 * z0
        f[n] += x1 * z1


@inlined
def _reduce(held, constants):  # type: ignore[no-untyped-def]
    """What was added so far, as one number below 4 primes: there is room for AT_ONCE products more, and the carry."""
    q, word, word_, one = constants[PRIME], constants[WORD], constants[WORD_], constants[ONE]
    for part in range(2):
        low, middle, high = held[3 * part], held[3 * part + 1], held[3 * part + 2]
        for n in range(low.shape[0]):
            b = middle[n]
            top = times(high[n] + (b >> U30), word, word_, q)
            low[n] = below(top + times(low[n] + ((b & THIRTY) << U30), np.uint64(1), one, q), q << TWO)
            middle[n] = high[n] = ZERO


@inlined
def switch(digits, own, key, rows, constants, held, out, first, last):  # type: ignore[no-untyped-def]
    """Digits (digits, rows, N) times a key (rows or more, N / block, digits or more, 2, block), summed: (2, rows, N).

    Only some blocks are, row by row. Sums are below 4 primes. `rows` are their primes; the last one is that of the
    key's last row. Digit j modulo prime j is row j of `own` (digits, N).
    """
    count, blocks, block = digits.shape[0], key.shape[1], key.shape[4]
    for at in range(first, last):
        k = at // blocks
        number = at - k * blocks
        start, end = number * block, (number + 1) * block
        some = key[k if k < rows.shape[0] - 1 else key.shape[0] - 1, number]
        held[:] = ZERO
        for j in range(0, count - 1, 2):
            x = own[j, start:end] if j == k else digits[j, k, start:end]
            u = own[j + 1, start:end] if j + 1 == k else digits[j + 1, k, start:end]
            _products(x, some[j, 0], some[j, 1], u, some[j + 1, 0], some[j + 1, 1], held)
            if (j + 2) % AT_ONCE == 0:
                _reduce(held, constants[rows[k]])
        if count % 2:
            x = own[k, start:end] if k == count - 1 else digits[count - 1, k, start:end]
            _product(x, some[count - 1, 0], some[count - 1, 1], held)
        _reduce(held, constants[rows[k]])
        for part in range(2):
            copy(held[3 * part], out[part, k, start:end])


@inlined
def sums(ciphertexts, plaintexts, starts, outs, primes, size, constants, held, begin, stop):  # type: ignore[no-untyped-def]
    """Sums of products of ciphertexts of two parts with plaintexts, all given by the addresses of their residues.

    Output k is that of the products `starts[k]` to `starts[k + 1]`; only some blocks of residues are written.
    """
    block, length = held.shape[1], primes * size
    for number in range(begin, stop):
        start, end = number * block, (number + 1) * block
        row = constants[start // size]
        for k in range(outs.shape[0]):
            held[:] = ZERO
            first, last = starts[k], starts[k + 1]
            for t in range(first, last - 1, 2):
                x = carray(pointer(plaintexts[t]), (length,))[start:end]
                y = carray(pointer(ciphertexts[t]), (2, length))
                u = carray(pointer(plaintexts[t + 1]), (length,))[start:end]
                v = carray(pointer(ciphertexts[t + 1]), (2, length))
                _products(x, y[0, start:end], y[1, start:end], u, v[0, start:end], v[1, start:end], held)
                if (t + 2 - first) % AT_ONCE == 0:
                    _reduce(held, row)
            if (last - first) % 2:
                x = carray(pointer(plaintexts[last - 1]), (length,))[start:end]
                y = carray(pointer(ciphertexts[last - 1]), (2, length))
                _product(x, y[0, start:end], y[1, start:end], held)
            _reduce(held, row)
            out, q = carray(pointer(outs[k]), (2, length)), row[PRIME]
            for part in range(2):
                total, found = held[3 * part], out[part, start:end]
                for n in range(block):
                    found[n] = whole(total[n], q)


@inlined
def divide(a, tables, rows, inverses, room, columns, out):  # type: ignore[no-untyped-def]
    """Divide a polynomial (rows, N), below 8 primes, by the last row's prime, rounded: out (rows - 1, N).

    `a` is overwritten. `inverses` has that prime's inverse modulo the others, and its quotient: (rows - 1, 2).
    """
    constants, roots, quotient, ends, inverse, inverse_, ends_ = tables
    last = rows[rows.shape[0] - 1]
    top = a[rows.shape[0] - 1]
    p, half = constants[last, PRIME], constants[last, HALF]
    for n in range(top.shape[0]):
        top[n] = below(top[n], p << TWO)
    backward(top, inverse[last], inverse_[last], ends_[last], constants[last], columns)
    for n in range(top.shape[0]):
        top[n] = below(top[n] + half, p)
    for k in range(rows.shape[0] - 1):
        row = rows[k]
        q = constants[row, PRIME]
        less = q - whole(times(half, np.uint64(1), constants[row, ONE], q), q)
        for n in range(room.shape[0]):
            room[n] = below(times(top[n], np.uint64(1), constants[row, ONE], q) + less, q << TWO)
        forward(room, roots[row], quotient[row], ends[row], q, columns)
        by, by_ = inverses[k, 0], inverses[k, 1]
        given, taken = a[k], out[k]
        for n in range(room.shape[0]):
            taken[n] = whole(times(given[n] + q - room[n], by, by_, q), q)


@inlined
def permute(a, order, out):  # type: ignore[no-untyped-def]
    """out[..., n] = a[..., order[n]] for rows (rows, N)."""
    for k in range(a.shape[0]):
        x, y = a[k], out[k]
        for n in range(order.shape[0]):
            y[n] = x[order[n]]


@inlined
def add(a, b, rows, constants):  # type: ignore[no-untyped-def]
    """a += b, rows of residues modulo the primes of `rows`."""
    for k in range(a.shape[0]):
        x, y, q = a[k], b[k], constants[rows[k], PRIME]
        for n in range(x.shape[0]):
            x[n] = below(x[n] + y[n], q)


@inlined
def permute_more(a, order, rows, constants, out):  # type: ignore[no-untyped-def]
    """out[..., n] += a[..., order[n]], rows of residues modulo the primes of `rows`."""
    for k in range(a.shape[0]):
        x, y, q = a[k], out[k], constants[rows[k], PRIME]
        for n in range(order.shape[0]):
            y[n] = below(y[n] + x[order[n]], q)


@inlined
def add_permuted(a, b, order, rows, constants):  # type: ignore[no-untyped-def]
    """a[..., n] += b[..., order[n]], rows of residues below 8 primes of `rows`."""
    for k in range(a.shape[0]):
        x, y, q = a[k], b[k], constants[rows[k], PRIME]
        for n in range(x.shape[0]):
            x[n] = below(x[n] + y[order[n]], q << THREE)


@inlined
def reduce(a, rows, constants):  # type: ignore[no-untyped-def]
    """Rows of residues below 8 primes to below one."""
    for k in range(a.shape[0]):
        x, q = a[k], constants[rows[k], PRIME]
        for n in range(x.shape[0]):
            x[n] = whole(x[n], q)


@inlined
def square(a, constants, held, out, first, last):  # type: ignore[no-untyped-def]
    """A ciphertext (2, rows, N) times itself: some rows of (3, rows, N)."""
    block = held.shape[1]
    for k in range(first, last):
        row = constants[k]
        q = row[PRIME]
        for number in range(a.shape[2] // block):
            start, end = number * block, (number + 1) * block
            x, y = a[0, k, start:end], a[1, k, start:end]
            held[:] = ZERO
            _product(x, x, y, held)
            _reduce(held, row)
            first, second = out[0, k, start:end], out[1, k, start:end]
            for n in range(block):
                first[n] = whole(held[0, n], q)
                second[n] = below(whole(held[3, n], q) << np.uint64(1), q)
            held[:] = ZERO
            _product(y, y, y, held)
            _reduce(held, row)
            third = out[2, k, start:end]
            for n in range(block):
                third[n] = whole(held[0, n], q)


@inlined
def switched(product, rows, tables, inverses, given, added, order, more, halves, room, columns, out, first, last):  # type: ignore[no-untyped-def]
    """Some parts of a product (2, rows, N), divided by the last row's prime, plus those of `given`, permuted.

    `given` (parts, rows - 1, N) has `added` of them, out is (2, rows - 1, N): it is added to if `more`. Product and
    halves are written over.
    """
    for part in range(first, last):
        divide(product[part], tables, rows, inverses, room, columns, halves)
        if part < added:
            add(halves, given[part], rows, tables[0])
        if more:
            permute_more(halves, order, rows, tables[0], out[part])
        else:
            permute(halves, order, out[part])


@inlined
def accumulated(product, rows, constants, given, order, total, out, first, last):  # type: ignore[no-untyped-def]
    """Add a product, permuted, to total (2, rows, N), and `given` (rows - 1, N), permuted, to `out`: some rows only."""
    some = rows[first:last]
    for part in range(2):
        add_permuted(total[part, first:last], product[part, first:last], order, some, constants)
    add_permuted(out[first:last], given[first:last], order, some, constants)


@inlined
def folded(total, rows, tables, inverses, halves, room, columns, out, first, last):  # type: ignore[no-untyped-def]
    """Divide some parts of total (2, rows, N) by the last row's prime and add them to out, below 8 primes."""
    for part in range(first, last):
        divide(total[part], tables, rows, inverses, room, columns, halves)
        reduce(out[part], rows, tables[0])
        add(out[part], halves, rows, tables[0])


@inlined
def rescaled(given, rows, tables, inverses, whole_part, room, columns, out, first, last):  # type: ignore[no-untyped-def]
    """Divide some parts of a ciphertext (parts, rows, N) by its last prime: out (parts, rows - 1, N)."""
    for part in range(first, last):
        for k in range(whole_part.shape[0]):
            copy(given[part, k], whole_part[k])
        divide(whole_part, tables, rows, inverses, room, columns, out[part])
