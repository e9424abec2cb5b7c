"""The digits UNet: shapes, truly additive conditioning, bounds, saving and training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hefw.core.errors import ConfigError
from hefw.models.digits import train as training
from hefw.models.digits.unet import DigitsUNet


@pytest.fixture
def model() -> DigitsUNet:
    torch.manual_seed(3)
    return DigitsUNet(channels=8).double().eval()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    sample = torch.randn(5, 1, 8, 8, generator=generator, dtype=torch.float64)
    return sample, torch.tensor([0, 1, 250, 700, 999]), torch.tensor([0, 3, 3, 7, 9])


def test_forward_keeps_the_shape_and_returns_as_diffusers_models_do(model, batch) -> None:
    sample, t, y = batch
    v = model(sample, t, y).sample
    assert v.shape == (5, 1, 8, 8)
    assert v.dtype == torch.float64
    assert torch.equal(model(sample, t, y, return_dict=False)[0], v)
    same_t = model(sample, 250, y).sample
    assert torch.allclose(same_t[2], v[2], atol=1e-12)
    assert not torch.allclose(same_t[0], v[0])


def test_preactivations_have_two_resolutions(model, batch) -> None:
    shapes = [tuple(z.shape) for z in model.preactivations(*batch)]
    assert shapes == [(5, 8, 4, 4), (5, 16, 2, 2), (5, 16, 2, 2), (5, 8, 4, 4)]


@pytest.mark.parametrize(
    ("sample", "timestep", "labels", "match"),
    [
        (torch.zeros(2, 1, 8, 4), 0, torch.zeros(2, dtype=torch.long), r"expected \(batch, 1, 8, 8\)"),
        (torch.zeros(2, 1, 8, 8), 0, torch.zeros(3, dtype=torch.long), r"class_labels of shape \(3,\)"),
        (torch.zeros(2, 1, 8, 8), torch.zeros(3), torch.zeros(2, dtype=torch.long), "timestep with 3 entries"),
    ],
)
def test_wrong_shapes_are_refused(model, sample, timestep, labels, match) -> None:
    with pytest.raises(ValueError, match=match):
        model(sample.double(), timestep, labels)


def test_conditioning_is_exactly_additive(model, batch) -> None:
    """Rebuild the network from its exported parts: biases enter as T_k(t) + L_k[y] and nowhere else."""
    sample, _, y = batch
    times, tables = model.time_biases(250), model.label_tables()
    assert [bias.shape for bias in times] == [(8,), (16,), (16,), (8,)]
    assert [table.shape for table in tables] == [(10, 8), (10, 16), (10, 16), (10, 8)]
    bias = [(times[k] + tables[k][y])[:, :, None, None] for k in range(4)]
    act = [a.coefficients[:, None, None] for a in model.activations]
    z0 = model.inp(torch.nn.functional.pixel_unshuffle(sample, 2)) + bias[0]
    a0 = z0 + act[0] * z0**2
    z1 = model.down(a0) + bias[1]
    z2 = z1 + model.mid(z1 + act[1] * z1**2) + bias[2]
    z3 = model.up(z2 + act[2] * z2**2) + model.skip(a0) + bias[3]
    v = torch.nn.functional.pixel_shuffle(model.out(z3 + act[3] * z3**2), 2)
    assert torch.allclose(model(sample, 250, y).sample, v, atol=1e-12, rtol=0)
    for exported, z in zip(model.preactivations(sample, 250, y), (z0, z1, z2, z3), strict=True):
        assert torch.allclose(exported, z, atol=1e-12, rtol=0)


def test_time_biases_take_one_timestep(model) -> None:
    with pytest.raises(ValueError, match="one timestep, got 2"):
        model.time_biases(torch.tensor([1, 2]))


def test_quadratic_coefficients_never_fall_below_their_bound(model) -> None:
    for activation in model.activations:
        assert torch.allclose(activation.coefficients, torch.tensor(0.25, dtype=torch.float64))
        with torch.no_grad():
            activation.raw.fill_(-50.0)
        assert float(activation.coefficients.detach().min()) >= 0.1


def test_save_and_load_round_trip(model, batch, tmp_path: Path) -> None:
    training.save(tmp_path / "weights", model.float(), training.make_scheduler())
    loaded, scheduler = training.load(tmp_path / "weights")
    sample, t, y = batch
    assert torch.equal(loaded(sample.float(), t, y).sample, model(sample.float(), t, y).sample)
    assert loaded.config.channels == 8
    assert scheduler.config.prediction_type == "v_prediction"
    assert scheduler.config.clip_sample is False
    assert torch.equal(scheduler.alphas_cumprod, training.make_scheduler().alphas_cumprod)


def test_save_leaves_no_half_file_when_interrupted(model, tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "weights"
    training.save(folder, model.float(), training.make_scheduler())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == {"config.json", "diffusion_pytorch_model.safetensors", "scheduler_config.json"}

    def interrupted(self: DigitsUNet, aside: str) -> None:
        (Path(aside) / "diffusion_pytorch_model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(DigitsUNet, "save_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.save(folder, model, training.make_scheduler())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_loading_from_nowhere_is_refused_here(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        training.load(tmp_path / "nowhere")


def test_range_penalty_counts_only_what_is_outside() -> None:
    inside = [torch.full((2, 3, 4, 4), 3.0), torch.full((2, 3, 4, 4), -3.0)]
    assert float(training.range_penalty(inside)) == 0.0
    outside = torch.zeros(2, 1, 1, 2)
    outside[0, 0, 0, 0] = -5.0
    # one of four entries exceeds by 2; the largest excesses of the two samples are 4 and 0
    assert float(training.range_penalty([outside])) == pytest.approx(4 / 4 + 0.1 * (4 + 0) / 2)


def test_a_short_training_lowers_the_loss_and_repeats() -> None:
    def short() -> tuple[DigitsUNet, list[tuple[int, int, str]]]:
        seen: list[tuple[int, int, str]] = []
        return training.train(200, seed=5, channels=8, progress=lambda *args: seen.append(args)), seen

    state, threads = torch.get_rng_state(), torch.get_num_threads()
    model, seen = short()
    again, _ = short()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert [(done, total) for done, total, _ in seen] == [(100, 200), (200, 200)]
    first, second = (float(detail.removeprefix("loss ")) for _, _, detail in seen)
    assert second < 0.9 * first
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_training_for_the_command_line_writes_its_folder(tmp_path: Path) -> None:
    training.run(tmp_path / "out", iterations=2)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["_class_name"] == "DigitsUNet"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_training_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave it out"):
        training.run(tmp_path / "out", data=tmp_path)


def test_interrupted_training_writes_nothing(tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.run(tmp_path / "out", iterations=100, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_training_needs_iterations() -> None:
    with pytest.raises(ValueError, match="iterations=0"):
        training.train(0)
