"""Evaluation keys as they are sent: of each digit a seed, and residues of those primes that ciphertexts meet.

A digit is an encryption of zero, to whose residues modulo the digit's primes the replaced secret is added, P times.
With several special primes P each digit has as many primes of the chain. Its other part is uniform: the seed's.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hefw.backends.packing import Residues, pack, unpack, width
from hefw.backends.rns.form import Form
from hefw.backends.rns.uniform import uniform
from hefw.core.errors import EnvelopeError

ELEMENT = struct.Struct(">I")  # which key it is
MOST_SEED = 1024  # bytes


@dataclass(frozen=True, eq=False)
class Digit:
    """One digit of a key, as it is sent: residues of the rows of its form, and the seed of its other part."""

    residues: Sequence[Residues]
    seed: bytes


def written(element: int, digits: Sequence[Digit], form: Form) -> bytes:
    """A key's bytes, of a length that depends on its form only. `element` is the library's number for it."""
    return ELEMENT.pack(element) + b"".join(digit.seed + pack(digit.residues, form.primes) for digit in digits)


def read(name: str, element: int, payload: bytes, size: int, form: Form) -> list[Digit]:
    """What `written` made; EnvelopeError if it is another key's, or of another form."""
    if len(payload) < ELEMENT.size or ELEMENT.unpack_from(payload) != (element,):
        raise EnvelopeError(f"the bytes sent as {name!r} hold another key")
    each, rest = divmod(len(payload) - ELEMENT.size, len(form.groups))
    seed = each - size * sum(map(width, form.primes))
    if rest or not 0 < seed <= MOST_SEED:
        raise EnvelopeError(f"a key of {len(form.groups)} digits has another length than {len(payload)} bytes")
    found = []
    for start in range(ELEMENT.size, len(payload), each):
        residues = memoryview(payload)[start + seed : start + each]
        found.append(Digit(unpack(f"{name} key", residues, form.primes, size), payload[start : start + seed]))
    return found


def second_part(seed: bytes, form: Form, size: int) -> NDArray[np.uint64]:
    """The uniform part of a digit that hefw made: (rows, N)."""
    return uniform(seed, dict(zip(form.rows, form.primes, strict=True)), size)
