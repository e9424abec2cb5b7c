"""Key switching and sums of products on residues in a library's own memory, in fewer and faster passes than its own.

A ciphertext's second part is decomposed once for all rotations of it (hoisting; Halevi and Shoup 2018): a rotation is
then a product with its key, a division by the special primes, and a permutation. Keys are kept turned back by their
rotation, so that nothing but the result is permuted. With several special primes a digit has as many primes of the
chain (hybrid key switching; Han and Ki 2020): there are fewer digits, and keys are smaller.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from hefw.backends.rns import abi, loops
from hefw.backends.rns.form import Form
from hefw.backends.rns.loops import Basis, Constants, Division, Job, Room, Tables, address
from hefw.backends.rns.tape import Rows, Section, Shape, Tape
from hefw.core.errors import transparent
from hefw.core.params import Resolved

Words = NDArray[np.uint64]
Order = NDArray[np.int64]
#: Writes the addresses of a section's weights.
Fill = Callable[[Section], None]
NO_KEYS, NOTHING = np.empty((0, abi.KEY_WORDS), np.uint64), np.empty((0, 0), np.uint64)


@dataclass(frozen=True, eq=False)
class Key:
    """A key to switch by, turned back by `order`.

    Residues are (primes, N / block, digits, 2, block): in the order in which they are read. Where all primes are small,
    a block is what loops work on at once, and residues are (primes, digits, N / block, 2, block).
    """

    residues: Words
    order: Order

    @cached_property
    def words(self) -> tuple[int, ...]:
        """Where both begin, and of how many primes, digits and words a block the residues are, as loops are told."""
        primes, block = len(self.residues), self.residues.shape[4]
        digits = self.residues.size // (primes * 2 * len(self.order))
        return address(self.residues), address(self.order), primes, digits, block


class Switching:
    """Operations under one set of parameters, on ciphertexts that are given by where their rows are (`loops.rows`)."""

    def __init__(self, params: Resolved) -> None:
        self._primes = (*params.primes, *params.special_primes)
        self._size = params.params.ring_dimension
        self._tables = tables(self._primes, self._size)
        self._special = len(params.special_primes)
        self.room = Room()
        self.threads = 1  # that share an operation
        self.centred = True  # digits: less noise than SEAL's own; False gives just what SEAL gives
        levels = range(len(params.primes))
        self._forms = [Form(params, level) for level in levels]
        down = self._division(len(params.primes), self._special)
        self._switches = [Constants(self._tables, self._basis(form), down) for form in self._forms]
        self._rescales = [self._rescaled(level) for level in levels]
        self._tapes: dict[Hashable, Tape] = {}

    def _division(self, first: int, count: int) -> Division:
        """By the product of so many primes from one on, of numbers modulo those before."""
        product = math.prod(self._primes[first : first + count])
        return Division(self._half(product), inverses(product, self._primes[:first]))

    def _half(self, product: int) -> Words:
        """Half of a product of primes modulo every prime."""
        return np.array([product // 2 % q for q in self._primes], np.uint64)

    def _basis(self, form: Form) -> Basis:
        """Of a ciphertext's second part."""
        halves = [self._half(math.prod(self._primes[k] for k in group)) for group in form.groups]
        return Basis(np.array(form.rows), np.stack(halves))

    def _rescaled(self, level: int) -> Constants:
        """For a division by a level's last prime; nothing is taken apart."""
        none = np.zeros((1, len(self._primes)), np.uint64)
        return Constants(self._tables, Basis(np.arange(level + 1), none), self._division(level, 1))

    def shape(self, level: int) -> Shape:
        """Of key switches of ciphertexts at a level."""
        return Shape(level + 1, self._special, len(self._forms[level].groups), self._size)

    def key(self, parts: Sequence[Words], rows: Sequence[int], element: int) -> Key:
        """A key from residues (2, primes, N) of each digit, those of some `rows` of the primes, for a Galois element.

        1 turns nothing.
        """
        small = max(self._primes) < 1 << abi.FAST_BITS and len(parts) <= abi.FAST_AT_ONCE[abi.fast()]
        block = abi.LANES if small else min(abi.BLOCK, self._size)
        blocks, count = self._size // block, len(parts)
        order_of = (count, blocks) if small else (blocks, count)
        held = loops.empty(len(rows), *order_of, 2, block)
        by_digit = held if small else held.swapaxes(1, 2)
        order = turned(element, self._size)
        back = np.empty_like(order)
        back[order] = np.arange(self._size)
        for number, digit in enumerate(parts):
            for part in range(2):
                for k, row in enumerate(rows):  # one by one: memory for more is new each time, which takes longer
                    by_digit[k, number, :, part] = digit[part, row].take(back).reshape(-1, block)
        return Key(held, order)

    def rotations(self, given: Rows, keys: Sequence[Key], outs: Sequence[Rows], more: bool = False) -> None:
        """Write a ciphertext turned by some rotations' keys (or a conjugation's), or add that to what is there."""
        count = len(keys)

        def write(tape: Tape) -> None:
            tape.turn(0, range(1, count + 1), range(count), more=more)

        self._turn(self._tape(write, given, 1 + count, "rotations", count, more), [given, *outs], keys)

    def relinearise(self, given: Rows, key: Key, out: Rows) -> None:
        """Write the two parts that stand for three."""

        def write(tape: Tape) -> None:
            tape.turn(0, [1], range(1), part=2, added=2)

        self._turn(self._tape(write, given, 2, "relinearise"), [given, out], [key])

    def fold(self, groups: Sequence[Sequence[Key]], out: Rows) -> None:
        """Add a ciphertext's rotations by each of some keys to it, with one division for all of them, and again those
        by others, and so on."""
        counts = [*itertools.accumulate(map(len, groups), initial=0)]

        def write(tape: Tape) -> None:
            for some in itertools.pairwise(counts):
                tape.add_turned(0, range(*some))

        keys = [*itertools.chain.from_iterable(groups)]
        self._turn(self._tape(write, out, 1, "fold", *counts), [out], keys)

    def square(self, given: Rows, out: Rows) -> None:
        """Write the square, of three parts, of a ciphertext of two."""
        tape = self._tape(lambda tape: tape.square(0, 1), given, 2, "square")
        self.execute(tape, tape.shape.table([given, out]), NO_KEYS, NOTHING)

    def squared(self, given: Rows, key: Key, out: Rows) -> None:
        """Write the square of a ciphertext, relinearised by a key: of two parts."""

        def write(tape: Tape) -> None:
            tape.square(0, 1)
            tape.turn(1, [2], range(1), part=2, added=2)

        three = loops.rows(self.room.array("square", abi.MOST_PARTS, given.shape[1], self._size))
        self._turn(self._tape(write, given, 3, "squared"), [given, three, out], [key])

    def rescale(self, given: Rows, out: Rows) -> None:
        """Divide a ciphertext of two parts by its last prime."""
        level = given.shape[1] - 1
        if ("rescale", level) not in self._tapes:
            tape = self._tapes["rescale", level] = Tape(Shape(level, 1, 1, self._size), 2)
            tape.divide(0, 1)
        tape = self._tapes["rescale", level]
        self._run(tape, self._rescales[level], tape.shape.table([given, out]), NO_KEYS, NOTHING)

    def sums(self, cts: Sequence[Rows], pts: Rows, starts: Sequence[int], outs: Sequence[Rows]) -> None:
        """Write sums of products of ciphertexts and plaintexts, whose rows are `pts` (products, primes), to `outs`.

        Output k is that of the products `starts[k]` to `starts[k + 1]`.
        """
        tape = Tape(self.shape(pts.shape[1] - 1), len(cts) + len(outs))
        tape.sum((range(*some), len(cts) + k) for k, some in enumerate(itertools.pairwise(starts)))
        self.execute(tape, tape.shape.table([*cts, *outs]), NO_KEYS, pts)

    def execute(self, tape: Tape, places: Rows, keys: Words, weights: Rows, fill: Fill | None = None) -> None:
        """Run a tape on ciphertexts (`Shape.table`), with keys as `Key.words` has them, and weights by their rows
        (products, primes).

        With `fill` these are written section by section, each before it is run. EncodingError if one of the tape's sums
        hides nothing.
        """
        found = self._switches[tape.shape.left - 1]
        if not self.centred:
            found = replace(found, basis=replace(found.basis, halves=np.zeros_like(found.basis.halves)))
        self._run(tape, found, places, keys, weights, fill)

    def _run(
        self,
        tape: Tape,
        constants: Constants,
        places: Rows,
        keys: Words,
        weights: Rows,
        fill: Fill | None = None,
    ) -> None:
        hides = np.zeros(tape.sums, np.uint64)
        for section in [tape.whole] if fill is None else tape.sections:
            if fill is not None:
                fill(section)
            loops.run(Job(tape, section, constants, places, keys, weights, hides, self.threads))
        if not hides.all():
            raise transparent()

    def _turn(self, tape: Tape, cts: Sequence[Rows], keys: Sequence[Key]) -> None:
        self.execute(tape, tape.shape.table(cts), np.array([key.words for key in keys], np.uint64), NOTHING)

    def _tape(self, write: Callable[[Tape], object], given: Rows, places: int, *name: Hashable) -> Tape:
        """One of so many places for a ciphertext's level: written when it is first wanted."""
        level = given.shape[1] - 1
        key = level, *name
        if key not in self._tapes:
            self._tapes[key] = Tape(self.shape(level), places)
            write(self._tapes[key])
        return self._tapes[key]

    def small(self, polynomial: Words, most: int) -> bool:
        """Whether all coefficients of a polynomial (level + 1, N) are at most so large."""
        return all((np.abs(coefficients(self._tables, k, row)) <= most).all() for k, row in enumerate(polynomial))


def coefficients(tables: Tables, k: int, row: Words) -> Order:
    """Those of a polynomial (N,) modulo prime number k, the nearest to 0."""
    constants, _, _, _, roots, quotients, ends, _ = tables.arrays
    found = row.copy()
    loops.backward(found, roots[k], quotients[k], ends[k], constants[k])
    prime = int(constants[k, abi.PRIME])
    return np.where(found > prime // 2, found.view(np.int64) - prime, found.view(np.int64))


def residues(tables: Tables, k: int, polynomial: Order) -> Words:
    """What a polynomial (N,) of coefficients below prime number k in magnitude is modulo it, transformed."""
    constants, roots, quotients, ends = tables.arrays[:4]
    prime = int(constants[k, abi.PRIME])
    found = np.where(polynomial < 0, polynomial + prime, polynomial).view(np.uint64)
    loops.forward(found, roots[k], quotients[k], ends[k], prime)
    return found


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
    """Powers of a root by prime, in the transform's order, with their quotients.

    Those of small primes are, for `doubles`, in the place of quotients as float64 between minus and plus half a prime.
    """

    def __init__(self, count: int, size: int) -> None:
        self._reverse = reversed_bits(size)
        self.roots, self.quotients = loops.empty(count, size), loops.empty(count, size)
        self.ends = loops.empty(count, 2 * size)  # roots of the last layers, in the order of use

    def fill(self, k: int, prime: int, root: int, constants: Words) -> None:
        """Those of prime number k."""
        size, small = len(self._reverse), prime < 1 << abi.FAST_BITS
        row = np.empty(size, np.uint64)
        loops.powers(root, (root << 64) // prime, constants, row)
        self.roots[k] = row[self._reverse]
        write_quotients(self.roots[k], prime, self.quotients[k])
        roots, quotients = self.roots[k], self.quotients[k]
        if small and abi.fast() == abi.IFMA:
            found = [*_last(roots, 3), *_last(quotients, 3)]
        elif small and abi.fast() == abi.FMA:
            centred = roots.astype(np.float64)
            centred[centred > prime // 2] -= prime
            quotients[...] = centred.view(np.uint64)
            found = _last(quotients, 2)
        else:
            found = [table[size // 2 + n :: 2] for n in range(2) for table in (roots, quotients)]
        ends = np.concatenate(found)
        self.ends[k, : len(ends)] = ends


def write_quotients(factors: Words, prime: int, out: Words) -> None:
    """factor * 2^64 // prime for each (`modular.times`)."""
    loops.quotients(factors, *divmod(2**128 // prime, 2**64), prime, out)


def _last(powers: Words, layers: int) -> list[Words]:
    """Powers that the last layers of a transform multiply by: a row for each of those of a block of 2^layers words."""
    blocks = len(powers) >> layers
    return [
        powers[blocks * many + at : 2 * blocks * many : many]
        for many in (1 << layer for layer in range(layers))
        for at in range(many)
    ]


def inverses(number: int, primes: Sequence[int]) -> Words:
    """The inverse of a number modulo each prime, and its quotient (`words.times`): (primes, 2)."""
    found = [pow(number, -1, q) for q in primes]
    return np.array([(x, (x << 64) // q) for x, q in zip(found, primes, strict=True)], np.uint64).reshape(-1, 2)


def least_root(prime: int, size: int) -> int:
    """The smallest primitive 2 * size-th root of unity modulo a prime: the one that libraries transform by."""
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
