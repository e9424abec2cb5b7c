"""Residues as halves that float64 multiplies, and back: loops for numba to compile, for `wide`."""

from __future__ import annotations

import numpy as np
from numba import carray

from hefw.backends.rns.modular import THIRTY, U30, inlined, pointer, times, whole


@inlined
def split(addresses, start, low, high):  # type: ignore[no-untyped-def]
    """Write the lowest 30 bits of numbers below 2^60, and the others: (inputs, n) each.

    The numbers of an input are in memory, the first one that is read `start` words from its address.
    """
    for k in range(addresses.shape[0]):
        words = carray(pointer(addresses[k]), (start + low.shape[1],))[start:]
        lows, highs = low[k], high[k]
        for n in range(words.shape[0]):
            x = words[n]
            lows[n] = np.float64(np.int64(x & THIRTY))
            highs[n] = np.float64(np.int64(x >> U30))


@inlined
def join(low, high, prime, over, shift, power, quotient, addresses, start, more):  # type: ignore[no-untyped-def]
    """Write (low + high * 2^30) power modulo a prime, of sums (rows, n) below 2^53 in magnitude; with `more`, add it.

    `over` is 2^(30 + shift) modulo the prime, below 2^38 in magnitude, `quotient` that of `power` (`times`). A row's
    numbers are in memory, the first one `start` words from its address.
    """
    inverse, rest = 1.0 / np.float64(prime), (np.int64(1) << shift) - np.int64(1)
    for k in range(addresses.shape[0]):
        out = carray(pointer(addresses[k]), (start + low.shape[1],))[start:]
        lows, highs = low[k], high[k]
        for n in range(out.shape[0]):
            a, b = np.int64(lows[n]), np.int64(highs[n])
            total = (b >> shift) * over + ((b & rest) << np.int64(30)) + a
            total -= np.int64(np.floor(np.float64(total) * inverse)) * prime  # off by one prime at most
            total += prime if total < 0 else np.int64(0)
            total -= prime if total >= prime else np.int64(0)
            if power != 1:
                total = np.int64(whole(times(np.uint64(total), power, quotient, np.uint64(prime)), np.uint64(prime)))
            if more:
                total += np.int64(out[n])
                total -= prime if total >= prime else np.int64(0)
            out[n] = np.uint64(total)
