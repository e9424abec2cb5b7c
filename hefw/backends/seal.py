"""What all bindings of Microsoft SEAL have in common. No binding is imported here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from hefw.core.errors import ParameterError, transparent
from hefw.core.params import CkksParams

RELINEARISATION = 2  # the power of the secret that the key replaces; Galois elements are odd
RING_DIMENSIONS = (1024, 2048, 4096, 8192, 16384, 32768)


def prime_sizes(params: CkksParams, most_special: int = 1) -> list[int]:
    """Bits of the chain and of the special primes; ParameterError if key switching cannot use them."""
    special, largest = list(params.special_bits), max(params.modulus_bits)
    if len(special) > most_special:
        taken = "SEAL has one special prime" if most_special == 1 else f"at most {most_special} special primes are used"
        raise ParameterError(f"{taken}; special_bits {special} has {len(special)}")
    if min(special) < largest:
        raise ParameterError(
            f"the special prime of {min(special)} bits must be at least as large as the others "
            f"({largest} bits), or key switching drowns the message"
        )
    return [*params.modulus_bits, *params.special_bits]


def no_primes(params: CkksParams, error: Exception) -> ParameterError:
    """SEAL found no primes of these sizes."""
    bits = [*params.modulus_bits, *params.special_bits]
    return ParameterError(f"SEAL has no primes of {bits} bits at ring dimension {params.ring_dimension}: {error}")


def refused(params: CkksParams) -> ParameterError:
    """SEAL does not accept a context of these primes."""
    return ParameterError(f"SEAL refuses primes of {params.modulus_bits} + {params.special_bits} bits")


def key_element(name: str, ring_dimension: int) -> int:
    """SEAL's name for an evaluation key: a rotation's or conjugation's Galois element, or RELINEARISATION."""
    return RELINEARISATION if name == "relinearisation" else galois_element(name, ring_dimension)


def key_place(element: int) -> int:
    """Where SEAL's files of keys have the one of a `key_element`."""
    return 0 if element == RELINEARISATION else (element - 1) // 2


def galois_element(name: str, ring_dimension: int) -> int:
    """SEAL's name for the key 'conjugation' or 'rotation/STEP'."""
    kind, _, step = name.partition("/")
    return 2 * ring_dimension - 1 if kind == "conjugation" else pow(3, int(step), 2 * ring_dimension)


@contextmanager
def opaque() -> Iterator[None]:
    """SEAL refuses results without a secret in them; here that is an EncodingError."""
    try:
        yield
    except RuntimeError as error:
        if "transparent" not in str(error):
            raise
        raise transparent() from None


def memory_file() -> IO[bytes]:
    """A file that exists in memory only and is private to this process: SEAL's bindings save to paths."""
    return os.fdopen(os.memfd_create("hefw", os.MFD_CLOEXEC), "w+b")


def path_of(file: IO[bytes]) -> str:
    """Where a binding finds a `memory_file`."""
    return f"/proc/self/fd/{file.fileno()}"
