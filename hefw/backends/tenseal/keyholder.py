"""The client's side on SEAL. The secret key stays in SEAL's memory; only `save` writes it, to a file of its owner's."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import _sealapi_cpp as seal
import numpy as np
from numpy.typing import NDArray

from hefw.backends.tenseal.context import Context, dump, padded_length, parse
from hefw.backends.tenseal.secret import KeyMaker
from hefw.core.backend import Ciphertext, KeyHolder, KeyManifest
from hefw.core.envelope import Envelope
from hefw.core.params import Resolved


class TensealKeyHolder(KeyHolder):
    """Encrypts symmetrically, so that half of each fresh ciphertext is sent as a seed."""

    def __init__(
        self, params: Resolved, manifest: KeyManifest, context: Context, generator: Any, key_id: bytes | None = None
    ) -> None:
        super().__init__(params, manifest, key_id)
        self._context = context
        self._generator = generator
        secret = generator.secret_key()
        self._encryptor = seal.Encryptor(context.seal, secret)
        self._decryptor = seal.Decryptor(context.seal, secret)

    @staticmethod
    def generate(params: Resolved, manifest: KeyManifest) -> TensealKeyHolder:
        """A new secret key: uniform ternary, from the operating system's randomness."""
        context = Context(params)
        return TensealKeyHolder(params, manifest, context, seal.KeyGenerator(context.seal))

    @staticmethod
    def load(params: Resolved, manifest: KeyManifest, path: Path) -> TensealKeyHolder:
        """The key holder of a file that `save` wrote."""
        envelope = Envelope.unpack(path.read_bytes()).expect(
            kind="secret-key", backend=params.backend, params_digest=params.digest
        )
        context = Context(params)
        secret = seal.SecretKey()
        parse("secret key", lambda name: secret.load(context.seal, name), envelope.payload)
        return TensealKeyHolder(params, manifest, context, seal.KeyGenerator(context.seal, secret), envelope.key_id)

    def _encrypt(self, values: NDArray[Any], level: int, scale: float) -> bytes:
        plaintext = self._context.encode(values, level, scale)
        ring_dimension = self.params.params.ring_dimension
        padded = padded_length(self.params.primes[: level + 1], ring_dimension, 1)
        return dump(self._encryptor.encrypt_symmetric(plaintext).save, padded)

    def _decrypt(self, ciphertext: Ciphertext) -> NDArray[np.complex128]:
        ciphertext.handle.scale = ciphertext.scale
        plaintext = seal.Plaintext()
        self._decryptor.decrypt(ciphertext.handle, plaintext)
        return np.array(self._context.encoder.decode_complex(plaintext))

    def _load(self, payload: bytes, level: int, scale: float) -> Any:
        return self._context.ciphertext(payload, level, scale)

    def _evaluation_key(self, name: str) -> bytes:
        return self._maker.make(name, self.manifest.level(name, self.params.max_level))

    @cached_property
    def _maker(self) -> KeyMaker:
        return KeyMaker(self._context, self._generator.secret_key())

    def _secret_bytes(self) -> bytes:
        primes = (*self.params.primes, *self.params.special_primes)
        padded = padded_length(primes, self.params.params.ring_dimension, 1)
        return dump(self._generator.secret_key().save, padded)
