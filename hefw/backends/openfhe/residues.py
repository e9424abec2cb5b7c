"""Residues in and out of OpenFHE's bytes.

OpenFHE's parser trusts what it reads: sizes, pointers, a whole context in front of each object. So nothing of that
comes from outside: only residues travel, and they are put into a structure that this process's own OpenFHE has made.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from hefw.backends.packing import Residues

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
