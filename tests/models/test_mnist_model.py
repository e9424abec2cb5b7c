"""The bundled models of `mnist`: what they draw, who judges it, and that a server can evaluate them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hefw
from hefw import plugins
from hefw.core.errors import ConfigError
from hefw.models.frechet import frechet_distance
from hefw.models.mnist import judge as judges
from hefw.models.mnist.bundle import BUNDLED, write
from hefw.models.mnist.model import Mnist, MnistTwoStep
from hefw.models.plugin import MnistOptions
from hefw.testing import ModelConformance

NAMES = ("mnist", "mnist-2step", "mnist-large")
MEGABYTE = 1_000_000


@cache
def bundled(name: str) -> Mnist:
    made: Mnist = plugins.registry().load("model", name)(MnistOptions())
    return made


def drawn(model: Mnist, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures by the network in float32 and its own scheduler and steps, and the labels they were drawn for."""
    labels = torch.arange(count) % 10
    latents = torch.randn(count, *model.latent_shape, generator=torch.Generator().manual_seed(seed))
    scheduler = model.scheduler(plugins.registry().load("scheduler", "ddim"), {})
    scheduler.set_timesteps(model.steps)
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            prediction = model.denoise(latents, timestep, labels)
            latents = scheduler.step(prediction, timestep, latents).prev_sample
    return model.decode(latents.double().numpy()), labels.numpy()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("one_thread")
def test_pictures_are_of_their_labels_and_like_real_ones(name: str) -> None:
    model = bundled(name)
    images, labels = drawn(model, 200)
    assert images.shape == (200, 1, 28, 28)
    assert (model.judge(images) == labels).mean() >= 0.95
    reference = model.reference()
    assert reference.training_labels is not None
    rows = np.concatenate([np.flatnonzero(reference.training_labels == label)[:20] for label in range(10)])
    floor = frechet_distance(reference.training[rows], reference.real)
    noise = frechet_distance(model.features(np.random.default_rng(0).uniform(-1, 1, images.shape)), reference.real)
    assert frechet_distance(model.features(images), reference.real) < min(2 * floor, 0.2 * noise)


def test_the_judge_knows_the_training_pictures_by_their_features() -> None:
    model = bundled("mnist")
    reference = model.reference()
    assert reference.real.shape == (2_000, 64)
    assert reference.training.shape == (8_000, 64)
    assert reference.training_labels is not None
    found = judges.labels_of(model.shared.judge, torch.from_numpy(reference.training).float())
    assert (found.numpy() == reference.training_labels).mean() > 0.99


@pytest.mark.usefixtures("one_thread")
def test_pictures_survive_the_autoencoder() -> None:
    model = bundled("mnist")
    images, _ = drawn(model, 40)
    again = model.decode(model.encode(images))
    assert np.abs(again - images).mean() < 0.06  # of a range of 2
    assert (model.judge(again) == model.judge(images)).mean() >= 0.95
    latents = model.encode(images)
    assert latents.shape == (40, 2, 8, 8)
    assert 0.8 < latents.std() < 1.2


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_is_small_and_has_a_card(name: str) -> None:
    folder = BUNDLED / name
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5 * MEGABYTE
    assert name in (folder / "MODEL_CARD.md").read_text().splitlines()[0]


def test_all_bundles_together_are_small() -> None:
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) < 8 * MEGABYTE


def test_a_folder_without_autoencoder_takes_the_bundled_one(tmp_path: Path) -> None:
    model = bundled("mnist")
    write(tmp_path, model.unet)
    again = Mnist(MnistOptions(pretrained=str(tmp_path)))
    for name, value in model.unet.state_dict().items():
        assert torch.equal(again.unet.state_dict()[name], value), name
    latents = np.random.default_rng(0).normal(size=(2, 2, 8, 8))
    assert np.array_equal(again.decode(latents), model.decode(latents))


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model 'mnist-2step': pretrained .*hefw train mnist-2step"):
        MnistTwoStep(MnistOptions(pretrained=str(tmp_path / "none")))


def test_a_whole_picture_is_drawn_from_one_message(tmp_path: Path) -> None:
    result = hefw.generate(
        backend="simulator",
        model="mnist-2step",
        labels=(3, 7),
        refresh="none",
        params={"precision_db": 40.0},
        out=str(tmp_path / "run"),
    )
    assert result.record.psnr_db is not None
    assert result.record.psnr_db > 35
    assert result.images.shape == (2, 1, 28, 28)
    assert result.after == (0, 2)  # nothing between noise and picture is decrypted


class TestMnist(ModelConformance):
    """With half the steps, which takes half the time."""

    steps = 2
    max_depth = 10
    precision_db = 40.0

    @pytest.fixture
    def model(self) -> Mnist:
        return bundled("mnist")

    @pytest.fixture
    def refused(self, model: Mnist) -> Mapping[str, Any]:
        from diffusers import DDIMScheduler

        return {"clip_sample": model.scheduler(DDIMScheduler, {"clip_sample": True})}
