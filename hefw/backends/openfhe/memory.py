"""Where OpenFHE keeps the residues of its ciphertexts and plaintexts: not told by the binding, and found by looking.

A ciphertext has a vector of polynomials, one of these a vector of residue polynomials, one of these a pointer to a
vector of words. How large these objects are and where in them the next begins is found with a ciphertext whose residues
its serialised form tells, and used only if OpenFHE goes on with what is written there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from hefw.backends.openfhe.library import openfhe
from hefw.backends.openfhe.residues import split
from hefw.backends.packing import Residues
from hefw.backends.rns.memory import Memory
from hefw.backends.rns.objects import LARGEST_ADDRESS, WORD, Reader, behind, reader, word, words
from hefw.backends.rns.tape import Rows
from hefw.core.backend import Ciphertext

if TYPE_CHECKING:
    from hefw.backends.openfhe.context import Context

#: How far into an object something is looked for, and how large an element of a vector may be, in bytes.
FURTHEST, LARGEST = 512, 4096
#: Words by which residues are recognised.
TOLD = 8
#: Of the context that it is tried with.
RING_DIMENSION, LEVELS = 1024, 2
HIDDEN = "this build of OpenFHE keeps its residues where hefw does not find them"


@dataclass(frozen=True)
class Polynomials:
    """How residues of a polynomial are reached from where it is: offsets, and the size of a residue polynomial."""

    vector: int
    size: int
    pointer: int
    data: int

    def rows(self, polynomial: int) -> list[int]:
        """Where each begins."""
        first, end = word(polynomial + self.vector), word(polynomial + self.vector + WORD.size)
        table = words(first, ((end - first) // self.size, self.size // WORD.size))
        return [word(at + self.data) for at in table[:, self.pointer // WORD.size].tolist()]


@dataclass(frozen=True)
class Layout:
    """Of OpenFHE's objects: where a ciphertext's vector of polynomials is, their size, and a plaintext's polynomial."""

    polynomials: Polynomials
    vector: int
    size: int
    plain: int

    def ciphertext(self, handle: Any) -> list[list[int]]:
        """Where the residues of each part begin, by prime."""
        place = behind(handle) + self.vector
        first, end = word(place), word(place + WORD.size)
        return [self.polynomials.rows(polynomial) for polynomial in range(first, end, self.size)]

    def plaintext(self, handle: Any) -> list[int]:
        """Where residues begin, by prime."""
        return self.polynomials.rows(behind(handle) + self.plain)


class OpenfheMemory(Memory):
    """Of the objects of one context."""

    def __init__(self, context: Context, layout: Layout) -> None:
        self._context = context
        self._layout = layout

    def usable(self, example: Ciphertext) -> bool:
        """Always: it was tried when the parameters were resolved."""
        return True

    def rows(self, handle: Any) -> Rows:
        """Those of a ciphertext: (parts, level + 1)."""
        return np.array(self._layout.ciphertext(handle), np.uint64)

    def plain_rows(self, handle: Any, level: int) -> Rows:
        """Those of a plaintext, of this level or a higher one: (level + 1,)."""
        if isinstance(handle, Number):
            return handle.rows(self._context, level)
        return np.array(self._layout.plaintext(handle)[: level + 1], np.uint64)

    def blank(self, level: int, parts: int = 2) -> Any:
        """A ciphertext, whose residues the caller writes."""
        return self._context.blank(level, parts)


class Number:
    """One integer for all slots: OpenFHE's constants, and their residues where loops want them."""

    def __init__(self, value: int) -> None:
        self.value = value
        self._residues: Residues | None = None

    def rows(self, context: Context, level: int) -> Rows:
        """Where its residues begin, by prime: (level + 1,)."""
        if self._residues is None or len(self._residues) <= level:
            primes = context.params.primes[: level + 1]
            self._residues = np.empty((len(primes), context.ring_dimension), np.uint64)
            self._residues[:] = np.array([self.value % prime for prime in primes], np.uint64)[:, None]
        step = np.uint64(self._residues.strides[0])
        return np.arange(level + 1, dtype=np.uint64) * step + np.uint64(self._residues.ctypes.data)


@cache
def layout() -> Layout | None:
    """Of this build of OpenFHE; None where it is not found, or OpenFHE does not go on with what is written there."""
    made = _context()
    secret = made.KeyGen().secretKey
    slots = np.arange(RING_DIMENSION // 2) / RING_DIMENSION
    plaintexts = [made.MakeCKKSPackedPlaintext(slots + k) for k in range(2)]
    ct = made.Encrypt(secret, plaintexts[0])
    try:
        with reader() as memory:
            found = next(_layouts(memory, made, ct, plaintexts[0]), None)
    except OSError:
        return None  # no /proc
    return found if found is not None and _passes(found, made, ct, plaintexts) else None


def _context() -> Any:
    asked = openfhe.CCParamsCKKSRNS()
    asked.SetRingDim(RING_DIMENSION)
    asked.SetMultiplicativeDepth(LEVELS)
    asked.SetFirstModSize(40)
    asked.SetScalingModSize(35)
    asked.SetScalingTechnique(openfhe.FIXEDMANUAL)
    asked.SetKeySwitchTechnique(openfhe.BV)
    asked.SetSecurityLevel(openfhe.HEStd_NotSet)
    made = openfhe.GenCryptoContext(asked)
    for feature in (openfhe.PKE, openfhe.KEYSWITCH, openfhe.LEVELEDSHE):
        made.Enable(feature)
    return made


def _blocks(handle: Any) -> list[Residues]:
    _, blocks = split(openfhe.Serialize(handle, openfhe.BINARY), RING_DIMENSION)
    return blocks


def _layouts(memory: Reader, made: Any, ct: Any, plaintext: Any) -> Iterator[Layout]:
    """All by which the first residues of a ciphertext and of a plaintext are reached."""
    structure, (given, *_) = split(openfhe.Serialize(ct, openfhe.BINARY), RING_DIMENSION)
    prime = np.uint64(structure.primes[0])
    # A plaintext is what it adds to a ciphertext.
    added = (_blocks(made.EvalAdd(ct, plaintext))[0] + prime - given) % prime
    told, told_plain = (row[:TOLD].tobytes() for row in (given, added))
    for vector, first, size in _vectors(memory, behind(ct), FURTHEST, 2):
        for polynomials in _polynomials(memory, first, size, told):
            for plain in range(0, FURTHEST, WORD.size):
                if polynomials in _polynomials(memory, behind(plaintext) + plain, size, told_plain):
                    yield Layout(polynomials, vector, size, plain)


def _vectors(memory: Reader, address: int, size: int, count: int) -> Iterator[tuple[int, int, int]]:
    """What may be a vector of so many elements in an object: its offset, where they begin, and the size of each."""
    found = memory.words_at(address, size)
    for k, (first, end, room) in enumerate(zip(found, found[1:], found[2:], strict=False)):
        each, rest = divmod(end - first, count)
        if 0 < first < end <= room < LARGEST_ADDRESS and not rest and WORD.size <= each <= LARGEST:
            yield WORD.size * k, first, each


def _polynomials(memory: Reader, address: int, size: int, told: bytes) -> Iterator[Polynomials]:
    """All by which the first residues of the polynomial there are these."""
    for vector, first, each in _vectors(memory, address, size, LEVELS + 1):
        for k, at in enumerate(memory.words_at(first, each)):
            for n, data in enumerate(memory.words_at(at, 64)):
                if memory.bytes_at(data, len(told)) == told:
                    yield Polynomials(vector, each, WORD.size * k, WORD.size * n)


def _passes(found: Layout, made: Any, ct: Any, plaintexts: list[Any]) -> bool:
    """Whether residues are what is serialised, and OpenFHE goes on with others that are written there."""
    structure, blocks = split(openfhe.Serialize(ct, openfhe.BINARY), RING_DIMENSION)
    rows = [at for part in found.ciphertext(ct) for at in part]
    if not _are(rows, blocks):
        return False
    twice = made.EvalAdd(ct, ct)
    wanted = _blocks(made.EvalAdd(twice, twice))
    changed = ct.Clone()
    for at, prime in zip([at for part in found.ciphertext(changed) for at in part], structure.primes, strict=True):
        row = words(at, (RING_DIMENSION,))
        row[:] = 2 * row % np.uint64(prime)
    again = _blocks(made.EvalAdd(changed, changed))
    product = _blocks(made.EvalMult(ct, plaintexts[1]))
    for at, other in zip(found.plaintext(plaintexts[0]), found.plaintext(plaintexts[1]), strict=True):
        words(at, (RING_DIMENSION,))[:] = words(other, (RING_DIMENSION,))
    same = _blocks(made.EvalMult(ct, plaintexts[0]))
    return _equal(again, wanted) and _equal(same, product) and _are(rows, blocks)


def _are(rows: list[int], blocks: list[Residues]) -> bool:
    return _equal([words(at, (RING_DIMENSION,)) for at in rows], blocks)


def _equal(some: list[Residues], others: list[Residues]) -> bool:
    return len(some) == len(others) and all(map(np.array_equal, some, others))
