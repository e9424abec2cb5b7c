"""The judge of samples, and the bundled weights before it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hefw.models.digits import quality, train
from hefw.models.digits.unet import DigitsUNet


@pytest.fixture(scope="module")
def bundled() -> tuple[DigitsUNet, train.DDIMScheduler]:
    return train.load()


def test_bundled_weights_are_small_and_complete() -> None:
    files = {path.name: path.stat().st_size for path in train.BUNDLED.iterdir()}
    assert {
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "scheduler_config.json",
        "MODEL_CARD.md",
    } == set(files)
    assert sum(files.values()) < 1_000_000


def test_bundled_model_draws_what_the_label_says(bundled) -> None:
    (result,) = quality.measure(*bundled, samples=500, steps=(10,))
    assert result.samples == 500
    assert result.accuracy >= 0.98
    assert result.distance < 40
    assert result.diverged == 0
    assert result.largest_preactivation < 6


def test_bundled_model_runs_in_double_precision(bundled) -> None:
    model, scheduler = bundled
    labels = torch.arange(20) % 10
    single = quality.sample_plain(model, scheduler, labels, 5, seed=2)
    double_model = DigitsUNet.from_pretrained(train.BUNDLED).double().eval()
    double = quality.sample_plain(double_model, scheduler, labels, 5, seed=2)
    assert double.dtype == torch.float64
    assert float((single - double).abs().max()) < 1e-3


def test_bundled_coefficients_keep_their_bound(bundled) -> None:
    for activation in bundled[0].activations:
        assert float(activation.coefficients.detach().min()) >= 0.1


def test_sampling_repeats_with_its_seed_and_does_not_depend_on_batches(bundled, monkeypatch) -> None:
    labels = torch.arange(7)
    whole = quality.sample_plain(*bundled, labels, 3, seed=9)
    again = quality.sample_plain(*bundled, labels, 3, generator=torch.Generator().manual_seed(9))
    assert torch.equal(whole, again)
    monkeypatch.setattr(quality, "BATCH", 3)
    parts = quality.sample_plain(*bundled, labels, 3, seed=9)
    assert torch.allclose(whole, parts, atol=1e-5)
    assert not torch.allclose(whole, quality.sample_plain(*bundled, labels, 3, seed=10), atol=0.1)


def test_seed_and_generator_together_are_refused(bundled) -> None:
    with pytest.raises(ValueError, match="not both"):
        quality.sample_plain(*bundled, torch.arange(2), 3, seed=1, generator=torch.Generator())


def test_largest_preactivation_is_that_of_the_run(bundled) -> None:
    labels = torch.arange(10)
    trace: list[float] = []
    quality.sample_plain(*bundled, labels, 3, seed=4, trace=trace)
    assert len(trace) == 3
    assert quality.largest_preactivation(*bundled, labels, 3, seed=4) == max(trace)


def test_real_digits_are_their_labels_and_shuffled_ones_are_not() -> None:
    images, labels = train.load_images()
    assert quality.label_accuracy(images, labels) > 0.99
    assert quality.label_accuracy(images, (labels + 1) % 10) < 0.02


def test_grey_values_are_clamped() -> None:
    grey = quality.to_grey(torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0]).reshape(1, 1, 1, 5))
    assert grey.tolist() == [[0.0, 0.0, 8.0, 16.0, 16.0]]


def test_frechet_distance_of_gaussians_in_closed_form() -> None:
    """Same covariance: the squared distance of means. Scaled covariance: (s - 1)^2 times its trace."""
    rows = np.random.default_rng(0).normal(size=(500, 6))
    assert quality.frechet_distance(rows, rows) == pytest.approx(0, abs=1e-6)
    assert quality.frechet_distance(rows, rows + 2) == pytest.approx(24, abs=1e-6)
    expected = np.trace(np.cov(rows.T))
    scaled = rows.mean(0) + 2 * (rows - rows.mean(0))
    assert quality.frechet_distance(rows, scaled) == pytest.approx(expected, rel=1e-4)


def test_frechet_distance_refuses_unlike_features() -> None:
    with pytest.raises(ValueError, match="equal features"):
        quality.frechet_distance(np.zeros((3, 4)), np.zeros((3, 5)))


def test_halves_of_the_real_digits_are_near() -> None:
    near = quality.held_out_distance()
    assert 0 < near < 20
    assert quality.held_out_distance() == near
    images, _ = train.load_images()
    assert quality.distance_to_real(images) == pytest.approx(0, abs=1e-6)
    assert quality.distance_to_real(images.roll(1, dims=3)) > 10 * near


def test_divergence_is_reported(bundled) -> None:
    model = DigitsUNet.from_pretrained(train.BUNDLED)
    with torch.no_grad():
        model.mid.weight.mul_(50)
    (result,) = quality.measure(model, bundled[1], samples=20, steps=(10,))
    assert result.diverged > 0
    assert result.largest_preactivation > 100 or math.isnan(result.largest_preactivation)
