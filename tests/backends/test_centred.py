"""Key switches with centred digits: half of SEAL's noise, none that depends on keys alone, and the same result."""

from __future__ import annotations

import numpy as np
import pytest

from hefw.backends.tenseal.backend import TensealBackend
from hefw.core.backend import KeyManifest
from hefw.core.noise import NoiseModel
from hefw.core.params import CkksParams

N = 4096


def noise_of(bits: tuple[int, ...], operation: str) -> tuple[np.ndarray, float]:
    """The noise of a rotation or a relinearisation, and what the model says."""
    backend = TensealBackend()
    params = backend.resolve(CkksParams(N, bits, (60,), 50.0, allow_insecure=True))
    top = params.max_level
    holder, evaluator = backend.keygen(params, KeyManifest({1: top})), backend.evaluator(params)
    evaluator.load_keys(dict(holder.evaluation_keys()))
    x = np.random.default_rng(0).uniform(-1, 1, params.slots)
    # At a small scale the noise of a key switch is far above that of a fresh encryption; for a square, above rounding.
    scale = 2.0**30 if operation == "rotation" else 2.0**15
    ct = evaluator.load(holder.encrypt_bytes(x, top, scale))
    before = holder.decrypt(ct)
    assert evaluator._faster(ct)
    if operation == "rotation":
        error = (holder.decrypt(evaluator.rotate(ct, 1)) - np.roll(before, -1)).real * scale
    else:
        error = (holder.decrypt(evaluator.square(ct)) - before**2).real * scale**2
    ratios = sum((q / params.special_primes[0]) ** 2 for q in params.primes)
    return error, NoiseModel(N).key_switch(ratios, centred=True)


@pytest.mark.parametrize("operation", ["rotation", "square"])
@pytest.mark.parametrize("bits", [(60, 60, 60), (60, 58, 56), (50, 40, 30, 60)])
def test_noise_is_that_of_centred_digits(bits, operation) -> None:
    error, forecast = noise_of(bits, operation)
    assert float(np.std(error)) == pytest.approx(forecast, rel=0.2)
    assert float(np.abs(error).max()) < 20 * forecast  # none of the few slots that a mean falls on


def test_digits_far_above_other_primes_are_reduced() -> None:
    error, forecast = noise_of((60, 30, 28), "rotation")
    assert float(np.std(error)) == pytest.approx(forecast, rel=0.2)
