"""Numbers that are given by residues, modulo other primes: for numba to compile.

As `ntt`, they have two ways: for any primes below 2^60, and by `lanes` or `doubles` for those below 2^50.
"""

from __future__ import annotations

import numpy as np

from hefw.backends.rns import doubles, lanes
from hefw.backends.rns.abi import FAST_BITS, IFMA, INVERSE, INVERSE_, MODULO, MODULO_, ONE, PRIME, fast
from hefw.backends.rns.modular import TWO, ZERO, address, below, inlined, times, whole

FAST, BYTES = np.uint64(FAST_BITS), np.uint64(8)


@inlined
def _mixed_any(parts, base, tables):  # type: ignore[no-untyped-def]
    """Residues (count, N) modulo primes from number `base` on, each below its prime, to digits of the one number that
    they stand for: v0 + q0 (v1 + q1 (v2 + ...)), each below its prime (Garner)."""
    constants, pairs = tables[0], tables[7]
    for i in range(1, parts.shape[0]):
        q, one, x = constants[base + i, PRIME], constants[base + i, ONE], parts[i]
        for k in range(i):
            by, by_, v = pairs[base + k, base + i, INVERSE], pairs[base + k, base + i, INVERSE_], parts[k]
            for n in range(x.shape[0]):
                x[n] = times(x[n] + (q << TWO) - times(v[n], np.uint64(1), one, q), by, by_, q)
        for n in range(x.shape[0]):
            x[n] = whole(x[n], q)


@inlined
def _taken_any(parts, base, row, less, tables, out):  # type: ignore[no-untyped-def]
    """What `mixed` made, modulo the prime of a row, plus `less`, which is at most that: below 4 primes."""
    constants, pairs = tables[0], tables[7]
    q, one, count = constants[row, PRIME], constants[row, ONE], parts.shape[0]
    first, three = parts[count - 1], q + (q << np.uint64(1))
    if constants[base + count - 1, PRIME] > three:
        for n in range(out.shape[0]):
            out[n] = below(times(first[n], np.uint64(1), one, q), q << np.uint64(1))
    elif count > 1:
        for n in range(out.shape[0]):
            out[n] = first[n]
    else:
        for n in range(out.shape[0]):
            out[n] = first[n] + less
        return
    for k in range(count - 1):
        i = count - 2 - k
        by, by_, v = pairs[base + i, row, MODULO], pairs[base + i, row, MODULO_], parts[i]
        if constants[base + i, PRIME] > three:
            for n in range(out.shape[0]):
                v_ = times(v[n], np.uint64(1), one, q)
                out[n] = below(below(times(out[n], by, by_, q) + v_, q << TWO), q << np.uint64(1))
        else:
            for n in range(out.shape[0]):
                out[n] = below(below(times(out[n], by, by_, q) + v[n], q << TWO), q << np.uint64(1))
    for n in range(out.shape[0]):
        out[n] += less


@inlined
def _divided_any(x, y, by, by_, q, out):  # type: ignore[no-untyped-def]
    """x, below 8 primes, minus y, below one, times a factor: below one prime."""
    for n in range(out.shape[0]):
        out[n] = whole(times(x[n] + q - y[n], by, by_, q), q)


if fast():
    chosen = lanes if fast() == IFMA else doubles

    @inlined
    def _small(constants, base, count, row):  # type: ignore[no-untyped-def]
        """Whether some primes from one on, and another, are small."""
        largest = constants[row, PRIME]
        for k in range(base, base + count):
            largest |= constants[k, PRIME]
        return largest >> FAST == ZERO

    @inlined
    def mixed(parts, base, tables):  # type: ignore[no-untyped-def]
        """`_mixed_any`."""
        constants, pairs = tables[0], tables[7]
        if not _small(constants, base, parts.shape[0], base):
            _mixed_any(parts, base, tables)
            return
        for i in range(1, parts.shape[0]):
            q, one, x = constants[base + i, PRIME], constants[base + i, ONE], address(parts[i])
            for k in range(i):
                by, by_, v = pairs[base + k, base + i, INVERSE], pairs[base + k, base + i, INVERSE_], address(parts[k])
                for n in range(0, parts.shape[1], chosen.COUNT):
                    at = np.uint64(n) * BYTES
                    chosen.parted(x + at, v + at, by, by_, one, q)

    @inlined
    def taken(parts, base, row, less, tables, out):  # type: ignore[no-untyped-def]
        """`_taken_any`."""
        constants, pairs = tables[0], tables[7]
        q, one, count = constants[row, PRIME], constants[row, ONE], parts.shape[0]
        if not _small(constants, base, count, row):
            _taken_any(parts, base, row, less, tables, out)
            return
        to, size, x = address(out), out.shape[0], address(parts[count - 1])
        if count == 1:
            for n in range(0, size, chosen.COUNT):
                at = np.uint64(n) * BYTES
                chosen.taken(x + at, less, one, to + at, q)
        for k in range(count - 1):
            i = count - 2 - k
            by, by_, y = pairs[base + i, row, MODULO], pairs[base + i, row, MODULO_], address(parts[i])
            more = ZERO if i else less
            for n in range(0, size, chosen.COUNT):
                at = np.uint64(n) * BYTES
                chosen.joined(x + at, by, by_, y + at, more, one, to + at, q)
            x = to

    @inlined
    def divided(x, y, by, by_, q, out):  # type: ignore[no-untyped-def]
        """`_divided_any`."""
        if q >> FAST:
            _divided_any(x, y, by, by_, q, out)
            return
        a, b, to = address(x), address(y), address(out)
        for n in range(0, out.shape[0], chosen.COUNT):
            at = np.uint64(n) * BYTES
            chosen.divided(a + at, b + at, by, by_, to + at, q)

else:
    mixed, taken, divided = _mixed_any, _taken_any, _divided_any
