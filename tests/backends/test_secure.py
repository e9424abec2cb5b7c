"""The tests of real size: 128 bits, and the precision of a chain of every operation that a program uses."""

from __future__ import annotations

import numpy as np
import pytest

from hefw.backends.pyfhel.backend import PyfhelBackend
from hefw.backends.tenseal.backend import TensealBackend
from hefw.core.backend import Backend, KeyManifest
from hefw.core.params import CkksParams


@pytest.mark.secure
@pytest.mark.parametrize("backend", [TensealBackend(), PyfhelBackend()], ids=lambda backend: backend.name)
def test_a_chain_at_128_bits_keeps_its_precision(backend: Backend) -> None:
    params = backend.resolve(CkksParams(16384, (60, 45, 45, 45, 45), (60,), 45.0))
    assert params.params.security_bits >= 128
    holder = backend.keygen(params, KeyManifest({3: 4, 8191: 4}))
    evaluator = backend.evaluator(params)
    evaluator.load_keys(dict(holder.evaluation_keys()))
    rng = np.random.default_rng(0)
    expected, weight = rng.uniform(-1, 1, (2, params.slots))
    ct = evaluator.load(holder.encrypt_bytes(expected, 4, 2.0**45))
    for step in (3, 8191):
        plain = evaluator.encode(weight, ct.level, params.primes[ct.level])
        ct = evaluator.rescale(evaluator.mul_plain(evaluator.rotate(ct, step), plain))
        ct = evaluator.add_plain(ct, evaluator.encode(0.5, ct.level, ct.scale))
        expected = np.roll(expected, -step) * weight + 0.5
        ct = evaluator.rescale(evaluator.square(ct))
        expected = expected**2
    assert ct.level == 0
    found = holder.decrypt_bytes(evaluator.dump(ct))
    error = found - expected
    assert np.sqrt(np.mean(error.real**2)) < 1e-7
    assert np.abs(error).max() < 1e-5
