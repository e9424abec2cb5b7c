"""The simulator's key holder. There is no secret: whoever has its bytes can read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.backends.simulator import payload
from hefw.core.backend import Ciphertext, KeyHolder, KeyManifest
from hefw.core.envelope import Envelope
from hefw.core.noise import NoiseModel
from hefw.core.params import Resolved


class SimulatorKeyHolder(KeyHolder):
    """Adds the noise of a fresh encryption, and reads values back."""

    def _encrypt(self, values: NDArray[Any], level: int, scale: float) -> bytes:
        std = NoiseModel(self.params.params.ring_dimension).fresh / scale
        noise = np.random.default_rng().normal(scale=std, size=(2, self.params.slots))
        return payload.write(np.broadcast_to(values, (self.params.slots,)) + noise[0] + 1j * noise[1], level)

    def _decrypt(self, ciphertext: Ciphertext) -> NDArray[np.complex128]:
        return np.asarray(ciphertext.handle)

    def _load(self, data: bytes, level: int, scale: float) -> NDArray[np.complex128]:
        return payload.read(data, self.params.slots, level)

    def _evaluation_key(self, name: str) -> bytes:
        return payload.key(name)

    def _secret_bytes(self) -> bytes:
        return b"simulated: no secret"

    @staticmethod
    def load(params: Resolved, manifest: KeyManifest, path: Path) -> SimulatorKeyHolder:
        """The key holder of a file that `save` wrote."""
        envelope = Envelope.unpack(path.read_bytes()).expect(
            kind="secret-key", backend=params.backend, params_digest=params.digest
        )
        return SimulatorKeyHolder(params, manifest, envelope.key_id)
