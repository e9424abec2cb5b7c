"""What the key holder's worker is asked: the secret key is here, and here it stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hefw.backends.hosted.calls import Calls
from hefw.core.backend import Ciphertext, KeyHolder, KeyManifest
from hefw.core.params import Resolved


class KeyHolderCalls(Calls):
    """Makes keys, encrypts and decrypts. `holder` is the number of a key holder."""

    NAMES: ClassVar[tuple[str, ...]] = (
        *Calls.NAMES,
        "keygen",
        "load_key_holder",
        "encrypt",
        "load",
        "decrypt",
        "evaluation_key",
        "save",
    )

    def keygen(self, params: Resolved, manifest: KeyManifest) -> tuple[int, bytes]:
        """The number and the key id of a new key holder."""
        return self._kept(self.backend.keygen(params, manifest))

    def load_key_holder(self, params: Resolved, manifest: KeyManifest, path: str) -> tuple[int, bytes]:
        """The same of one from a file."""
        return self._kept(self.backend.load_key_holder(params, manifest, Path(path)))

    def encrypt(self, holder: int, values: NDArray[Any], level: int, scale: float) -> bytes:
        """The library's bytes."""
        return self._holder(holder)._encrypt(values, level, scale)

    def load(self, holder: int, payload: bytes, level: int, scale: float) -> int:
        """The number of a ciphertext."""
        return self.keep(self._holder(holder)._load(payload, level, scale))

    def decrypt(self, holder: int, ciphertext: Ciphertext) -> NDArray[np.complex128]:
        """All slots."""
        return np.asarray(self._holder(holder)._decrypt(self.local(ciphertext)), np.complex128)

    def evaluation_key(self, holder: int, name: str) -> bytes:
        """The library's bytes of one key: neither process ever has them all."""
        return self._holder(holder)._evaluation_key(name)

    def save(self, holder: int, path: str) -> None:
        """Write the secret key to a file of its owner's."""
        self._holder(holder).save(Path(path))

    def _holder(self, number: int) -> KeyHolder:
        found: KeyHolder = self.get(number)
        return found

    def _kept(self, holder: KeyHolder) -> tuple[int, bytes]:
        return self.keep(holder), holder.key_id
