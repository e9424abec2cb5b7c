"""Residues in and out of OpenFHE's bytes.

OpenFHE's parser trusts what it reads: sizes, pointers, a whole context in front of each object. So nothing of that
comes from outside: only residues travel, and they are put into a structure that this process's own OpenFHE has made.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hefw.core.errors import EnvelopeError

Residues = NDArray[np.uint64]
_WORD = struct.Struct("<Q")
_SMALLEST_PRIME = 2**15


@dataclass(frozen=True)
class Structure:
    """A serialised object without its residues: the bytes before, between and after the blocks, and each's prime."""

    gaps: tuple[bytes, ...]  # one more than primes
    primes: tuple[int, ...]

    def fill(self, blocks: Sequence[Residues | None]) -> bytes:
        """OpenFHE's bytes with these residues, one block of (N,) a prime; of None it reads an empty vector."""
        pieces: list[bytes | memoryview] = [self.gaps[0]]
        for block, gap in zip(blocks, self.gaps[1:], strict=True):
            if block is None:
                pieces += [pieces.pop()[: -_WORD.size], _WORD.pack(0), gap]  # the number before the block is its length
            else:
                pieces += [block.data, gap]
        return b"".join(pieces)


def split(data: bytes, ring_dimension: int, known: Collection[int] | None = None) -> tuple[Structure, list[Residues]]:
    """What OpenFHE has serialised, taken apart: each block of N residues lies between their number and their prime.

    N also stands elsewhere, a little before some blocks, and what lies N words behind it looks like a prime once in a
    hundred thousand times: only `known` primes are taken, unless they are what is looked for (None).
    """
    marker, size = _WORD.pack(ring_dimension), 8 * ring_dimension
    gaps: list[bytes] = []
    primes: list[int] = []
    blocks: list[Residues] = []
    done = place = 0
    while True:
        place = data.find(marker, place)
        start, end = place + 8, place + 8 + size
        if place < 0 or end + 8 > len(data):
            return Structure((*gaps, data[done:]), tuple(primes)), blocks
        (prime,) = _WORD.unpack_from(data, end)
        block = np.frombuffer(data, np.uint64, ring_dimension, start)
        alike = prime > _SMALLEST_PRIME and prime % (2 * ring_dimension) == 1
        if alike and (known is None or prime in known) and block.max() < prime:
            gaps.append(data[done:start])
            primes.append(prime)
            blocks.append(block)
            done = place = end
        else:
            place += 1


def pack(blocks: Iterable[Residues], primes: Sequence[int]) -> bytes:
    """Residues, each in as many whole bytes as its prime needs: the length does not depend on the values."""
    return b"".join(
        block.view(np.uint8).reshape(-1, 8)[:, : width(prime)].tobytes()
        for block, prime in zip(blocks, primes, strict=True)
    )


def unpack(what: str, data: memoryview, primes: Sequence[int], ring_dimension: int) -> list[Residues]:
    """The inverse of `pack`; EnvelopeError if the length is another one, or a number is no residue of its prime."""
    expected = ring_dimension * sum(map(width, primes))
    if len(data) != expected:
        raise EnvelopeError(f"a {what} has {expected} bytes of residues here; {len(data)} were sent")
    blocks, place = [], 0
    for prime in primes:
        wide = width(prime)
        padded = np.zeros((ring_dimension, 8), np.uint8)
        padded[:, :wide] = np.frombuffer(data, np.uint8, ring_dimension * wide, place).reshape(-1, wide)
        residues = padded.view(np.uint64).reshape(-1)
        if residues.max() >= prime:
            raise EnvelopeError(f"not a {what}: it has numbers that are no residues modulo {prime}")
        blocks.append(residues)
        place += ring_dimension * wide
    return blocks


def width(prime: int) -> int:
    """Bytes that a residue takes."""
    return (prime.bit_length() + 7) // 8
