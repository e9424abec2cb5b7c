"""Residues in OpenFHE's bytes, without the library: what looks like a block is none."""

from __future__ import annotations

import struct

import numpy as np

from hefw.backends.openfhe.residues import split

N, PRIME, DECOY = 1024, 2048 * 5 * 10**5 + 1, 2**64 - 2048 * 3 + 1


def test_only_known_primes_end_a_block() -> None:
    """N stands before something else as well, and what lies N words behind it is 1 modulo 2N and large."""
    word = struct.Struct("<Q")
    residues = np.random.default_rng(0).integers(PRIME, size=N, dtype=np.uint64)
    true = word.pack(N) + residues.tobytes() + word.pack(PRIME)
    data = b"head" + word.pack(N) + bytes(8 * N) + word.pack(DECOY) + true + b"tail"
    assert split(data, N)[0].primes == (DECOY, PRIME), "it looks like a block"
    structure, (block,) = split(data, N, (PRIME,))
    assert structure.primes == (PRIME,)
    assert np.array_equal(block, residues)
    assert structure.fill([block]) == data
