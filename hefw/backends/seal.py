"""What all bindings of Microsoft SEAL have in common. No binding is imported here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from hefw.core.errors import EncodingError, ParameterError
from hefw.core.params import CkksParams

RELINEARISATION = 2  # the power of the secret that the key replaces; Galois elements are odd
RING_DIMENSIONS = (1024, 2048, 4096, 8192, 16384, 32768)


def prime_sizes(params: CkksParams) -> list[int]:
    """Bits of the chain and of the one special prime; ParameterError if SEAL's key switching cannot use it."""
    if len(params.special_bits) != 1:
        raise ParameterError(
            f"SEAL has one special prime; special_bits {list(params.special_bits)} has {len(params.special_bits)}"
        )
    if params.special_bits[0] < max(params.modulus_bits):
        raise ParameterError(
            f"the special prime of {params.special_bits[0]} bits must be at least as large as the others "
            f"({max(params.modulus_bits)} bits), or key switching drowns the message"
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


def transparent() -> EncodingError:
    """The result of an operation has no secret in it."""
    return EncodingError(
        "the result is transparent, it hides nothing (a product with zeros, or a - a): leave the operation out"
    )


def memory_file() -> IO[bytes]:
    """A file that exists in memory only and is private to this process: SEAL's bindings save to paths."""
    return os.fdopen(os.memfd_create("hefw", os.MFD_CLOEXEC), "w+b")


def path_of(file: IO[bytes]) -> str:
    """Where a binding finds a `memory_file`."""
    return f"/proc/self/fd/{file.fileno()}"
