"""The published baseline does what was published, and says what it extrapolated."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from hefw.bench import published
from hefw.bench.published import Array, Published, Step
from hefw.core.params import security_bits
from hefw.plugins import registry

pytestmark = pytest.mark.secure

FACTOR = 0.98
TOLERANCE = 0.02  # a scale of 26 bits
KERNEL = np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]])


@pytest.fixture(scope="module")
def baseline() -> Published:
    return Published()


def latents(seed: int, shape: tuple[int, int, int] = (1, 9, 8)) -> tuple[Array, Array]:
    """A latent and the plaintext tensor of its update."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape), rng.normal(size=shape)


def moved_one_by_one(distortion: torch.Tensor, threshold: float) -> set[int]:
    """Places in the flat latent that go to plaintext: the least distortion first, until the sum is reached."""
    left, moved = distortion.flatten().double(), set()
    limit, total = threshold * float(left.sum()), 0.0
    while total < limit:
        place = int(left.argmin())
        total += float(left[place])
        left[place] = math.inf
        moved.add(place)
    return moved


@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.3, 0.9])
def test_selection_moves_the_least_distortion_first(threshold: float) -> None:
    latent = torch.from_numpy(latents(1, (4, 16, 16))[0]).float()
    latent[:, 3:5] = 0.0
    selection = published.select(latent, threshold)
    moved = moved_one_by_one(latent.abs() * published._cost(latent), threshold)
    assert set((~selection).flatten().nonzero()[:, 0].tolist()) == moved


def test_cost_is_hill_over_all_channels() -> None:
    latent = torch.from_numpy(latents(2, (3, 9, 8))[0]).float()
    summed = np.pad(latent.numpy().sum(axis=0), 1, mode="reflect")
    high = np.zeros((9, 8))
    for row in range(9):
        for column in range(8):
            high[row, column] = abs(np.sum(summed[row : row + 3, column : column + 3] * KERNEL))

    def mean(plane: Array, size: int) -> Array:
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(plane, size // 2, mode="reflect"), (size, size))
        return 3 * windows.mean(axis=(2, 3))  # three equal planes

    expected = mean(1 / mean(high, 3), 15)
    np.testing.assert_allclose(published._cost(latent), np.broadcast_to(expected, (3, 9, 8)), rtol=1e-4)


def test_a_constant_latent_has_no_cost_and_is_encrypted_whole() -> None:
    assert published.select(torch.ones(1, 16, 16)).all()


@pytest.mark.parametrize("way", ["full", "partial", "sparse"])
def test_every_way_computes_the_update(baseline: Published, way: str) -> None:
    latent, addend = latents(3)
    step: Step = getattr(baseline, way)(latent, FACTOR, addend)
    np.testing.assert_allclose(step.latent, FACTOR * latent + addend, atol=TOLERANCE)
    encrypted = latent.size if way == "full" else int(published.select(torch.from_numpy(latent).float()).sum())
    assert step.encrypted_elements == step.measured_elements == encrypted
    assert not step.extrapolated
    assert step.ciphertexts == (1 if way == "sparse" else encrypted)
    assert tuple(step.seconds) == published.PARTS
    assert all(seconds > 0 for part, seconds in step.seconds.items() if (way, part) != ("full", "select"))


def test_plaintext_entries_are_exact_and_the_others_are_not(baseline: Published) -> None:
    latent, addend = latents(4)
    selection = published.select(torch.from_numpy(latent).float(), 0.5).numpy()
    assert 0 < selection.sum() < selection.size
    for way in (baseline.partial, baseline.sparse):
        errors = np.abs(way(latent, FACTOR, addend, threshold=0.5).latent - (FACTOR * latent + addend))
        assert errors[~selection].max() < 1e-6 < np.median(errors[selection])


def test_values_that_fill_more_than_one_ciphertext(baseline: Published) -> None:
    latent, addend = latents(5, (4, 64, 64))
    step = baseline.sparse(latent, FACTOR, addend)
    np.testing.assert_allclose(step.latent, FACTOR * latent + addend, atol=TOLERANCE)
    assert 0.86 < step.encrypted_elements / latent.size < 0.91
    assert step.ciphertexts == 4


@pytest.mark.parametrize("way", ["full", "partial"])
def test_extrapolation_is_said_and_linear(baseline: Published, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    latent, addend = latents(6)
    ticks = iter(range(100))
    monkeypatch.setattr(published.time, "perf_counter", lambda: float(next(ticks)))
    step: Step = getattr(baseline, way)(latent, FACTOR, addend, measured=8)
    assert step.extrapolated
    assert step.measured_elements == 8
    assert step.ciphertexts == step.encrypted_elements > 8
    ratio = step.encrypted_elements / 8
    select = 0.0 if way == "full" else 1.0
    expected = {"select": select, "encrypt": ratio, "update": ratio + 1, "decrypt": ratio, "merge": ratio}
    assert step.seconds == pytest.approx(expected)
    computed = ~np.isnan(step.latent)
    assert computed.sum() == 8 + latent.size - step.encrypted_elements
    np.testing.assert_allclose(step.latent[computed], (FACTOR * latent + addend)[computed], atol=TOLERANCE)


def test_parameters_have_128_bits() -> None:
    assert security_bits(published.RING_DIMENSION, sum(published.PRIME_BITS)) == 128


def test_nobody_is_offered_the_baseline() -> None:
    assert not [entry for entry in registry().names("strategy") if "published" in entry]
    code = "import sys, hefw.cli, hefw.run, hefw.plugins\nassert 'hefw.bench.published' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
