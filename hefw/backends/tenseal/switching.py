"""Key switching and sums of products on residues in SEAL's own memory, in fewer and faster passes than SEAL's.

A ciphertext's second part is decomposed once for all rotations of it (hoisting; Halevi and Shoup 2018): a rotation is
then a product with its key, a division by the special primes, and a permutation. Keys are kept turned back by their
rotation, so that nothing but the result is permuted. With several special primes a digit has as many primes of the
chain (hybrid key switching; Han and Ki 2020), which SEAL does not do: there are fewer digits, and keys are smaller.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from hefw.backends.tenseal import abi, loops
from hefw.backends.tenseal.loops import Division, Room, Tables
from hefw.core.params import Resolved

Words = NDArray[np.uint64]
Order = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Key:
    """A key to switch by, turned back by `order`.

    Residues are (primes, N / block, digits, 2, block): in the order in which they are read.
    """

    residues: Words
    order: Order


@dataclass(frozen=True, eq=False)
class Decomposed:
    """A ciphertext (2, level + 1, N) and the digits (digits, rows, N) of its second part, modulo the primes of `rows`:
    its own, then the special ones."""

    residues: Words
    digits: Words
    rows: Order


class Switching:
    """Operations under one set of parameters."""

    def __init__(self, params: Resolved) -> None:
        self._primes = (*params.primes, *params.special_primes)
        self._size = params.params.ring_dimension
        self._tables = tables(self._primes, self._size)
        self._constants = self._tables.constants
        self._special = len(params.special_primes)
        self._room = Room()
        self.threads = 1  # that share a loop
        self.centred = True  # digits: less noise than SEAL's own; False gives just what SEAL gives
        self._starts = [
            np.array([*range(0, level + 1, self._special), level + 1]) for level in range(len(params.primes))
        ]
        self._down = self._division(len(params.primes), self._special)
        self._rescales = [self._division(level, 1) for level in range(len(params.primes))]

    def _division(self, first: int, count: int) -> Division:
        """By the product of so many primes from one on, of numbers modulo those before."""
        product = math.prod(self._primes[first : first + count])
        return Division(count, self._half(product), inverses(product, self._primes[:first]))

    def _half(self, product: int) -> Words:
        """Half of a product of primes modulo every prime."""
        return np.array([product // 2 % q for q in self._primes], np.uint64)

    @cached_property
    def _halves(self) -> list[Words]:
        """By level, half of each digit's primes: (digits, primes)."""
        return [
            np.stack([self._half(math.prod(self._primes[a:b])) for a, b in itertools.pairwise(starts.tolist())])
            for starts in self._starts
        ]

    def key(self, parts: Sequence[Words], rows: Sequence[int], element: int) -> Key:
        """A key from SEAL's residues (2, all primes, N) of each digit, by the primes of `rows`, for a Galois element.

        1 turns nothing.
        """
        block = min(abi.BLOCK, self._size)
        held = np.empty((len(rows), self._size // block, len(parts), 2, block), np.uint64)
        order = turned(element, self._size)
        back = np.empty_like(order)
        back[order] = np.arange(self._size)
        for number, digit in enumerate(parts):
            for part in range(2):
                for k, row in enumerate(rows):  # one by one: memory for more is new each time, which takes longer
                    held[k, :, number, part] = digit[part, row].take(back).reshape(-1, block)
        return Key(held, order)

    def decompose(self, residues: Words, polynomial: Words | None = None) -> Decomposed:
        """A ciphertext (2, level + 1, N) with the digits of a polynomial (level + 1, N): of its second part if None.

        They are valid in this thread until the next one is taken apart.
        """
        part = residues[1] if polynomial is None else polynomial
        starts, halves = self._starts[len(part) - 1], self._halves[len(part) - 1]
        rows = np.append(np.arange(len(part)), np.arange(len(self._primes) - self._special, len(self._primes)))
        digits = self._room.array("digits", len(halves), len(rows), self._size)
        halves = halves if self.centred else np.zeros_like(halves)
        loops.decompose(part, self._tables, rows, starts, halves, digits, self.threads)
        return Decomposed(residues, digits, rows)

    def rotate(self, of: Decomposed, key: Key, out: Words) -> None:
        """Write the ciphertext turned by a rotation's key (or a conjugation's)."""
        self._switch(of, key, 1, out)

    def rotations_added(self, of: Decomposed, keys: Sequence[Key], out: Words) -> None:
        """Write the ciphertext plus all its rotations by some keys, with one division for all of them."""
        out[...] = of.residues
        total = self._room.array("total", 2, len(of.rows), self._size)
        total[...] = 0
        digits, rows, given, special = of.digits, of.rows, of.residues[0], self._special
        for key in keys:
            held, order = self._constants, key.order
            loops.accumulated(digits, key.residues, rows, special, held, given, order, total, out[0], self.threads)
        loops.folded(total, rows, self._tables, self._down, out, self.threads)

    def relinearise(self, residues: Words, key: Key, out: Words) -> None:
        """Write the two parts (2, level + 1, N) that stand for three (3, level + 1, N)."""
        self._switch(self.decompose(residues[:2], residues[2]), key, 2, out)

    def square(self, residues: Words, out: Words) -> None:
        """Write the square (3, level + 1, N) of a ciphertext (2, level + 1, N)."""
        loops.square(residues, self._constants, out, self.threads)

    def rescale(self, residues: Words, out: Words) -> None:
        """Divide each part of a ciphertext (parts, level + 1, N) by its last prime: out (parts, level, N)."""
        rows = np.arange(residues.shape[1])
        loops.rescaled(residues, rows, self._tables, self._rescales[len(rows) - 1], out, self.threads)

    def sums(self, products: Sequence[Sequence[tuple[int, int]]], outs: Sequence[int], primes: int) -> None:
        """Write sums of products of (ciphertext, plaintext) to `outs`: all are the addresses of residues."""
        flat = np.array([pair for some in products for pair in some], dtype=np.uint64)
        starts = np.cumsum([0, *map(len, products)])
        loops.sums(
            np.ascontiguousarray(flat[:, 0]),
            np.ascontiguousarray(flat[:, 1]),
            starts,
            np.array(outs, dtype=np.uint64),
            primes,
            self._size,
            self._constants,
            self.threads,
        )

    def small(self, polynomial: Words, most: int) -> bool:
        """Whether all coefficients of a polynomial (level + 1, N) are at most so large."""
        constants, _, _, _, roots, quotients, ends, _ = self._tables.arrays
        for k, row in enumerate(polynomial.copy()):
            loops.backward(row, roots[k], quotients[k], ends[k], constants[k])
            if (np.minimum(row, np.uint64(self._primes[k]) - row) > most).any():
                return False
        return True

    def _switch(self, of: Decomposed, key: Key, added: int, out: Words) -> None:
        """Write a key switch of the digits plus the first `added` parts of the ciphertext, turned."""
        by, given, tables = self._down, of.residues, self._tables
        loops.switched(of.digits, key.residues, of.rows, tables, by, given, added, key.order, out, self.threads)


def suits(params: Resolved) -> bool:
    """Whether the loops take these primes."""
    return all(q.bit_length() <= abi.MOST_BITS for q in (*params.primes, *params.special_primes))


@lru_cache(maxsize=8)
def tables(primes: tuple[int, ...], size: int) -> Tables:
    """Constants and roots of unity of each prime, the special ones last, and what pairs of primes have."""
    count = len(primes)
    constants = np.zeros((count, abi.COLUMNS), np.uint64)
    straight, back = _Roots(count, size), _Roots(count, size)
    for k, q in enumerate(primes):
        constants[k, abi.PRIME] = q
        constants[k, abi.ONE] = 2**64 // q
        for column, value in ((abi.WORD, 2**60 % q), (abi.SIZE, pow(size, -1, q)), (abi.NEAR, 2**52 % q)):
            constants[k, column], constants[k, column + 1] = value, (value << 64) // q
        root = least_root(q, size)
        straight.fill(k, q, root, constants[k])
        back.fill(k, q, pow(root, -1, q), constants[k])
    powers = (array for roots in (straight, back) for array in (roots.roots, roots.quotients, roots.ends))
    return Tables([constants, *powers, _pairs(primes)])


def _pairs(primes: Sequence[int]) -> Words:
    """Each prime modulo each other, and its inverse, with their quotients: (primes, primes, abi.PAIRS)."""
    found = np.zeros((len(primes), len(primes), abi.PAIRS), np.uint64)
    for (i, p), (k, q) in itertools.permutations(enumerate(primes), 2):
        for column, value in ((abi.MODULO, p % q), (abi.INVERSE, pow(p, -1, q))):
            found[i, k, column], found[i, k, column + 1] = value, (value << 64) // q
    return found


class _Roots:
    """Powers of a root by prime, in the transform's order, with their quotients."""

    def __init__(self, count: int, size: int) -> None:
        self._reverse = reversed_bits(size)
        self.roots, self.quotients = np.empty((count, size), np.uint64), np.empty((count, size), np.uint64)
        self.ends = np.empty((count, 2 * size), np.uint64)  # roots of the last layers, in the order of use

    def fill(self, k: int, prime: int, root: int, constants: Words) -> None:
        """Those of prime number k."""
        size, blocks = len(self._reverse), len(self._reverse) // 8
        row = np.empty(size, np.uint64)
        loops.powers(root, (root << 64) // prime, constants, row)
        self.roots[k] = row[self._reverse]
        high, low = divmod(2**128 // prime, 2**64)
        loops.quotients(self.roots[k], high, low, prime, self.quotients[k])
        roots, quotients = self.roots[k], self.quotients[k]
        if abi.fast() and prime < 1 << abi.FAST_BITS:  # three layers, a row for each of a block's seven roots
            rows = [(blocks * many + at, 2 * blocks * many, many) for many in (1, 2, 4) for at in range(many)]
            found = [table[slice(*row)] for table in (roots, quotients) for row in rows]
        else:
            found = [table[size // 2 + n :: 2] for n in range(2) for table in (roots, quotients)]
        ends = np.concatenate(found)
        self.ends[k, : len(ends)] = ends


def inverses(number: int, primes: Sequence[int]) -> Words:
    """The inverse of a number modulo each prime, and its quotient (`words.times`): (primes, 2)."""
    found = [pow(number, -1, q) for q in primes]
    return np.array([(x, (x << 64) // q) for x, q in zip(found, primes, strict=True)], np.uint64).reshape(-1, 2)


def least_root(prime: int, size: int) -> int:
    """The smallest primitive 2 * size-th root of unity modulo a prime: the one that SEAL transforms by."""
    root = next(
        found
        for base in range(2, prime)
        if pow(found := pow(base, (prime - 1) // (2 * size), prime), size, prime) == prime - 1
    )
    square = root * root % prime
    least = root
    for _ in range(size):
        root = root * square % prime
        least = min(least, root)
    return least


def reversed_bits(size: int) -> Order:
    """0 to size - 1, a power of two, with their bits in reverse order."""
    found = np.zeros(1, dtype=np.int64)
    while len(found) < size:
        found = np.concatenate([2 * found, 2 * found + 1])
    return found


def turned(element: int, size: int) -> Order:
    """Where each residue of a polynomial at X^element comes from, in the transform's order: (N,)."""
    reverse = reversed_bits(size)
    return reverse[((2 * reverse + 1) * element % (2 * size) - 1) // 2]
