"""Who judges digits, and the bundled weights."""

from __future__ import annotations

import numpy as np

from hefw.models.digits import judge, train


def test_bundled_weights_are_small_and_complete() -> None:
    files = {path.name: path.stat().st_size for path in train.BUNDLED.iterdir()}
    assert {
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "scheduler_config.json",
        "MODEL_CARD.md",
    } == set(files)
    assert sum(files.values()) < 1_000_000


def test_bundled_coefficients_keep_their_bound() -> None:
    for activation in train.load()[0].activations:
        assert float(activation.coefficients.detach().min()) >= 0.1


def test_real_digits_are_read_and_shuffled_ones_are_not() -> None:
    real = judge.reference()
    assert real.training_images is not None
    assert real.training_labels is not None
    assert (judge.predict(real.training_images) == real.training_labels).mean() > 0.99
    moved = np.roll(real.training_images, 4, axis=3)
    assert (judge.predict(moved) == real.training_labels).mean() < 0.5


def test_the_reference_is_of_the_pictures() -> None:
    real = judge.reference()
    assert real.training_images is not None
    assert (judge.to_grey(real.training_images) == real.training).all()
    assert real.real.shape == (1797, 64)


def test_grey_values_are_clamped() -> None:
    grey = judge.to_grey(np.array([-2.0, -1.0, 0.0, 1.0, 3.0]).reshape(1, 1, 1, 5))
    assert grey.tolist() == [[0.0, 0.0, 8.0, 16.0, 16.0]]
