"""SEAL's own file format, taken apart and put together: residues, and the frames around them.

A frame says parameters, sizes and scale. All of that is in hefw's envelope and in the parameters, so that residues
alone are sent, and each side puts its own frame around what it gets: SEAL's parser never sees a frame from outside.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence

Version = tuple[int, int]

RESIDUE_BYTES = 8
PYFHELS: Version = (4, 1)
CKKS = 2  # SEAL's number of the scheme
NTT_FORM = 1
_HEADER = struct.Struct("<HBBBBHQ")  # magic, its own size, version, compression (none), reserved, size of everything
_CIPHERTEXT = struct.Struct("<32sBQQQdQ")  # parameters, form, parts, N, primes, scale, BGV's correction factor
_COUNT = struct.Struct("<Q")
_PARAMETERS_BYTES = 32
HEADER_BYTES = _HEADER.size
FRAME_BYTES = 2 * _HEADER.size + _CIPHERTEXT.size + _COUNT.size


def residue_bytes(primes: int, ring_dimension: int, parts: int = 2) -> int:
    """Size of a ciphertext's residues."""
    return parts * primes * ring_dimension * RESIDUE_BYTES


def ciphertext(primes: Sequence[int], ring_dimension: int, scale: float, residues: bytes, parts: int = 2) -> bytes:
    """A file of a ciphertext."""
    return _frame(primes, ring_dimension, scale, parts) + residues


def bare_ciphertext(saved: bytes) -> bytes:
    """The residues of a ciphertext's file, of any number of parts."""
    return saved[FRAME_BYTES:]


def seeded_ciphertext(primes: Sequence[int], ring_dimension: int, first: bytes, seed: bytes, version: Version) -> bytes:
    """A file of a ciphertext at scale 1 whose second part is a seed: the first part's residues, then SEAL's own words
    for the seed."""
    return _frame(primes, ring_dimension, 1.0, held=1, after=len(seed), version=version) + first + seed


def bare_seeded(saved: bytes, primes: int, ring_dimension: int) -> tuple[bytes, bytes]:
    """The first part's residues, and the seed, of such a file."""
    end = FRAME_BYTES + residue_bytes(primes, ring_dimension, 1)
    return saved[FRAME_BYTES:end], saved[end:]


def keys(
    primes: Sequence[int],
    ring_dimension: int,
    places: int,
    found: Mapping[int, Sequence[bytes]],
    version: Version = PYFHELS,
) -> Iterator[bytes]:
    """A file of key-switching keys, in pieces: `found` maps a place (of so many places) to a key's digits.

    `primes` are the chain and the special prime. A key has a digit for each prime of the chain, and each digit is the
    file of a ciphertext under all primes at scale 1.
    """
    size = _HEADER.size + _PARAMETERS_BYTES + _COUNT.size * (1 + places)
    size += sum(len(digit) for digits in found.values() for digit in digits)
    yield _header(size, version) + _parameters(primes, ring_dimension) + _COUNT.pack(places)
    after = 0
    for place in sorted(found):
        yield bytes(_COUNT.size * (place - after)) + _COUNT.pack(len(found[place]))
        yield from found[place]
        after = place + 1
    yield bytes(_COUNT.size * (places - after))


def bare_key(saved: bytes, primes: Sequence[int], ring_dimension: int, place: int) -> bytes:
    """The residues of the one key of a file, at a place."""
    digit = residue_bytes(len(primes), ring_dimension)
    first = _HEADER.size + _PARAMETERS_BYTES + _COUNT.size * (2 + place)
    starts = (first + k * (FRAME_BYTES + digit) + FRAME_BYTES for k in range(len(primes) - 1))
    return b"".join(saved[start : start + digit] for start in starts)


def _frame(
    primes: Sequence[int],
    ring_dimension: int,
    scale: float,
    parts: int = 2,
    *,
    held: int | None = None,
    after: int = 0,
    version: Version = PYFHELS,
) -> bytes:
    """Of a ciphertext of so many parts, all of which are `held` by it unless fewer are; so many bytes come after."""
    size = residue_bytes(len(primes), ring_dimension, parts if held is None else held)
    parameters = _parameters(primes, ring_dimension)
    return (
        _header(FRAME_BYTES + size + after, version)
        + _CIPHERTEXT.pack(parameters, NTT_FORM, parts, ring_dimension, len(primes), scale, 1)
        + _header(_HEADER.size + _COUNT.size + size, version)
        + _COUNT.pack(size // RESIDUE_BYTES)
    )


def version(saved: bytes) -> Version:
    """Of the SEAL that wrote a file: it reads no other."""
    _, _, *found, _, _, _ = _HEADER.unpack_from(saved)
    return found[0], found[1]


def _header(size: int, version: Version) -> bytes:
    return _HEADER.pack(0xA15E, _HEADER.size, *version, 0, 0, size)


def _parameters(primes: Sequence[int], ring_dimension: int) -> bytes:
    """SEAL's id of a level: a hash of scheme, ring dimension, primes and BFV's plain modulus (0 here)."""
    fields = struct.pack(f"<{len(primes) + 3}Q", CKKS, ring_dimension, *primes, 0)
    return hashlib.blake2b(fields, digest_size=_PARAMETERS_BYTES).digest()
