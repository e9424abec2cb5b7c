"""What both sides share: Pyfhel objects, plaintexts at a level, and bytes in and out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from Pyfhel import PyCtxt, Pyfhel, PyPtxt

from hefw.backends import frames, seal
from hefw.core.errors import EncodingError, EnvelopeError
from hefw.core.params import CkksParams, Resolved

ELEMENT_BYTES = 4  # in front of a key's residues: which key they are


class Context:
    """The parameters of a Pyfhel object, and one such object, without keys as long as nobody makes or loads them."""

    def __init__(self, params: Resolved) -> None:
        self.params = params
        self.ring_dimension = params.params.ring_dimension
        self.primes = (*params.primes, *params.special_primes)
        digit = frames.residue_bytes(len(self.primes), self.ring_dimension)
        self.key_bytes = ELEMENT_BYTES + len(params.primes) * digit  # of an evaluation key as it is sent
        self.pyfhel = self.make()

    def make(self) -> Any:
        """A Pyfhel object without keys."""
        return _make(self.params.params, qi=list(self.primes))

    def encode(self, values: NDArray[Any] | float, level: int, scale: float) -> Any:
        """A Pyfhel plaintext of (slots,) values or one constant."""
        constant = isinstance(values, float)
        array = np.full(self.params.slots, values) if constant else np.require(values, requirements=("C", "W"))
        encode = self.pyfhel.encodeComplex if array.dtype.kind == "c" else self.pyfhel.encodeFrac
        peak = float(np.abs(array).max())
        try:
            # Pyfhel encodes at the top level, where SEAL's own check sees the whole modulus; this is that of the level.
            if peak and np.log2(peak) + np.log2(scale) > self.params.log_modulus(level) - 2:
                raise ValueError("encoded values are too large")
            plaintext = encode(array, scale=scale)
            for _ in range(self.params.max_level - level):
                self.pyfhel.mod_switch_to_next_ptxt(plaintext, False)
        except ValueError as error:
            raise EncodingError(
                f"values at scale {scale:g} do not fit SEAL's modulus at level {level}: {error}; use a smaller scale"
            ) from None
        # A copy: the switched one keeps the memory of the top level.
        return plaintext if level == self.params.max_level else PyPtxt(plaintext)

    def ciphertext(self, payload: bytes, level: int, scale: float) -> Any:
        """A Pyfhel ciphertext from its residues, with the level and scale that the envelope announced."""
        wanted = frames.residue_bytes(level + 1, self.ring_dimension)
        if len(payload) != wanted:
            raise EnvelopeError(
                f"a ciphertext of level {level} has two parts, {wanted} bytes; {len(payload)} bytes were sent, as of "
                f"{2 * len(payload) / wanted:g} parts; relinearise it before, and announce its own level"
            )
        data = frames.ciphertext(self.primes[: level + 1], self.ring_dimension, scale, payload)
        try:
            return PyCtxt(pyfhel=self.pyfhel, bytestring=data)
        except (RuntimeError, ValueError) as error:
            raise EnvelopeError(f"SEAL cannot read the ciphertext: {error}") from None

    def conjugated(self, handle: Any, level: int, scale: float) -> Any:
        """A ciphertext of three parts: both parts conjugated, the second one behind an empty one.

        In SEAL's order of residues, place k is the value at the power 2 rev(k) + 1 of a root, where rev reverses the
        bits of a place: the place from the end has the negative power.
        """
        shape = (2, level + 1, self.ring_dimension)
        first, second = np.frombuffer(frames.bare_ciphertext(handle.to_bytes()), "<u8").reshape(shape)[..., ::-1]
        residues = np.stack([first, np.zeros_like(first), second]).tobytes()
        data = frames.ciphertext(self.primes[: level + 1], self.ring_dimension, scale, residues, parts=3)
        return PyCtxt(pyfhel=self.pyfhel, bytestring=data)

    def relinearising(self, payload: bytes) -> Iterator[bytes]:
        """A file, in pieces, that has any evaluation key in the place of the one for relinearisation."""
        return frames.keys(self.primes, self.ring_dimension, 1, {0: self._digits(payload)})

    def key_payload(self, name: str, saved: bytes) -> bytes:
        """What is sent of a file that holds one evaluation key: which it is, and its residues."""
        element = self._element(name)
        residues = frames.bare_key(saved, self.primes, self.ring_dimension, seal.key_place(element))
        return element.to_bytes(ELEMENT_BYTES, "big") + residues

    def check_key(self, name: str, payload: bytes) -> None:
        """EnvelopeError if a payload has not the size of an evaluation key, or is another's."""
        if len(payload) != self.key_bytes:
            raise EnvelopeError(
                f"an evaluation key has {self.key_bytes} bytes under these parameters, {len(payload)} were sent"
            )
        if int.from_bytes(payload[:ELEMENT_BYTES], "big") != self._element(name):
            raise EnvelopeError(f"the bytes sent as {name!r} hold another key")

    def key_file(self, payloads: Mapping[str, bytes]) -> Iterator[bytes]:
        """A file, in pieces, of the relinearisation key or of rotation keys, by name."""
        # SEAL keeps a place for the Galois key of every odd number below 2 N, and one for relinearisation.
        places = 1 if "relinearisation" in payloads else self.ring_dimension
        found = {seal.key_place(self._element(name)): self._digits(payload) for name, payload in payloads.items()}
        return frames.keys(self.primes, self.ring_dimension, places, found)

    def _digits(self, payload: bytes) -> list[bytes]:
        """The files of an evaluation key's digits."""
        size = frames.residue_bytes(len(self.primes), self.ring_dimension)
        return [
            frames.ciphertext(self.primes, self.ring_dimension, 1.0, payload[start : start + size])
            for start in range(ELEMENT_BYTES, len(payload), size)
        ]

    def _element(self, name: str) -> int:
        return seal.key_element(name, self.ring_dimension)


def resolve(params: CkksParams, backend: str) -> Resolved:
    """SEAL's choice of primes."""
    bits = seal.prime_sizes(params)
    try:
        primes = _make(params, qi_sizes=bits).qi
    except (RuntimeError, ValueError) as error:
        raise seal.no_primes(params, error) from None
    return Resolved(params, backend, tuple(primes[:-1]), tuple(primes[-1:]))


def _make(params: CkksParams, **primes: list[int]) -> Any:
    made = Pyfhel()
    status = made.contextGen(
        "ckks",
        n=params.ring_dimension,
        sec=0 if params.insecure else 128,
        scale_bits=params.special_bits[-1],  # a default that hefw never uses; Pyfhel warns of others
        **primes,
    )
    if not status.startswith("success"):
        raise seal.refused(params)
    return made
