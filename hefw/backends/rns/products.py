"""Sums of products of residues, for numba to compile, by blocks: `held` (6, block) has what was added so far.

As `ntt`, they have two ways: for any primes below 2^60, and by `lanes` or `doubles` for those below 2^50.
"""

from __future__ import annotations

import numpy as np

from hefw.backends.rns import doubles, lanes
from hefw.backends.rns.abi import (
    AT_ONCE,
    FAST_AT_ONCE,
    FAST_BITS,
    IFMA,
    LANES,
    NEAR,
    NEAR_,
    ONE,
    PRIME,
    WORD,
    WORD_,
    fast,
)
from hefw.backends.rns.modular import LOW, THIRTY, TWO, U30, ZERO, address, below, inlined, times

FAST, BYTES = np.uint64(FAST_BITS), np.uint64(8)


@inlined
def _products_any(x, y, z, u, v, w, held):  # type: ignore[no-untyped-def]
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
def _product_any(x, y, z, held):  # type: ignore[no-untyped-def]
    """Add x times y and z, as `_products_any`."""
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
def _reduce_any(held, constants):  # type: ignore[no-untyped-def]
    """What was added so far, as one number below 4 primes: there is room for AT_ONCE products more, and the carry."""
    q, word, word_, one = constants[PRIME], constants[WORD], constants[WORD_], constants[ONE]
    for part in range(2):
        low, middle, high = held[3 * part], held[3 * part + 1], held[3 * part + 2]
        for n in range(low.shape[0]):
            b = middle[n]
            top = times(high[n] + (b >> U30), word, word_, q)
            low[n] = below(top + times(low[n] + ((b & THIRTY) << U30), np.uint64(1), one, q), q << TWO)
            middle[n] = high[n] = ZERO


if fast():
    chosen = lanes if fast() == IFMA else doubles
    FAST_MOST = FAST_AT_ONCE[fast()]

    @inlined
    def switch_fast(digits, own, key, k, whose, start, end, constants, first, second):  # type: ignore[no-untyped-def]
        """Row k of digits times that of a key by LANES words, from one place to another: written there."""
        step = np.uint64(LANES) * BYTES
        count, apart = digits.shape[0], np.uint64(digits.shape[1] * digits.shape[2]) * BYTES
        x, mine = address(digits[0, k]), address(own)
        words, between = address(key), np.uint64(key.shape[1] * key.shape[2] * key.shape[3]) * BYTES
        to, to_ = address(first), address(second)
        near, near_, one, q = constants[NEAR], constants[NEAR_], constants[ONE], constants[PRIME]
        for n in range(start, end):
            at = np.uint64(n) * step
            chosen.dot(
                x + at,
                apart,
                mine + at,
                np.uint64(whose),
                words + TWO * at,
                between,
                np.uint64(count),
                near,
                near_,
                one,
                to + at,
                to_ + at,
                q,
            )

    @inlined
    def products(x, y, z, u, v, w, held, q):  # type: ignore[no-untyped-def]
        if q >> FAST:
            _products_any(x, y, z, u, v, w, held)
            return
        a, b, c, d, e, f = address(x), address(y), address(z), address(u), address(v), address(w)
        to, row = address(held), np.uint64(held.shape[1]) * BYTES
        for n in range(0, x.shape[0], chosen.COUNT):
            k = np.uint64(n) * BYTES
            chosen.products(a + k, b + k, c + k, d + k, e + k, f + k, to + k, row, q)

    @inlined
    def product(x, y, z, held, q):  # type: ignore[no-untyped-def]
        if q >> FAST:
            _product_any(x, y, z, held)
            return
        a, b, c, to, row = address(x), address(y), address(z), address(held), np.uint64(held.shape[1]) * BYTES
        for n in range(0, x.shape[0], chosen.COUNT):
            k = np.uint64(n) * BYTES
            chosen.product(a + k, b + k, c + k, to + k, row, q)

    @inlined
    def most(q):  # type: ignore[no-untyped-def]
        return AT_ONCE if q >> FAST else FAST_MOST

    @inlined
    def reduce(held, constants):  # type: ignore[no-untyped-def]
        q = constants[PRIME]
        if q >> FAST:
            _reduce_any(held, constants)
            return
        to, row = address(held), np.uint64(held.shape[1]) * BYTES
        for n in range(0, held.shape[1], chosen.COUNT):
            chosen.reduce(to + np.uint64(n) * BYTES, row, constants[NEAR], constants[NEAR_], constants[ONE], q)

else:

    @inlined
    def products(x, y, z, u, v, w, held, q):  # type: ignore[no-untyped-def]
        _products_any(x, y, z, u, v, w, held)

    @inlined
    def product(x, y, z, held, q):  # type: ignore[no-untyped-def]
        _product_any(x, y, z, held)

    @inlined
    def most(q):  # type: ignore[no-untyped-def]
        return AT_ONCE

    reduce = _reduce_any

    @inlined
    def switch_fast(digits, own, key, k, whose, start, end, constants, first, second):  # type: ignore[no-untyped-def]
        """Keys have no such order here."""
