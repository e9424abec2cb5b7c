"""The variants of `digits`: what each promises, its network, its training, and its bundled weights."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import hefw
from hefw import plugins
from hefw.core.errors import ConfigError
from hefw.models.digits import attention, distil, judge, shallow, train
from hefw.models.digits.attention import AttentionUNet, PolynomialAttention
from hefw.models.digits.model import JudgedDigits
from hefw.models.digits.shallow import ShallowUNet
from hefw.models.digits.unet import DigitsUNet, LabelledUNet
from hefw.models.schedules import Own
from hefw.quality.ranges import ranges
from hefw.testing import ModelConformance

NAMES = ("digits-shallow", "digits-attention", "digits-distilled")
TRAININGS = {"digits-shallow": shallow, "digits-attention": attention, "digits-distilled": distil}
#: Of a training of two iterations in a test; the distilled network is that of `digits`.
CLASSES = {"digits-shallow": ShallowUNet, "digits-attention": AttentionUNet, "digits-distilled": DigitsUNet}
#: Accuracy that 100 pictures must have: below what the cards say of 900, by three deviations of so few.
ACCURATE = {"digits-shallow": 0.92, "digits-attention": 0.97, "digits-distilled": 0.97}
STEPS = {"digits-shallow": 10, "digits-attention": 10, "digits-distilled": 2}
MOST = 6.0


@cache
def bundled(name: str) -> JudgedDigits:
    registry = plugins.registry()
    made: JudgedDigits = registry.load("model", name)(registry.entry("model", name).options())
    return made


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


# -- bundled weights ---------------------------------------------------------------------------------------------------


def test_bundled_weights_are_small_and_complete(name: str) -> None:
    folder = TRAININGS[name].BUNDLED
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    files = {"config.json", "diffusion_pytorch_model.safetensors", "scheduler_config.json", "MODEL_CARD.md"}
    assert set(sizes) == files
    assert sum(sizes.values()) < 1_000_000
    config = json.loads((folder / "config.json").read_text())
    assert config["_class_name"] == CLASSES[name].__name__
    assert "_name_or_path" not in config


def test_pictures_are_of_their_labels_and_in_range(name: str) -> None:
    model = bundled(name)
    scheduler = model.scheduler(Own, {})
    graph = model.graph(scheduler, STEPS[name])
    noise = np.random.default_rng(1).normal(size=(100, *model.latent_shape))
    labels = np.arange(100) % model.labels
    found = ranges(graph, model.inputs(noise, labels))
    assert (judge.predict(model.latents(found.outputs)) == labels).mean() >= ACCURATE[name]
    assert found.largest.max() <= MOST


def test_what_the_network_counts_is_what_is_squared(name: str) -> None:
    """The range penalty of training sees everything that a polynomial of the graph takes."""
    model = bundled(name)
    graph = model.graph(model.scheduler(Own, {}), 1)
    generator = torch.Generator().manual_seed(2)
    sample = torch.randn(1, 1, 8, 8, generator=generator, dtype=torch.float64)
    unet = type(model.unet).from_config(model.unet.config).double()
    unet.load_state_dict(model.unet.state_dict())
    with torch.no_grad():
        counted = unet.preactivations(sample, int(graph.timesteps[0]), torch.tensor([3]))
    found = ranges(graph, model.inputs(sample.numpy(), np.array([3])))
    assert len(found.nodes) == len(counted)
    largest = sorted(float(z.abs().max()) for z in counted)
    np.testing.assert_allclose(sorted(found.nodes.values()), largest, rtol=1e-6)


class TestShallow(ModelConformance):
    max_depth = 5

    @pytest.fixture
    def model(self) -> JudgedDigits:
        return bundled("digits-shallow")


class TestAttention(ModelConformance):
    max_depth = 15
    steps, images = 2, 2

    @pytest.fixture
    def model(self) -> JudgedDigits:
        return bundled("digits-attention")


# -- digits-shallow ----------------------------------------------------------------------------------------------------


@pytest.mark.secure
def test_shallow_fits_the_smallest_ring() -> None:
    result = hefw.generate(
        model="digits-shallow", labels="0-3", steps=2, params={"precision_db": 40, "ring_dimension": 8192}
    )
    params = result.record.params
    assert (params.ring_dimension, params.depth, params.security_bits) == (8192, 5, 128)
    assert result.record.psnr_db is not None
    assert result.record.psnr_db >= 40


def test_shallow_is_two_squares_and_three_affine_maps() -> None:
    torch.manual_seed(0)
    net = ShallowUNet(channels=3, lower_channels=5).double().eval()
    x, t, y = torch.randn(2, 1, 8, 8, dtype=torch.float64), 400, torch.tensor([1, 7])
    bias = [
        (time + table[y])[:, :, None, None] for time, table in zip(net.time_biases(t), net.label_tables(), strict=True)
    ]
    a = [act.coefficients[:, None, None] for act in net.activations]
    patches = torch.nn.functional.pixel_unshuffle(x, 2)
    z0 = net.inp(patches) + bias[0]
    a0 = z0 + a[0] * z0**2
    z1 = net.down(a0) + bias[1]
    v = net.up(z1 + a[1] * z1**2) + net.skip(a0) + net.shortcut(patches)
    torch.testing.assert_close(net(x, t, y).sample, torch.nn.functional.pixel_shuffle(v, 2))


# -- digits-attention --------------------------------------------------------------------------------------------------


def test_the_kernel_is_a_polynomial_of_the_scores() -> None:
    torch.manual_seed(1)
    net = PolynomialAttention(6, heads=2, head_width=3, tokens=(2, 2)).double()
    a = torch.randn(2, 6, 2, 2, dtype=torch.float64)
    placed = (a + net.position).flatten(2)
    q, k, v = (layer.weight[:, :, 0, 0] @ placed + layer.bias[:, None] for layer in (net.query, net.key, net.value))
    read = torch.zeros(2, 6, 4, dtype=torch.float64)
    for head in (slice(0, 3), slice(3, 6)):
        for i in range(4):
            scores = (q[:, head, i, None] * k[:, head]).sum(1) / 3**0.5
            read[:, head, i] = (v[:, head] * ((1 + scores / 2) ** 2 / 4)[:, None]).sum(2)
    wanted = net.out(read.reshape(2, 6, 2, 2))
    found, squared = net(a)
    torch.testing.assert_close(found, wanted)
    assert [z.shape[1:] for z in squared] == [(2, 4, 4, 3)] * 2 + [(2, 4, 4)] + [(2, 4, 4, 3)] * 2


def test_it_begins_as_digits_with_another_middle() -> None:
    torch.manual_seed(0)
    net, teacher = attention.begun().state_dict(), train.load()[0].state_dict()
    assert all(torch.equal(net[key], value) for key, value in teacher.items() if not key.startswith("mid."))
    assert {key.split(".")[1] for key in net if key.startswith("mid.")} == {"position", "query", "key", "value", "out"}


# -- digits-distilled --------------------------------------------------------------------------------------------------


def test_distilled_draws_in_its_own_number_of_steps() -> None:
    result = hefw.generate(model="digits-distilled", labels="0,1", backend="simulator")
    assert result.record.evaluations == result.record.config["steps"] == distil.STEPS == 2
    assert result.record.psnr_db is None or result.record.psnr_db >= 40


def test_the_teachers_trajectory_ends_at_its_pictures() -> None:
    teacher, scheduler = train.load()
    states, labels = distil.trajectory(teacher, 20, seed=3)
    assert states.shape == (distil.STEPS + 1, 20, 1, 8, 8)
    sample = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    scheduler.set_timesteps(distil.TEACHER_STEPS)
    seen = [sample]
    with torch.no_grad():
        for t in scheduler.timesteps:
            sample = scheduler.step(teacher(sample, t, labels).sample, t, sample).prev_sample
            seen.append(sample)
    torch.testing.assert_close(states, torch.stack(seen[:: distil.TEACHER_STEPS // distil.STEPS]))


def test_a_short_distillation_lowers_the_loss_and_repeats() -> None:
    def short() -> tuple[DigitsUNet, list[float]]:
        seen: list[float] = []

        def told(done: int, total: int, what: str) -> None:
            if what.startswith("loss "):
                seen.append(float(what.removeprefix("loss ")))

        return distil.distil(200, seed=5, trajectories=200, progress=told), seen

    (one, seen), (two, _) = short(), short()
    assert seen[1] < 0.8 * seen[0]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


# -- trainings ---------------------------------------------------------------------------------------------------------


def test_a_training_for_the_command_line_writes_its_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distil, "TRAJECTORIES", 20)
    training = plugins.registry().training(name)
    training(tmp_path / "out", seed=0, iterations=1, data=None, progress=None)
    network, _ = train.load_as(CLASSES[name], tmp_path / "out")
    assert isinstance(network, LabelledUNet)
    assert "_name_or_path" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_training_data_is_refused(name: str, tmp_path: Path) -> None:
    module: ModuleType = TRAININGS[name]
    with pytest.raises(ConfigError, match=f"model '{name}' is trained on scikit-learn's digits; leave it out"):
        module.run(tmp_path / "out", data=tmp_path)


@pytest.mark.parametrize("kind", [ShallowUNet, AttentionUNet])
def test_a_picture_of_odd_patches_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="sample_size=10: expected a multiple of 4"):
        kind(sample_size=10)
