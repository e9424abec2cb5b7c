"""What both sides share: Lattigo's parameters, its encoder, and its bytes."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from hefw.core.errors import CapabilityError, EnvelopeError, ParameterError
from hefw.core.params import CkksParams, Resolved
from lattigo import LatticeError, ckks
from numpy.typing import NDArray

from hefw_lattigo import residues
from hefw_lattigo.residues import Residues

#: The scale that Lattigo's objects carry. hefw keeps the true one; this one only has to be an integer below 2^64.
NOMINAL_BITS = 40
#: Size of the auxiliary prime that the server's Lattigo has for itself; see `evaluator`. No prime of hefw is so large.
AUXILIARY_BITS = 61
_STARTED_IN = os.getpid()


def resolve(params: CkksParams, backend: str) -> Resolved:
    """Lattigo's choice of primes, made sure to be the same on the server's side."""
    if len(params.special_bits) != 1 or params.special_bits[0] < max(params.modulus_bits):
        raise ParameterError(
            f"special_bits {list(params.special_bits)} are not allowed; {backend} takes one special prime, at least as "
            f"large as the others ({max(params.modulus_bits)} bits)"
        )
    chain, special, _ = _chains(params, list(params.modulus_bits), list(params.special_bits))
    extended, _, _ = _server_chains(params)
    if extended != chain + special:
        raise ParameterError(
            f"Lattigo has other primes on the server's side for {params.modulus_bits}; use other sizes"
        )
    return Resolved(params, backend, tuple(chain), tuple(special))


class Context:
    """Lattigo's parameters and encoder for one set of parameters."""

    def __init__(self, params: Resolved) -> None:
        self.params = params
        self.slots = params.slots
        self.primes = residues.column(params.primes)
        self._lock = threading.RLock()
        with self.lattigo():
            asked = params.params
            _, _, self.handle = _chains(asked, list(asked.modulus_bits), list(asked.special_bits))
            _, (self.auxiliary,), _ = _server_chains(asked)
            self._encoder = ckks.Encoder(self.handle)
            sample: bytes = self._encoder.encode([0.0] * self.slots, 0, 2**NOMINAL_BITS).marshal_binary()
        self._header = sample[: sample.index(b"}}") + 2]  # its metadata: scale, slots, form

    @contextmanager
    def lattigo(self) -> Iterator[None]:
        """Around every call of the library: one thread at a time, and none in a forked child, where Go would hang."""
        if os.getpid() != _STARTED_IN:
            raise CapabilityError(
                f"backend {self.params.backend!r} cannot be used in a process that was forked after it was loaded; "
                "start the process by spawn, or load the backend after the fork"
            )
        with self._lock:
            yield

    def encode(self, values: NDArray[Any] | float, level: int, scale: float) -> Residues:
        """(level + 1, N) residues of (slots,) real values; (level + 1, 1) of a constant."""
        primes = self.primes[: level + 1]
        if isinstance(values, float):
            return residues.constant(round(values * scale), primes)
        if np.iscomplexobj(values):
            raise CapabilityError(f"backend {self.params.backend!r} has no complex values; choose one that declares it")
        scaled = (values * (scale / 2**NOMINAL_BITS)).tolist()
        with self.lattigo():
            data: bytes = self._encoder.encode(scaled, level, 2**NOMINAL_BITS).marshal_binary()
        return self.read(data, 1, level + 1)[0]

    def decode(self, plaintext: Any, scale: float) -> NDArray[np.float64]:
        """(slots,) real values of one of Lattigo's plaintexts."""
        with self.lattigo():
            decoded = np.array(self._encoder.decode(plaintext, self.slots), dtype=np.float64)
        return decoded * (2**NOMINAL_BITS / scale)

    def write(self, parts: Residues) -> bytes:
        """Lattigo's bytes of a ciphertext, from (parts, primes, N) residues."""
        return self._header + struct.pack("<Q", len(parts)) + write_polynomials(parts).tobytes()

    def read(self, data: bytes, parts: int, primes: int) -> Residues:
        """(parts, primes, N) residues of a ciphertext or plaintext, from Lattigo's bytes."""
        words = np.frombuffer(data, dtype="<i8", offset=data.index(b"}}") + 2)
        return read_polynomials(words[1:].reshape(parts, -1), primes)

    def load(self, payload: bytes, level: int) -> Residues:
        """(2, level + 1, N) residues of a ciphertext, from what `dump` made."""
        if payload[:1] == b"\x03":
            raise EnvelopeError("a ciphertext of 3 parts was sent; relinearise it before")
        shape = (2, level + 1, 2 * self.slots)
        parts, found = residues.from_bytes(payload, shape, self.primes[: level + 1])
        if parts != 2:
            raise EnvelopeError(f"a ciphertext of {parts} parts was sent; send what hefw-lattigo wrote")
        return found

    def element(self, name: str) -> int:
        """Lattigo's number of an evaluation key: its Galois element; 0 for the relinearisation key."""
        _, _, step = name.partition("/")
        return pow(5, int(step), 4 * self.slots) if step else 0


def dump(parts: Residues) -> bytes:
    """The bytes of a ciphertext, from (parts, level + 1, N) residues."""
    return residues.to_bytes(len(parts), parts)


def write_polynomials(polynomials: Residues) -> NDArray[np.int64]:
    """(..., primes, N) residues as Lattigo writes them: the number of rows, then each row after its length."""
    *outer, primes, n = polynomials.shape
    rows = np.concatenate([np.full((*outer, primes, 1), n), polynomials], axis=-1).reshape(*outer, -1)
    return np.concatenate([np.full((*outer, 1), primes), rows], axis=-1)


def read_polynomials(words: NDArray[np.int64], primes: int) -> Residues:
    """The inverse of `write_polynomials`."""
    return words[..., 1:].reshape(*words.shape[:-1], primes, -1)[..., 1:]


def _server_chains(params: CkksParams) -> tuple[list[int], list[int], ckks.Parameters]:
    return _chains(params, [*params.modulus_bits, *params.special_bits], [AUXILIARY_BITS])


def _chains(params: CkksParams, chain: list[int], special: list[int]) -> tuple[list[int], list[int], ckks.Parameters]:
    log_n = params.ring_dimension.bit_length() - 1
    try:
        handle = ckks.Parameters(log_n, chain, special, NOMINAL_BITS, "standard")
    except LatticeError as error:
        raise ParameterError(f"Lattigo has no primes of {chain} and {special} bits at N = 2^{log_n}: {error}") from None
    return handle.moduli_chain(), handle.aux_moduli_chain(), handle
