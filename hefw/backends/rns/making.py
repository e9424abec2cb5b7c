"""Evaluation keys made by hefw, of a library's secret and errors. What they replace never leaves the client."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hefw.backends.packing import Residues
from hefw.backends.rns import loops
from hefw.backends.rns.form import Form
from hefw.backends.rns.keys import Digit, second_part
from hefw.backends.rns.switching import coefficients, residues, tables, turned, write_quotients
from hefw.backends.rns.uniform import SEED_BYTES
from hefw.core.params import Resolved

#: A fresh error polynomial (N,), small, as the library draws it.
Errors = Callable[[], NDArray[np.int64]]


class Maker:
    """Makes the digits of evaluation keys of a secret, which is given by its residues (N,) modulo the first prime."""

    def __init__(self, params: Resolved, secret: Residues, errors: Errors) -> None:
        self._params, self._errors = params, errors
        self._primes = (*params.primes, *params.special_primes)
        self._size = params.params.ring_dimension
        self._tables = tables(self._primes, self._size)
        plain = coefficients(self._tables, 0, secret)
        self._secret = np.stack([residues(self._tables, k, plain) for k in range(len(self._primes))])
        self._quotients = np.empty_like(self._secret)
        for k, prime in enumerate(self._primes):
            write_quotients(self._secret[k], prime, self._quotients[k])

    def turned(self, element: int, level: int) -> list[Digit]:
        """Of the secret by a Galois element, for ciphertexts of up to a level."""
        return self._made(self._secret.take(turned(element, self._size), axis=1), level)

    def squared(self, level: int) -> list[Digit]:
        """Of the secret times itself."""
        return self._made(np.stack([self.times_secret(row, k) for k, row in enumerate(self._secret)]), level)

    def coefficients(self, residues: Residues) -> NDArray[np.int64]:
        """Of a polynomial that is given modulo the first prime, the nearest to 0."""
        return coefficients(self._tables, 0, residues)

    def times_secret(self, values: Residues, k: int = 0) -> Residues:
        """Residues (N,) modulo prime number k times the secret's."""
        found = np.empty_like(values)
        loops.multiply(values, self._secret[k], self._quotients[k], self._primes[k], found)
        return found

    def _made(self, replaced: NDArray[np.uint64], level: int) -> list[Digit]:
        form, special = Form(self._params, level), math.prod(self._params.special_primes)
        return [self._digit(group, form, replaced, special) for group in form.groups]

    def _digit(self, group: range, form: Form, replaced: NDArray[np.uint64], special: int) -> Digit:
        seed, error = secrets.token_bytes(SEED_BYTES), self._errors()
        found = []
        for row, second in zip(form.rows, second_part(seed, form, self._size), strict=True):
            prime = self._primes[row]
            first = residues(self._tables, row, error) + np.uint64(prime) - self.times_secret(second, row)
            if row in group:
                factor, quotient = np.empty((2, self._size), np.uint64)
                factor[:], quotient[:] = special % prime, (special % prime << 64) // prime
                times = np.empty_like(factor)
                loops.multiply(replaced[row], factor, quotient, prime, times)
                first += times
            found.append(first % np.uint64(prime))
        return Digit(found, seed)
