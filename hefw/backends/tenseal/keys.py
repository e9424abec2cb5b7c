"""Evaluation keys as they are sent: of each digit a seed, and residues of those primes that ciphertexts meet.

A digit is an encryption of zero by SEAL, to whose residues modulo the digit's primes the replaced secret is added, P
times. With one special prime P that is SEAL's own key; with several, each digit has as many primes of the chain.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import _sealapi_cpp as seal
import numpy as np

from hefw.backends import frames
from hefw.backends.packing import Residues, pack, unpack, width
from hefw.backends.seal import key_element, key_place
from hefw.backends.tenseal.context import Context, PublicFile
from hefw.backends.tenseal.form import Form
from hefw.core.errors import CapabilityError, EnvelopeError
from hefw.core.params import Resolved

ELEMENT = struct.Struct(">I")  # which key it is
MOST_SEED = 1024  # bytes


class Digit:
    """One digit of a key, as it is sent: residues of the rows of its form, and SEAL's seed of its other part."""

    def __init__(self, residues: Sequence[Residues], seed: bytes) -> None:
        self.residues = residues
        self.seed = seed


def written(element: int, digits: Sequence[Digit], form: Form) -> bytes:
    """A key's bytes, of a length that depends on its form only."""
    return ELEMENT.pack(element) + b"".join(digit.seed + pack(digit.residues, form.primes) for digit in digits)


def read(name: str, payload: bytes, params: Resolved, form: Form) -> list[Digit]:
    """What `written` made; EnvelopeError if it is another key's, or of another form."""
    size = params.params.ring_dimension
    if len(payload) < ELEMENT.size or ELEMENT.unpack_from(payload) != (key_element(name, size),):
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


class KeyLoaded:
    """A key for ciphertexts of up to a level, in SEAL's memory: `digits` are SEAL's public keys of its form."""

    def __init__(self, context: Context, name: str, payload: bytes, level: int, file: PublicFile) -> None:
        params = context.params
        self.level = level
        self.form = Form(params, level)
        self._context, self._name, self._payload, self._file = context, name, payload, file
        self._size = params.params.ring_dimension
        self._primes = (*params.primes, *params.special_primes)
        sent = read(name, payload, params, self.form)
        self.digits = [self._loaded(seal.PublicKey(), self._written(digit)) for digit in sent]

    @property
    def for_seal(self) -> bool:
        """Whether SEAL's own calls can use it: digits of one prime each."""
        return len(self._context.params.special_primes) == 1

    def whole(self) -> Any:
        """As SEAL's own calls use it: with zeros modulo primes that it does not meet, and for digits."""
        if not self.for_seal:
            raise CapabilityError(
                f"{len(self._context.params.special_primes)} special primes need hefw's own loops on SEAL's memory, "
                "which this process cannot use; set special_bits to one prime"
            )
        sent = read(self._name, self._payload, self._context.params, self.form)
        nothing = Digit([np.zeros(self._size, np.uint64)] * len(self.form.rows), sent[0].seed)
        sent += [nothing] * (len(self._context.params.primes) - len(sent))
        place = key_place(key_element(self._name, self._size))
        files = {place: [self._written(digit) for digit in sent]}
        relinearises = self._name == "relinearisation"
        places, made = (1, seal.RelinKeys()) if relinearises else (self._size, seal.GaloisKeys())
        return self._loaded(made, b"".join(frames.keys(self._primes, self._size, places, files, self._context.version)))

    def _written(self, digit: Digit) -> bytes:
        rows = np.zeros((len(self._primes), self._size), np.uint64)
        for row, residues in zip(self.form.rows, digit.residues, strict=True):
            rows[row] = residues
        return frames.seeded_ciphertext(self._primes, self._size, rows.tobytes(), digit.seed, self._context.version)

    def _loaded(self, made: Any, data: bytes) -> Any:
        self._file.load(f"{self._name} key", lambda path: made.load(self._context.seal, path), data)
        return made
