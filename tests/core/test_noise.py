"""The noise model against its own definition, and its forecast against SEAL's actual noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from runs import BACKENDS

from hefw.core.backend import KeyManifest
from hefw.core.noise import NoiseModel
from hefw.core.params import CkksParams

PARAMS = CkksParams(4096, (50, 40, 40), (60,), 30.0, allow_insecure=True)


@pytest.mark.parametrize("ring_dimension", [1024, 16384])
def test_the_bias_profile_has_unit_mean_square_and_few_large_slots(ring_dimension) -> None:
    profile = NoiseModel(ring_dimension).key_switch_bias()
    assert profile.shape == (ring_dimension // 2,)
    assert np.mean(profile**2) == pytest.approx(1, rel=0.01)
    assert profile.max() > 10
    assert np.median(profile) < 0.1


def test_noise_grows_with_ring_and_primes_and_with_small_special_primes() -> None:
    small, large = NoiseModel(4096), NoiseModel(16384)
    assert large.fresh == pytest.approx(2 * small.fresh)
    assert large.rescale > small.rescale
    assert small.fresh > small.encode
    assert small.key_switch(6) > small.key_switch(2)
    assert small.key_switch(2, 2.0**10) > 100 * small.key_switch(2)


@pytest.mark.parametrize("backend", ["simulator", "tenseal"])
def test_forecasts_are_within_a_factor_of_two_of_what_happens(backend) -> None:
    library = BACKENDS[backend]
    params = library.resolve(PARAMS)
    holder = library.keygen(params, KeyManifest({1: 2}))
    evaluator = library.evaluator(params)
    evaluator.load_keys(dict(holder.evaluation_keys()))
    values = np.random.default_rng(0).uniform(-1, 1, params.slots)
    model = NoiseModel(4096)

    def noise(ct, expected) -> float:
        return float(np.std(holder.decrypt(ct).real - expected)) * ct.scale

    def between(found: float, forecast: float) -> bool:
        return forecast / 2 < found < forecast * 2

    fresh = holder.encrypt(values, 2, 2.0**30)
    assert between(noise(fresh, values), model.fresh)
    scaled = evaluator.rescale(holder.encrypt(values, 2, 2.0**62))
    assert between(noise(scaled, values), model.rescale)
    turned = evaluator.rotate(holder.encrypt(values, 2, 2.0**30), 1)
    ratio = max(params.primes) / params.special_primes[0]
    forecast = math.hypot(model.key_switch(3, ratio), model.fresh)
    assert between(noise(turned, np.roll(values, -1)), forecast)
