"""Which digits a ciphertext has at a level, and modulo which primes they are wanted: for keys and for key switches."""

from __future__ import annotations

from hefw.core.params import Resolved


class Form:
    """At a level: `groups` are the primes of each digit, `rows` all that a key meets there.

    Primes are numbered: the chain, then the special ones.
    """

    def __init__(self, params: Resolved, level: int) -> None:
        every = (*params.primes, *params.special_primes)
        count = len(params.special_primes)
        self.groups = [range(k, min(k + count, level + 1)) for k in range(0, level + 1, count)]
        self.rows = (*range(level + 1), *range(len(params.primes), len(every)))
        self.primes = tuple(every[row] for row in self.rows)
