"""Sizes of OpenFHE's special primes, and what they say. Nothing of OpenFHE is imported here."""

from __future__ import annotations

from hefw.core.params import CkksParams

SPECIAL_BITS = 60  # of OpenFHE's own special primes
MOST_SPECIAL = 4  # of hefw's


def own_calls(params: CkksParams) -> bool:
    """Whether key switches are OpenFHE's own, by special primes of its size; those with others are hefw's (`rns`)."""
    return all(bits == SPECIAL_BITS for bits in params.special_bits)
