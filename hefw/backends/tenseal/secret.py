"""What evaluation keys replace: the secret, turned or squared, times the special primes. It never leaves the client."""

from __future__ import annotations

import math
from typing import Any

import _sealapi_cpp as seal
import numpy as np
import zstandard
from numpy.typing import NDArray

from hefw.backends import frames
from hefw.backends.packing import Residues
from hefw.backends.rns.form import Form
from hefw.backends.rns.keys import Digit, written
from hefw.backends.rns.switching import turned
from hefw.backends.seal import RELINEARISATION, key_element
from hefw.backends.tenseal.context import Context, saved


class KeyMaker:
    """Makes evaluation keys of a secret key."""

    def __init__(self, context: Context, secret: Any) -> None:
        params, plain = context.params, secret.data()
        self._context = context
        self._size = params.params.ring_dimension
        self._primes = (*params.primes, *params.special_primes)
        self._encryptor = seal.Encryptor(context.seal, secret)
        count, special = len(params.primes), math.prod(params.special_primes)
        self._secret = np.array([plain[k] for k in range(count * self._size)], np.uint64).reshape(count, -1)
        rows = zip(self._secret, params.primes, strict=True)
        self._times_special = np.stack([_product(row, special % prime, prime) for row, prime in rows])

    def make(self, name: str, level: int) -> bytes:
        """One key's bytes, for ciphertexts of up to a level."""
        element, form = key_element(name, self._size), Form(self._context.params, level)
        if element == RELINEARISATION:
            rows = zip(self._times_special, self._secret, self._primes, strict=False)
            replaced = np.stack([_product(*row) for row in rows])
        else:
            replaced = self._times_special[:, turned(element, self._size)]
        return written(element, [self._digit(group, form, replaced) for group in form.groups], form)

    def _digit(self, group: range, form: Form, replaced: NDArray[np.uint64]) -> Digit:
        """An encryption of zero, plus the replaced secret, P times, modulo the primes of a group."""
        made = saved(self._encryptor.encrypt_zero_symmetric(self._context.seal.key_parms_id()).save)
        plain = zstandard.ZstdDecompressor().decompressobj().decompress(made[frames.HEADER_BYTES :])
        first, seed = frames.bare_seeded(made[: frames.HEADER_BYTES] + plain, len(self._primes), self._size)
        residues = np.frombuffer(first, np.uint64).reshape(len(self._primes), -1).copy()
        for row in group:
            residues[row] = (residues[row] + replaced[row]) % np.uint64(self._primes[row])
        return Digit([residues[row] for row in form.rows], seed)


def _product(a: Residues, b: Residues | int, prime: int) -> Residues:
    found = a.astype(object) * (b if isinstance(b, int) else b.astype(object)) % prime  # of 120 bits in between
    return found.astype(np.uint64)
