"""`digits-silu` as bundled: the converted networks beside their original, and a step on the simulator."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hefw.backends.simulator.backend import SimulatorBackend
from hefw.core.errors import ConfigError
from hefw.core.graph import sources
from hefw.core.lower import Request, lower
from hefw.core.normalise import normalise
from hefw.models.convert import Distillation
from hefw.models.digits_silu import train
from hefw.models.digits_silu.model import DigitsSilu
from hefw.models.frechet import frechet_distance
from hefw.models.plugin import DigitsSiluOptions
from hefw.plugins import registry
from hefw.testing.session import Session, plain, psnr

pytestmark = pytest.mark.filterwarnings("ignore")

IMAGES = 200


@pytest.fixture(scope="module", params=[19, 9])
def model(request):
    return DigitsSilu(DigitsSiluOptions(levels=request.param))


def scheduler(model):
    return model.scheduler(registry().load("scheduler", "auto"), {})


@torch.no_grad()
def drawn(model):
    """Pictures of all labels in turn, in float32."""
    x = torch.randn(IMAGES, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels, steps = torch.arange(IMAGES) % 10, scheduler(model)
    steps.set_timesteps(10)
    for t in steps.timesteps:
        x = steps.step(model.denoise(x, t, labels), t, x).prev_sample
    return x.double().numpy()


def test_converted_networks_draw_what_the_original_draws(model):
    before, after = drawn(model.original()), drawn(model)
    labels = np.arange(IMAGES) % 10
    assert (model.judge(before) == labels).mean() >= 0.98
    assert (model.judge(after) == labels).mean() >= 0.98
    real = model.reference().real
    distances = [frechet_distance(model.features(images), real) for images in (before, after)]
    assert distances[1] < 2 * distances[0]
    assert np.abs(after).max() < 3


def test_the_report_beside_the_weights_is_of_these_weights(model):
    assert model.unet.report.rows[-1].levels == model.levels == model.unet.report.settings["levels"]


def depth(graph):
    """Affine regions and squares in sequence, of the graph that is planned."""
    found = {}
    for name, node in normalise(graph).nodes.items():
        before = [found[source] for source in sources(node)]
        found[name] = 1 + max(before) if before else 0
    return max(found.values())


def test_a_step_on_the_simulator_is_the_twins():
    model = DigitsSilu(DigitsSiluOptions(levels=9))
    graph = model.graph(scheduler(model), 1)
    assert depth(graph) == 9
    backend = SimulatorBackend()
    program = lower(graph, backend, Request(precision_db=40))
    rng = np.random.default_rng(0)
    inputs = model.inputs(rng.normal(size=(1, 1, 8, 8)), np.array([3]))
    found, expected = Session(program, backend).trajectory(inputs), plain(graph, inputs)
    assert psnr(found[-1]["latent"], expected[-1]["latent"]) >= 40


def test_training_writes_what_the_model_loads(tmp_path, monkeypatch):
    tiny = Distillation(iterations=2, images=10, own_images=10, batch=8)
    monkeypatch.setattr(train, "CONVERSIONS", {9: tiny})
    told = []
    train.run(tmp_path / "new", iterations=2, progress=lambda *progress: told.append(progress))
    model = DigitsSilu(DigitsSiluOptions(pretrained=str(tmp_path / "new"), levels=9))
    assert model.unet.report.settings["distillation"]["iterations"] == 2
    prediction = model.denoise(torch.zeros(2, 1, 8, 8), 999, torch.arange(2))
    assert torch.isfinite(prediction).all()
    assert model.original().denoise(torch.zeros(2, 1, 8, 8), 999, torch.arange(2)).shape == prediction.shape
    assert {what.partition(":")[0] for _, _, what in told} == {"original", "distillation"}
    with pytest.raises(ConfigError, match="leave it out"):
        train.run(tmp_path / "other", data=tmp_path)


def test_levels_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="levels"):
        DigitsSiluOptions(levels=11)
    with pytest.raises(ConfigError, match="digits-silu"):
        DigitsSilu(DigitsSiluOptions(pretrained="nowhere"))
