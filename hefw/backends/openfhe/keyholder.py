"""The client's side on OpenFHE. The secret key stays in its memory; only `save` writes it, to a file of its owner's."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.backends.openfhe import bootstrap, cache
from hefw.backends.openfhe.context import Context, context
from hefw.backends.openfhe.library import openfhe
from hefw.backends.openfhe.sizes import own_calls
from hefw.backends.packing import pack, unpack
from hefw.backends.rns.form import Form
from hefw.backends.rns.keys import written
from hefw.backends.rns.making import Maker
from hefw.core.backend import Ciphertext, KeyHolder, KeyManifest
from hefw.core.envelope import Envelope
from hefw.core.errors import CapabilityError
from hefw.core.params import Resolved


class OpenfheKeyHolder(KeyHolder):
    """Encrypts symmetrically. Makes one evaluation key at a time and keeps none: at large rings they fill a memory."""

    def __init__(
        self, params: Resolved, manifest: KeyManifest, shared: Context, secret: Any, key_id: bytes | None = None
    ) -> None:
        super().__init__(params, manifest, key_id)
        if manifest.bootstrap and params.params.bootstrap is None:
            raise CapabilityError("these parameters cannot bootstrap; leave the key out, or ask for bootstrap_params")
        self._context = shared
        self._secret = secret
        self._tag = cache.new_tag()
        secret.SetKeyTag(self._tag)

    @staticmethod
    def generate(params: Resolved, manifest: KeyManifest) -> OpenfheKeyHolder:
        """A new secret key: uniform ternary, from OpenFHE's generator, which the operating system seeds."""
        shared = context(params)
        return OpenfheKeyHolder(params, manifest, shared, shared.openfhe.KeyGen().secretKey)

    @staticmethod
    def load(params: Resolved, manifest: KeyManifest, path: Path) -> OpenfheKeyHolder:
        """The key holder of a file that `save` wrote."""
        envelope = Envelope.unpack(path.read_bytes()).expect(
            kind="secret-key", backend=params.backend, params_digest=params.digest
        )
        shared = context(params)
        blocks = unpack("secret key", memoryview(envelope.payload), params.primes, shared.ring_dimension)
        other = openfhe.Serialize(shared.openfhe.KeyGen().secretKey, openfhe.BINARY)  # for its structure only
        structure, _ = shared.split(other)
        secret = openfhe.DeserializePrivateKeyString(structure.fill(blocks), openfhe.BINARY)
        return OpenfheKeyHolder(params, manifest, shared, secret, envelope.key_id)

    def _encrypt(self, values: NDArray[Any], level: int, scale: float) -> bytes:
        plaintext = self._context.encode(values, level, scale)
        return self._context.dump(self._context.openfhe.Encrypt(self._secret, plaintext), level, 2)

    def _decrypt(self, ciphertext: Ciphertext) -> NDArray[np.complex128]:
        plaintext = self._context.openfhe.Decrypt(self._secret, ciphertext.handle)
        plaintext.SetLength(self._context.slots)
        found = np.asarray(plaintext.GetCKKSPackedValueArray(), np.complex128)
        return found * (self._context.nominal / ciphertext.scale)

    def _load(self, payload: bytes, level: int, scale: float) -> Any:
        return self._context.load(payload, level)

    def _evaluation_key(self, name: str) -> bytes:
        level = self.manifest.level(name, self.params.max_level)
        return self._own_key(name, level) if own_calls(self.params.params) else self._key_for_loops(name, level)

    def _key_for_loops(self, name: str, level: int) -> bytes:
        if name == "relinearisation":
            element, digits = 0, self._maker.squared(level)
        else:
            element = self._context.automorphism(name)
            digits = self._maker.turned(element, level)
        return written(element, digits, Form(self.params, level))

    @cached_property
    def _maker(self) -> Maker:
        _, blocks = self._context.split(openfhe.Serialize(self._secret, openfhe.BINARY))
        return Maker(self.params, blocks[0], self._error)

    def _error(self) -> NDArray[np.int64]:
        """OpenFHE's of a fresh encryption: its two parts, the second times the secret."""
        shared = self._context
        zeros = shared.encode(np.zeros(shared.slots), 0, shared.nominal)
        ciphertext = shared.openfhe.Encrypt(self._secret, zeros)
        _, (first, second) = shared.split(openfhe.Serialize(ciphertext, openfhe.BINARY))
        prime = np.uint64(self.params.primes[0])
        return self._maker.coefficients((first + self._maker.times_secret(second)) % prime)

    def _own_key(self, name: str, level: int) -> bytes:
        shared, made = self._context, self._context.openfhe
        try:
            if name == "relinearisation":
                made.EvalMultKeyGen(self._secret)
                (key,) = made.GetEvalMultKeyVector(self._tag)
                return shared.dump_key(openfhe.Serialize(key, openfhe.BINARY), 0, level)
            if name == "bootstrap":
                keys = bootstrap.special_keys(shared, self._secret)
                return shared.dump_key(keys, bootstrap.special_index(shared.ring_dimension), level)
            index = shared.automorphism(name)
            made_keys = made.EvalAutomorphismKeyGen(self._secret, [index])
            return shared.dump_key(openfhe.Serialize(made_keys, openfhe.BINARY), index, level)
        finally:
            cache.forget(self._tag)

    def _secret_bytes(self) -> bytes:
        serialised = openfhe.Serialize(self._secret, openfhe.BINARY)
        structure, blocks = self._context.split(serialised)
        return pack(blocks, structure.primes)
