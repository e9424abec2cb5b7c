"""Residues as bytes: in as many whole bytes as their primes need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from hefw.core.errors import EnvelopeError

Residues = NDArray[np.uint64]


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
