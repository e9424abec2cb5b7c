"""One key holder and evaluator a backend, on a ring that is small and insecure; shared, because keys take time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from hefw.backends.simulator.backend import SimulatorBackend
from hefw.backends.tenseal.backend import TensealBackend
from hefw.core.backend import Backend, Ciphertext, Evaluator, KeyHolder, KeyManifest
from hefw.core.params import CkksParams, Resolved

PARAMS = CkksParams(4096, (40, 30, 30, 30), (60,), 30.0, allow_insecure=True)
SCALE = 2.0**30
STEPS = (1, 5, 1024, 2047)
MANIFEST = KeyManifest(dict.fromkeys(STEPS, 3), relinearisation=True, conjugation=True)


@dataclass
class Parties:
    """Both sides of one backend, and values to work on."""

    backend: Backend
    params: Resolved
    holder: KeyHolder
    evaluator: Evaluator
    x: NDArray[np.float64]
    y: NDArray[np.float64]

    def encrypt(self, values: NDArray[np.float64], level: int = 3, scale: float = SCALE) -> Ciphertext:
        return self.evaluator.load(self.holder.encrypt_bytes(values, level, scale))

    def check(self, found: Ciphertext, expected: NDArray, level: int, scale: float, tolerance: float = 1e-3) -> None:
        """Value, level and scale, over the wire and locally."""
        assert found.level == level
        assert found.scale == pytest.approx(scale, rel=1e-12)
        assert np.abs(self.holder.decrypt(found) - expected).max() < tolerance
        if found.size == 2:
            assert np.abs(self.holder.decrypt_bytes(self.evaluator.dump(found)) - expected).max() < tolerance


def make(backend: Backend) -> Parties:
    params = backend.resolve(PARAMS)
    holder = backend.keygen(params, MANIFEST)
    evaluator = backend.evaluator(params)
    evaluator.load_keys(dict(holder.evaluation_keys()))
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 1, (2, params.slots))
    return Parties(backend, params, holder, evaluator, x, y)


@pytest.fixture(scope="session", params=[SimulatorBackend, TensealBackend], ids=["simulator", "tenseal"])
def parties(request: pytest.FixtureRequest) -> Parties:
    return make(request.param())
