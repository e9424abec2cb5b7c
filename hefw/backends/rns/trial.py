"""Key switching tried with a key whose secret is known: where a library has nothing to compare it with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hefw.backends.rns.form import Form
from hefw.backends.rns.loops import rows
from hefw.backends.rns.switching import Switching
from hefw.core.params import Resolved

Words = NDArray[np.uint64]

ROUNDED = 2  # what two rounded divisions may be off by, together


def switches(switching: Switching, params: Resolved, residues: Words) -> bool:
    """Whether a ciphertext (2, level + 1, N) is switched from the secret 1 to the secret 1: its decryption stays."""
    level = residues.shape[1] - 1
    form = Form(params, level)
    primes = np.array(form.primes, np.uint64)[:, None]
    random, special = np.random.default_rng(0), math.prod(params.special_primes)
    parts: list[Words] = []
    for group in form.groups:
        second = random.integers(0, primes, (len(primes), residues.shape[2]), np.uint64)
        first = (primes - second) % primes
        for row in group:
            first[row] = (first[row] + np.uint64(special % form.primes[row])) % primes[row]
        parts.append(np.stack([first, second]))
    out = np.empty_like(residues)
    switching.rotations(rows(residues), [switching.key(parts, range(len(primes)), 1)], [rows(out)])
    own = primes[: level + 1]
    return switching.small((_sum(out, own) + own - _sum(residues, own)) % own, ROUNDED)


def _sum(parts: Sequence[Words] | Words, primes: Words) -> Words:
    return (parts[0] + parts[1]) % primes
