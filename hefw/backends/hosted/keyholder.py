"""The client's side of a hosted backend. The secret key is in the worker, and never in this process."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.backends.hosted.channel import LARGE
from hefw.backends.hosted.process import Handle, Worker
from hefw.core.backend import Ciphertext, KeyHolder, KeyManifest
from hefw.core.errors import CapabilityError, ProtocolError
from hefw.core.params import Resolved


class HostedKeyHolder(KeyHolder):
    """Handles of its ciphertexts are `Handle`s: objects of the library in the worker."""

    def __init__(self, params: Resolved, manifest: KeyManifest, worker: Worker, number: int, key_id: bytes) -> None:
        super().__init__(params, manifest, key_id)
        self._worker = worker
        self._home = Handle(worker, number)

    def decrypt(self, ciphertext: Ciphertext) -> NDArray[np.complex128]:
        """All slots. A ciphertext that lives in an evaluator's worker is brought over, relinearised if need be."""
        handle = ciphertext.handle
        if isinstance(handle, Handle) and handle.home is not None and handle.worker.side == "evaluator":
            there, number = handle.worker, handle.home.number
            payload = there.call("hand_over", bytes, number, there.sent(ciphertext), most=LARGE)
            level, scale = ciphertext.level, ciphertext.scale
            ciphertext = Ciphertext(self._load(payload, level, scale), level, scale)
        return super().decrypt(ciphertext)

    def save(self, path: Path) -> None:
        """Write the secret key to a file that only its owner can read; the worker does."""
        path = Path(path).absolute()
        # In a folder of its own, which only its owner can read: nothing stays behind if the worker dies in between.
        folder = tempfile.mkdtemp(dir=path.parent, prefix=path.name)
        try:
            written = Path(folder) / "secret"
            self._worker.call("save", type(None), self._home.number, str(written))
            os.replace(written, path)
        finally:
            shutil.rmtree(folder)

    def _encrypt(self, values: NDArray[Any], level: int, scale: float) -> bytes:
        found: bytes = self._worker.call("encrypt", bytes, self._home.number, values, level, scale, most=LARGE)
        return found

    def _decrypt(self, ciphertext: Ciphertext) -> NDArray[np.complex128]:
        sent = self._worker.sent(ciphertext)
        found: NDArray[Any] = self._worker.call("decrypt", np.ndarray, self._home.number, sent)
        if found.shape != (self.params.slots,) or found.dtype != np.complex128:
            raise ProtocolError(f"{self._worker.name} decrypted to {found.dtype} of shape {found.shape}, not to slots")
        return found

    def _load(self, payload: bytes, level: int, scale: float) -> Handle:
        number = self._worker.call("load", int, self._home.number, payload, level, scale)
        return Handle(self._worker, number, self._home, payload)

    def _evaluation_key(self, name: str) -> bytes:
        found: bytes = self._worker.call("evaluation_key", bytes, self._home.number, name, most=LARGE)
        return found

    def _secret_bytes(self) -> bytes:
        raise CapabilityError(f"the secret key of backend {self.params.backend!r} stays in its worker; use save")
