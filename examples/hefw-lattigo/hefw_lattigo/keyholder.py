"""The client's side on Lattigo. The secret key stays in Go's memory; only `save` writes it, to a private file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hefw.core.backend import Ciphertext, KeyHolder, KeyManifest
from hefw.core.envelope import Envelope
from hefw.core.errors import EnvelopeError
from hefw.core.params import Resolved
from lattigo import LatticeError, rlwe
from numpy.typing import NDArray

from hefw_lattigo import residues
from hefw_lattigo.context import Context, dump, read_polynomials
from hefw_lattigo.residues import Residues


class LattigoKeyHolder(KeyHolder):
    """Encrypts symmetrically: the bindings encrypt by public key only, which is noisier, but make public keys."""

    def __init__(
        self,
        params: Resolved,
        manifest: KeyManifest,
        context: Context,
        secret: rlwe.SecretKey | None = None,
        key_id: bytes | None = None,
    ) -> None:
        super().__init__(params, manifest, key_id)
        self._context = context
        with context.lattigo():
            self._generator = rlwe.KeyGenerator(context.handle)
            self._secret = secret or self._generator.gen_secret_key()
            self._decryptor = rlwe.Decryptor(context.handle, self._secret)
        # Lattigo keeps keys in Montgomery form, times 2^64.
        self._from_montgomery = residues.column([pow(2**64, -1, prime) for prime in params.primes])

    @staticmethod
    def generate(params: Resolved, manifest: KeyManifest) -> LattigoKeyHolder:
        """A new secret key: uniform ternary, from the operating system's randomness."""
        return LattigoKeyHolder(params, manifest, Context(params))

    @staticmethod
    def load(params: Resolved, manifest: KeyManifest, path: Path) -> LattigoKeyHolder:
        """The key holder of a file that `save` wrote."""
        envelope = Envelope.unpack(path.read_bytes()).expect(
            kind="secret-key", backend=params.backend, params_digest=params.digest
        )
        context = Context(params)
        with context.lattigo():
            try:
                secret = rlwe.SecretKey.unmarshal_binary(envelope.payload)
            except LatticeError as error:
                raise EnvelopeError(f"Lattigo cannot read the secret key: {error}; restore the file") from None
        return LattigoKeyHolder(params, manifest, context, secret, envelope.key_id)

    def _encrypt(self, values: NDArray[Any], level: int, scale: float) -> bytes:
        message = self._context.encode(values, level, scale)
        with self._context.lattigo():
            data = self._generator.gen_public_key(self._secret).marshal_binary()
        # A public key (e - a s, a) is a fresh encryption of zero modulo all primes, and so modulo the first ones.
        words = np.frombuffer(data, dtype="<i8")[1:].reshape(2, -1)
        zero, _ = self._split(words)
        primes = self._context.primes[: level + 1]
        fresh = residues.multiply(zero[:, : level + 1], self._from_montgomery[: level + 1], primes)
        fresh[0] = residues.add(fresh[0], message, primes)
        return dump(fresh)

    def _decrypt(self, ciphertext: Ciphertext) -> NDArray[np.complex128]:
        data = self._context.write(ciphertext.handle)
        with self._context.lattigo():
            plaintext = self._decryptor.decrypt_new(rlwe.Ciphertext.unmarshal_binary(data))
        return self._context.decode(plaintext, ciphertext.scale).astype(np.complex128)

    def _load(self, payload: bytes, level: int, scale: float) -> Any:
        return self._context.load(payload, level)

    def _evaluation_key(self, name: str) -> bytes:
        """The Galois element (0: relinearisation), then (digits, 2, primes, N) residues, the special prime last."""
        element = self._context.element(name)
        with self._context.lattigo():
            if element:
                data = self._generator.gen_galois_key(self._secret, element).marshal_binary()[16:]
            else:
                data = self._generator.gen_relin_key(self._secret).marshal_binary()
        digits = len(self.params.primes)
        words = np.frombuffer(data, dtype="<i8")[2:].reshape(digits, -1)[:, 2:].reshape(digits, 2, -1)
        return residues.to_bytes(element, np.concatenate(self._split(words), axis=2))

    def _secret_bytes(self) -> bytes:
        with self._context.lattigo():
            data: bytes = self._secret.marshal_binary()
        return data

    def _split(self, words: NDArray[np.int64]) -> tuple[Residues, Residues]:
        """The parts of a polynomial modulo the chain and modulo the special prime, from Lattigo's (..., words)."""
        count = len(self.params.primes)
        end = 1 + count * (1 + 2 * self.params.slots)
        return read_polynomials(words[..., :end], count), read_polynomials(words[..., end:], 1)
