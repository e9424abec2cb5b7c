"""Residues as halves that float64 multiplies, and back: loops compiled by numba, for `wide`."""

from __future__ import annotations

import numpy as np
from numba import njit

compiled = njit(cache=True, boundscheck=False, error_model="numpy", nogil=True)
U30 = np.uint64(30)
LOW = np.uint64((1 << 30) - 1)


@compiled
def split(words, low, high):  # type: ignore[no-untyped-def]
    """Write the lowest 30 bits of numbers below 2^60, and the others: (n,) each."""
    for n in range(words.shape[0]):
        x = words[n]
        low[n] = np.float64(np.int64(x & LOW))
        high[n] = np.float64(np.int64(x >> U30))


@compiled
def join(low, high, prime, over, shift, inverse, out):  # type: ignore[no-untyped-def]
    """Add low + high * 2^30 modulo a prime, of sums below 2^53 in magnitude, to numbers below it: (n,) each.

    `over` is 2^(30 + shift) modulo the prime, below 2^38 in magnitude; `inverse` is 1 / prime.
    """
    rest = (np.int64(1) << shift) - np.int64(1)
    for n in range(out.shape[0]):
        a, b = np.int64(low[n]), np.int64(high[n])
        total = (b >> shift) * over + ((b & rest) << np.int64(30)) + a
        total -= np.int64(np.floor(np.float64(total) * inverse)) * prime  # off by one prime at most
        total += prime if total < 0 else np.int64(0)
        total -= prime if total >= prime else np.int64(0)
        total += np.int64(out[n])
        out[n] = np.uint64(total - prime if total >= prime else total)
