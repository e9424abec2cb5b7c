"""Polynomials as residues: arrays (..., primes, N) of int64, one row a prime, in Lattigo's order of NTT values.

In that form sums and products of polynomials are sums and products of entries, so that numpy does them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hefw.core.errors import EnvelopeError
from numpy.typing import NDArray

Residues = NDArray[np.int64]
SPLIT = 30  # bits: one factor of two is halved there, so that quotients by a prime fit a float64's 53 bits
MOST_PAIRS = 256


def column(primes: Sequence[int]) -> Residues:
    """(primes, 1): what the functions below take, for arrays of so many rows."""
    return np.array(primes, dtype=np.int64)[:, None]


def add(a: Residues, b: Residues, primes: Residues) -> Residues:
    """a + b."""
    return _into_range(a + b - primes, primes)


def subtract(a: Residues, b: Residues, primes: Residues) -> Residues:
    """a - b."""
    return _into_range(a - b, primes)


def multiply(a: Residues, b: Residues, primes: Residues) -> Residues:
    """a * b, entry by entry; `b` may have one column for all N."""
    return dot([(a, b)], primes)


def dot(pairs: Sequence[tuple[Residues, Residues]], primes: Residues) -> Residues:
    """The sum of the products of pairs, for primes below 2^61 (`multiply`: each `b` may have one column).

    int64 sums and products wrap modulo 2^64, and so does a quotient times its prime: their difference is right, since
    it is small. The quotients come from floats, which are wrong by one at most for up to MOST_PAIRS pairs.
    """
    if len(pairs) > MOST_PAIRS:
        return add(dot(pairs[:MOST_PAIRS], primes), dot(pairs[MOST_PAIRS:], primes), primes)
    shape = np.broadcast_shapes(*(item.shape for item in pairs[0]))
    out = np.empty(shape, dtype=np.int64)
    for row, prime in enumerate(primes[:, 0]):
        inverse = 1 / float(prime)
        rest, last = np.zeros((2, *shape[:-2], shape[-1]), dtype=np.int64)
        quotient, share = np.zeros_like(rest, dtype=np.float64), np.zeros_like(last, dtype=np.float64)
        for a, b in pairs:
            x, high, low = a[..., row, :], b[..., row, :] >> SPLIT, b[..., row, :] & (1 << SPLIT) - 1
            part = x * inverse
            rest += x * high
            quotient += part * high
            last += x * low
            share += part * low
        rest -= quotient.astype(np.int64) * prime
        rest += prime  # the sum of x * high modulo the prime: positive, so that the next quotient is rounded down
        share += rest * (inverse * (1 << SPLIT))
        last += rest << SPLIT
        last -= share.astype(np.int64) * prime
        last = _into_range(last, prime)
        out[..., row, :] = _into_range(last - prime, prime)
    return out


def constant(value: int, primes: Residues) -> Residues:
    """(primes, 1): a constant polynomial, whose NTT values are all that constant."""
    return column([value % int(prime) for prime in primes[:, 0]])


def to_bytes(tag: int, residues: Residues) -> bytes:
    """What crosses the wire: a number that says what it is, then 8 bytes a residue."""
    return tag.to_bytes(8, "little") + residues.astype("<i8", copy=False).tobytes()


def from_bytes(payload: bytes, shape: tuple[int, ...], primes: Residues) -> tuple[int, Residues]:
    """The inverse. EnvelopeError if the bytes are not residues of that shape; Lattigo never sees them then."""
    if len(payload) != 8 + 8 * int(np.prod(shape)):
        raise EnvelopeError(f"{len(payload)} bytes are not {shape} residues; send what hefw-lattigo wrote")
    residues = np.frombuffer(payload, dtype="<i8", offset=8).reshape(shape).astype(np.int64, copy=False)
    if (residues < 0).any() or (residues >= primes).any():
        raise EnvelopeError("a residue is not below its prime; send what hefw-lattigo wrote")
    return int.from_bytes(payload[:8], "little"), residues


def _into_range(a: Residues, prime: Residues | np.int64) -> Residues:
    a += (a >> 63) & prime  # where it is negative
    return a
