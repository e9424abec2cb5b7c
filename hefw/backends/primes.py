"""Primes for a modulus chain, as HE libraries choose them."""

from __future__ import annotations

from functools import cache

from hefw.core.errors import ParameterError

_WITNESSES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)  # deterministic below 3.3e24


@cache
def chain(ring_dimension: int, bits: tuple[int, ...], others: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Distinct primes of the given sizes, each 1 modulo 2N and the largest still free below its power of two.

    None of `others` is among them.
    """
    taken = set(others)
    result = []
    for size in bits:
        candidate = 2**size + 1 - 2 * ring_dimension
        while candidate in taken or not _is_prime(candidate):
            candidate -= 2 * ring_dimension
            if candidate < 2 ** (size - 1):
                raise ParameterError(f"there are not enough primes of {size} bits for ring dimension {ring_dimension}")
        taken.add(candidate)
        result.append(candidate)
    return tuple(result)


def _is_prime(n: int) -> bool:
    """Miller-Rabin, exact for 64-bit numbers."""
    if n < 2 or any(n % p == 0 for p in _WITNESSES):
        return n in _WITNESSES
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for witness in _WITNESSES:
        x = pow(witness, odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True
