"""A matrix of constants times ciphertexts, as products of matrices of residues: for thousands of images at once.

Where a feature is a ciphertext, an affine region is one integer matrix (weights at their scale) times residues, modulo
each prime. A residue is split into two halves below 2^30 that float64 multiplies and adds exactly as long as the
absolute weights of a row add up to less than 2^23; what is more is split into several products. Inputs whose weights
are larger, for their scale is smaller, have them as multiples of a power of two.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hefw.backends.rns import loops
from hefw.backends.rns.tape import Rows
from hefw.backends.rns.threads import shared

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
    """Rows of the outputs that read a range of the inputs, in their order of `Matrix.order`.

    With `more` it is what an earlier piece of these rows has left to read. Weights are multiples of 2^`shift`.
    """

    rows: NDArray[np.int64]
    first: int
    weights: Halves  # (rows, inputs), integers
    more: bool
    shift: int


class Matrix:
    """An integer matrix (outputs, inputs) in pieces that leave out most zeros, each exact in float64.

    The weights on an input are times 2^`shifts` (inputs,) of it. OverflowError for weights that are too large.
    """

    def __init__(self, weights: Integers, shifts: Integers | None = None) -> None:
        outputs, inputs = weights.shape
        shifts = np.zeros(inputs, dtype=np.int64) if shifts is None else shifts
        reads = weights != 0
        # Rows that read the same inputs together, and the inputs in the order in which these rows come.
        patterns, begins, kind = np.unique(reads, axis=0, return_index=True, return_inverse=True)
        found = np.argsort(begins)
        patterns, kind = patterns[found], np.argsort(found)[kind.reshape(-1)]
        first = np.where(patterns.any(axis=0), patterns.argmax(axis=0), len(patterns))
        last = len(patterns) - patterns[::-1].argmax(axis=0)
        self.order = np.lexsort((np.arange(inputs), last, first, shifts))
        self.outputs = outputs
        ordered, shifts = weights[:, self.order], shifts[self.order]
        self.pieces = [
            piece
            for number in range(len(patterns))
            for piece in _pieces(np.flatnonzero(kind == number), ordered, shifts)
        ]

    def products(self, low: Halves, high: Halves) -> Iterator[tuple[Piece, Halves, Halves]]:
        """Each piece times the halves (inputs, n) of residues in `order`."""
        for piece in self.pieces:
            end = piece.first + piece.weights.shape[1]
            yield piece, piece.weights @ low[piece.first : end], piece.weights @ high[piece.first : end]


def _pieces(rows: NDArray[np.int64], weights: Integers, shifts: Integers) -> Iterator[Piece]:
    """Some rows of one pattern, cut where the shift changes."""
    read = np.flatnonzero(weights[rows[0]])
    more = False
    for shift in np.unique(shifts[read]).tolist():
        some = read[shifts[read] == shift]
        for piece in _cut(rows, weights, int(some[0]), int(some[-1]) + 1):
            yield replace(piece, more=more, shift=shift)
            more = True


def _cut(rows: NDArray[np.int64], weights: Integers, start: int, stop: int) -> Iterator[Piece]:
    """A range of some rows, cut where the absolute weights become too many for exact sums."""
    for _ in range(MOST_PIECES):
        heavy = np.abs(weights[rows, start:stop]).cumsum(axis=1).max(axis=0) >= MOST_WEIGHT
        end = start + (int(heavy.argmax()) if heavy.any() else stop - start)
        part = np.ascontiguousarray(weights[rows, start:end], dtype=np.float64)
        yield Piece(rows, start, part, False, 0)
        start = end
        if start == stop:
            return
    raise OverflowError("weights exceed what float64 adds exactly")


def suits(prime: int) -> bool:
    """Whether products modulo a prime are made here: it is of more than 30 bits, and just below a power of two."""
    bits = prime.bit_length()
    return HALF_BITS < bits <= 2 * HALF_BITS and abs(_over(prime)) < 1 << NEAR_BITS


def multiply(matrix: Matrix, inputs: Rows, outputs: Rows, primes: Sequence[int], size: int, threads: int) -> None:
    """Write the product of a matrix with ciphertexts, given and taken by where their rows of `size` residues are:
    (ciphertexts, parts, primes).

    Every row of the matrix reads something.
    """
    compiled = loops.missing() is None  # else numpy does it, in three times as long
    block = min(BLOCK, size)
    read, written = inputs[matrix.order].transpose(1, 2, 0).copy(), outputs.transpose(1, 2, 0).copy()
    blocks = [
        (part, number, start)
        for number in range(len(primes))
        for part in range(inputs.shape[1])
        for start in range(0, size, block)
    ]

    def some(first: int, last: int) -> None:
        low, high = np.empty((2, len(inputs), block))  # new ones for each block take as long as products
        for part, number, start in blocks[first:last]:
            prime, given, out = primes[number], read[part, number], written[part, number]
            if not compiled:
                _with_numpy(matrix, _words(given, start, block), _words(out, start, block), prime, low, high)
                continue
            shift, over = prime.bit_length() - HALF_BITS, _over(prime)
            loops.split(given, start, low, high)
            for piece, lows, highs in matrix.products(low, high):
                power = pow(2, piece.shift, prime)
                loops.join(lows, highs, prime, over, shift, power, out[piece.rows], start, piece.more)

    shared(threads, len(blocks), some)


def _words(addresses: Rows, start: int, count: int) -> list[Words]:
    """So many residues of each row, from one on."""
    return [np.ctypeslib.as_array((ctypes.c_uint64 * count).from_address(at + 8 * start)) for at in addresses.tolist()]


def _with_numpy(
    matrix: Matrix, inputs: Sequence[Words], outputs: Sequence[Words], prime: int, low: Halves, high: Halves
) -> None:
    """What the compiled loops do with a block of residues."""
    for k, words in enumerate(inputs):
        low[k] = words & np.uint64((1 << HALF_BITS) - 1)
        high[k] = words >> np.uint64(HALF_BITS)
    for piece, lows, highs in matrix.products(low, high):
        found = _joined(lows.astype(np.int64), highs.astype(np.int64), prime)
        for _ in range(piece.shift):
            found = _reduced(2 * found, prime)
        for row, residues in zip(piece.rows.tolist(), found, strict=True):
            taken = outputs[row]
            if piece.more:
                residues = _reduced(residues + taken.view(np.int64), prime)
            taken[...] = residues.view(np.uint64)


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
