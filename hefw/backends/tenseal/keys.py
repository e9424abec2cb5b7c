"""Evaluation keys in SEAL's memory, made of what was sent. With one special prime P they are SEAL's own."""

from __future__ import annotations

from typing import Any

import _sealapi_cpp as seal
import numpy as np

from hefw.backends import frames
from hefw.backends.rns.form import Form
from hefw.backends.rns.keys import Digit, read
from hefw.backends.seal import key_element, key_place
from hefw.backends.tenseal.context import Context, PublicFile
from hefw.core.errors import CapabilityError


class KeyLoaded:
    """A key for ciphertexts of up to a level, in SEAL's memory: `digits` are SEAL's public keys of its form."""

    def __init__(self, context: Context, name: str, payload: bytes, level: int, file: PublicFile) -> None:
        params = context.params
        self.level = level
        self.form = Form(params, level)
        self._context, self._name, self._payload, self._file = context, name, payload, file
        self._size = params.params.ring_dimension
        self._primes = (*params.primes, *params.special_primes)
        sent = self._read()
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
        sent = self._read()
        nothing = Digit([np.zeros(self._size, np.uint64)] * len(self.form.rows), sent[0].seed)
        sent += [nothing] * (len(self._context.params.primes) - len(sent))
        place = key_place(key_element(self._name, self._size))
        files = {place: [self._written(digit) for digit in sent]}
        relinearises = self._name == "relinearisation"
        places, made = (1, seal.RelinKeys()) if relinearises else (self._size, seal.GaloisKeys())
        return self._loaded(made, b"".join(frames.keys(self._primes, self._size, places, files, self._context.version)))

    def _read(self) -> list[Digit]:
        return read(self._name, key_element(self._name, self._size), self._payload, self._size, self.form)

    def _written(self, digit: Digit) -> bytes:
        rows = np.zeros((len(self._primes), self._size), np.uint64)
        for row, residues in zip(self.form.rows, digit.residues, strict=True):
            rows[row] = residues
        return frames.seeded_ciphertext(self._primes, self._size, rows.tobytes(), digit.seed, self._context.version)

    def _loaded(self, made: Any, data: bytes) -> Any:
        self._file.load(f"{self._name} key", lambda path: made.load(self._context.seal, path), data)
        return made
