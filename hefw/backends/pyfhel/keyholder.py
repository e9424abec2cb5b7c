"""The client's side on Pyfhel. The secret key stays in SEAL's memory; only `save` writes it, to its owner's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from hefw.backends.frames import bare_ciphertext
from hefw.backends.pyfhel.context import Context
from hefw.core.backend import Ciphertext, KeyHolder, KeyManifest
from hefw.core.envelope import MAX_PAYLOAD, Envelope
from hefw.core.errors import EnvelopeError, KeyMismatchError
from hefw.core.params import Resolved

UNCOMPRESSED = "none"  # SEAL's compression, where it was built with one, would make lengths depend on content


class PyfhelKeyHolder(KeyHolder):
    """Encrypts by a public key: Pyfhel has no other encryption. A fresh ciphertext has the noise of a rescale.

    Pyfhel makes evaluation keys for a secret only in the object that made the secret. So `save` writes those of the
    manifest beside the secret, and a loaded key holder has no others.
    """

    def __init__(
        self,
        params: Resolved,
        manifest: KeyManifest,
        context: Context,
        saved: Mapping[str, bytes] | None = None,
        key_id: bytes | None = None,
    ) -> None:
        super().__init__(params, manifest, key_id)
        self._context = context
        self._pyfhel = context.pyfhel
        self._saved = saved  # evaluation keys by name; None where they can be made

    @staticmethod
    def generate(params: Resolved, manifest: KeyManifest) -> PyfhelKeyHolder:
        """A new secret key: uniform ternary, from the operating system's randomness."""
        context = Context(params)
        context.pyfhel.keyGen()
        return PyfhelKeyHolder(params, manifest, context)

    @staticmethod
    def load(params: Resolved, manifest: KeyManifest, path: Path) -> PyfhelKeyHolder:
        """The key holder of a file that `save` wrote."""
        envelope = Envelope.unpack(path.read_bytes()).expect(
            kind="secret-key", backend=params.backend, params_digest=params.digest
        )
        context = Context(params)
        try:
            secret, public, saved = msgpack.unpackb(envelope.payload)
            for name, payload in dict(saved).items():
                context.check_key(name, payload)
            context.pyfhel.from_bytes_secret_key(secret)
            context.pyfhel.from_bytes_public_key(public)
        except (RuntimeError, ValueError, TypeError, EnvelopeError) as error:
            raise EnvelopeError(
                f"{path} holds no secret key of Pyfhel: {error}; load a file that `save` wrote"
            ) from None
        return PyfhelKeyHolder(params, manifest, context, saved, envelope.key_id)

    def _encrypt(self, values: NDArray[Any], level: int, scale: float) -> bytes:
        plaintext = self._context.encode(values, level, scale)
        return bare_ciphertext(self._pyfhel.encryptPtxt(plaintext).to_bytes())

    def _decrypt(self, ciphertext: Ciphertext) -> NDArray[np.complex128]:
        ciphertext.handle.scale = ciphertext.scale
        return np.asarray(self._pyfhel.decryptComplex(ciphertext.handle), np.complex128)

    def _load(self, payload: bytes, level: int, scale: float) -> Any:
        return self._context.ciphertext(payload, level, scale)

    def _evaluation_key(self, name: str) -> bytes:
        if self._saved is not None:
            if name not in self._saved:
                raise KeyMismatchError(
                    f"the file of this key holder has no key {name!r}, and Pyfhel makes none for a loaded secret; "
                    f"make a new key holder, whose manifest has it"
                )
            return self._saved[name]
        if name == "relinearisation":
            self._pyfhel.relinKeyGen()
            return self._context.key_payload(name, self._pyfhel.to_bytes_relin_key(UNCOMPRESSED))
        # To SEAL, the rotation by no step at all is the conjugation.
        self._pyfhel.rotateKeyGen([0 if name == "conjugation" else int(name.partition("/")[2])])
        return self._context.key_payload(name, self._pyfhel.to_bytes_rotate_key(UNCOMPRESSED))

    def _secret_bytes(self) -> bytes:
        names = self.manifest.names()
        size = (len(names) + 1) * self._context.key_bytes  # secret and public key are smaller than one such key
        if size > MAX_PAYLOAD:
            raise EnvelopeError(
                f"{len(names)} evaluation keys of {size} bytes are saved with a secret key of Pyfhel, at most "
                f"{MAX_PAYLOAD} fit; keep this process, or use a backend that makes them again, such as tenseal"
            )
        secret = self._pyfhel.to_bytes_secret_key(UNCOMPRESSED)
        public = self._pyfhel.to_bytes_public_key(UNCOMPRESSED)
        return bytes(msgpack.packb([secret, public, {name: self._evaluation_key(name) for name in names}]))
