"""Uniform residues from a seed: half of a key is sent as one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hefw.backends.packing import Residues

#: Of a seed. SHAKE-128 gives 128 bits of security.
SEED_BYTES = 32
#: Words beyond N that are drawn at first: of primes below 2^60 one in sixteen is refused at most.
SPARE = 64


def uniform(seed: bytes, primes: Mapping[int, int], size: int) -> NDArray[np.uint64]:
    """Residues (primes, size), each independent of the others: by a number of each prime, which its row depends on."""
    return np.stack([_row(seed + bytes([number]), prime, size) for number, prime in primes.items()])


def _row(seed: bytes, prime: int, size: int) -> Residues:
    """Words of 64 bits modulo the prime. Those from the largest multiple of it on are refused: none is more likely."""
    stream, count = hashlib.shake_128(seed), size + SPARE
    while True:
        words = np.frombuffer(stream.digest(8 * count), "<u8")
        taken = words[words < 2**64 // prime * prime]
        if len(taken) >= size:
            return np.asarray(taken[:size] % np.uint64(prime), np.uint64)
        count += count // 8
