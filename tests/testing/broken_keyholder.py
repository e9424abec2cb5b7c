"""The key holders of `broken_backends`: in a file of their own, as it should be."""

from __future__ import annotations

import numpy as np

from hefw.backends.simulator.keyholder import SimulatorKeyHolder
from hefw.core.envelope import Envelope


class Holder(SimulatorKeyHolder):
    @classmethod
    def load(cls, params, manifest, path):
        envelope = Envelope.unpack(path.read_bytes()).expect(
            kind="secret-key", backend=params.backend, params_digest=params.digest
        )
        return cls(params, manifest, envelope.key_id)


class LengthsTell(Holder):
    def _encrypt(self, values, level, scale):
        return super()._encrypt(values, level, scale) + bytes(int(np.abs(values).max() > 10))

    def _load(self, data, level, scale):
        return super()._load(data[: 4 + 16 * self.params.slots], level, scale)


class PublicSecret(Holder):
    def save(self, path):
        super().save(path)
        path.chmod(0o644)


class FixedKeyId(Holder):
    def __init__(self, params, manifest, key_id=None):
        super().__init__(params, manifest, b"always the same!")


class Noisy(Holder):
    def _encrypt(self, values, level, scale):
        noise = np.random.default_rng().normal(scale=2000 / scale, size=self.params.slots)
        return super()._encrypt(values + noise, level, scale)
