"""A matrix of constants times ciphertexts, as products of matrices of residues: for thousands of images at once.

Where a feature is a ciphertext, an affine region is one integer matrix (weights at their scale) times residues, modulo
each prime. A residue is split into two halves below 2^30 that float64 multiplies and adds exactly as long as the
absolute weights of a row add up to less than 2^23; what is more is split into several products.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import local
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

loops: ModuleType | None
try:
    from hefw.backends.tenseal import halves as loops
except ImportError:  # without numba numpy does it, in three times as long
    loops = None

Integers = NDArray[np.int64]
Words = NDArray[np.uint64]
Halves = NDArray[np.float64]

#: Residues of one ciphertext that are worked on at a time: two of such blocks of all inputs stay in the cache.
BLOCK = 2048
#: Sums of absolute weights that a product of float64 takes exactly, beside halves of 30 bits.
MOST_WEIGHT = 2**23
HALF_BITS = 30
#: Products that one row may take, whose sum modulo a prime is then still a 64-bit number.
MOST_PIECES = 4
#: Primes lie so close below a power of two, in bits.
NEAR_BITS = 38


@dataclass(frozen=True)
class Piece:
    """Rows of the outputs that read a range of the inputs, in their order of `Matrix.order`."""

    rows: NDArray[np.int64]
    first: int
    weights: Halves  # (rows, inputs), integers


class Matrix:
    """An integer matrix (outputs, inputs) in pieces that leave out most zeros, each exact in float64.

    OverflowError for weights that are too large for that.
    """

    def __init__(self, weights: Integers) -> None:
        outputs, inputs = weights.shape
        reads = weights != 0
        # Rows that read the same inputs together, and the inputs in the order in which these rows come.
        patterns, begins, kind = np.unique(reads, axis=0, return_index=True, return_inverse=True)
        found = np.argsort(begins)
        patterns, kind = patterns[found], np.argsort(found)[kind.reshape(-1)]
        first = np.where(patterns.any(axis=0), patterns.argmax(axis=0), len(patterns))
        last = len(patterns) - patterns[::-1].argmax(axis=0)
        self.order = np.lexsort((np.arange(inputs), last, first))
        self.outputs = outputs
        ordered = weights[:, self.order]
        self.pieces = [
            piece for number in range(len(patterns)) for piece in _pieces(np.flatnonzero(kind == number), ordered)
        ]

    def times(self, low: Halves, high: Halves, prime: int) -> Words:
        """The product with (inputs, n) residues modulo `prime`, given by their halves in `order`."""
        total = np.zeros((self.outputs, low.shape[1]), dtype=np.uint64)
        for piece in self.pieces:
            end = piece.first + piece.weights.shape[1]
            _join(piece.weights @ low[piece.first : end], piece.weights @ high[piece.first : end], prime, piece, total)
        return total


def _pieces(rows: NDArray[np.int64], weights: Integers) -> Iterator[Piece]:
    """Some rows of one pattern, cut where the absolute weights become too many for exact sums."""
    read = np.flatnonzero(weights[rows[0]])
    if not len(read):
        return
    start, stop = int(read[0]), int(read[-1]) + 1
    for _ in range(MOST_PIECES):
        heavy = np.abs(weights[rows, start:stop]).cumsum(axis=1).max(axis=0) >= MOST_WEIGHT
        end = start + (int(heavy.argmax()) if heavy.any() else stop - start)
        yield Piece(rows, start, np.ascontiguousarray(weights[rows, start:end], dtype=np.float64))
        start = end
        if start == stop:
            return
    raise OverflowError("weights exceed what float64 adds exactly")


def suits(prime: int) -> bool:
    """Whether products modulo a prime are made here: it is of more than 30 bits, and just below a power of two."""
    bits = prime.bit_length()
    return HALF_BITS < bits <= 2 * HALF_BITS and abs(_over(prime)) < 1 << NEAR_BITS


def multiply(
    matrix: Matrix, inputs: Sequence[Words], outputs: Sequence[Words], primes: Iterable[int], threads: int
) -> None:
    """Write the product of a matrix with ciphertexts, given and taken by their residues (parts, primes, N) each."""
    parts, _, size = inputs[0].shape
    ordered = [inputs[k] for k in matrix.order]
    own = local()  # memory of each thread: new one for each block takes as long as the products

    def block(part: int, number: int, prime: int, start: int) -> None:
        some = slice(start, start + BLOCK)
        if not hasattr(own, "halves"):
            own.halves = np.empty((2, len(ordered), min(BLOCK, size)))
        low, high = own.halves
        for k, ct in enumerate(ordered):
            _split(ct[part, number, some], low[k], high[k])
        for ct, found in zip(outputs, matrix.times(low, high, prime), strict=True):
            ct[part, number, some] = found

    blocks = [
        (part, number, prime, start)
        for number, prime in enumerate(primes)
        for part in range(parts)
        for start in range(0, size, BLOCK)
    ]
    if threads == 1:
        for one in blocks:
            block(*one)
        return
    with ThreadPoolExecutor(threads) as pool:  # numpy and numba let go of Python's lock
        done = [pool.submit(block, *one) for one in blocks]
    for future in done:
        future.result()


def _split(words: Words, low: Halves, high: Halves) -> None:
    """Write the halves of residues (n,)."""
    if loops is not None:
        loops.split(words, low, high)
        return
    low[:] = words & np.uint64((1 << HALF_BITS) - 1)
    high[:] = words >> np.uint64(HALF_BITS)


def _join(low: Halves, high: Halves, prime: int, piece: Piece, total: Words) -> None:
    """Add low + high * 2^30 modulo a prime that `suits` to a piece's rows of residues."""
    if loops is None:
        found = total[piece.rows].view(np.int64) + _joined(low.astype(np.int64), high.astype(np.int64), prime)
        total[piece.rows] = _reduced(found, prime).view(np.uint64)
        return
    shift, over = np.int64(prime.bit_length() - HALF_BITS), np.int64(_over(prime))
    for k, row in enumerate(piece.rows):
        loops.join(low[k], high[k], np.int64(prime), over, shift, 1.0 / prime, total[row])


def _over(prime: int) -> int:
    """The power of two above a prime, modulo it, of least magnitude."""
    over = pow(2, prime.bit_length(), prime)
    return over - prime if over > prime // 2 else over


def _joined(low: Integers, high: Integers, prime: int) -> Integers:
    """low + high * 2^30 modulo a prime that `suits`, for sums below 2^53 in magnitude."""
    bits = prime.bit_length()
    top = high >> (bits - HALF_BITS)
    rest = (high & ((1 << (bits - HALF_BITS)) - 1)) << HALF_BITS
    return _reduced(top * _over(prime) + rest + low, prime)


def _reduced(values: Integers, prime: int) -> Integers:
    """Values below 2^63 in magnitude modulo a prime, from 0."""
    quotient = np.floor(values * (1.0 / prime)).astype(np.int64)  # off by one at most
    quotient *= prime
    left: Integers = values - quotient
    left += (left < 0) * np.int64(prime)
    left -= (left >= prime) * np.int64(prime)
    return left
