"""`hefw.compile` of diffusers' UNets, of a plain torch UNet, and of `digits`, whose graph was made by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler, UNet2DConditionModel, UNet2DModel
from torch import nn

import hefw
from hefw.backends.simulator.backend import SimulatorBackend
from hefw.core.graph import Affine, Graph
from hefw.core.lower import Request, lower
from hefw.core.normalise import normalise
from hefw.models.digits.graph import digits_graph
from hefw.models.digits.train import load
from hefw.models.schedules import initial_noise, linear_updates
from hefw.testing.session import Session, plain, psnr
from hefw.testing.unets import CONDITIONAL, CONFIGURATIONS, Plain, blocks, polynomial

pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = 3


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(clip_sample=False, prediction_type="v_prediction")


def agrees(graph: Graph, net: nn.Module, made, steps: int, shape, classes: int | None) -> None:
    """The whole trajectory in plaintext is diffusers', with the module in float64."""
    net = net.double()
    rng = np.random.default_rng(7)
    images = 4
    start = rng.normal(size=(images, *shape)) * initial_noise(made, steps)
    labels = np.arange(images) % (classes or 1)
    inputs = {name: np.zeros((images, int(np.prod(node.shape)))) for name, node in graph.inputs.items()}
    inputs["latent"] = start.reshape(images, -1)
    more = ()
    if classes:
        inputs["label"], more = np.eye(classes)[labels], (torch.from_numpy(labels),)
    made.set_timesteps(steps)
    x = torch.from_numpy(start)
    history = graph.trajectory(inputs)
    output = graph.outputs["latent"]
    with torch.no_grad():
        for step, t in enumerate(made.timesteps):
            scaled = made.scale_model_input(x, t).double()
            if isinstance(net, UNet2DConditionModel):
                found = net(scaled, t, None, *more).sample
            else:
                found = net(scaled, t if isinstance(net, UNet2DModel) else t.expand(images), *more)
            prediction = getattr(found, "sample", found)
            x = made.step(prediction, t, x).prev_sample.double()
            result = history[step][output.node] * output.factors[step]
            size = float(x.abs().max())
            assert np.abs(result - x.reshape(images, -1).numpy()).max() < 1e-5 * max(1, size), step


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_unet_of_diffusers_draws_what_its_graph_does(name) -> None:
    torch.manual_seed(0)
    configuration = CONFIGURATIONS[name]
    net = polynomial(UNet2DModel(**configuration))
    shape = (configuration["in_channels"], 8, 8)
    classes = configuration.get("num_class_embeds")
    graph = hefw.compile(net, shape, scheduler=scheduler(), steps=STEPS, classes=classes)
    agrees(graph, net, scheduler(), STEPS, shape, classes)


@pytest.mark.parametrize("classes", [None, 5])
def test_a_conditional_unet_of_diffusers_without_its_text(classes) -> None:
    torch.manual_seed(0)
    net = polynomial(UNet2DConditionModel(**CONDITIONAL, num_class_embeds=classes))
    graph = hefw.compile(net, (4, 8, 8), scheduler=scheduler(), steps=STEPS, classes=classes)
    agrees(graph, net, scheduler(), STEPS, (4, 8, 8), classes)


@pytest.mark.parametrize("kind", [DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler])
@pytest.mark.parametrize("classes", [None, 3])
def test_a_plain_unet_with_every_kind_of_scheduler(kind, classes) -> None:
    """One step, a scaled input at fractional timesteps, and a history."""
    torch.manual_seed(1)
    net = Plain(classes).eval()
    options = {EulerDiscreteScheduler: {"timestep_spacing": "linspace"}, PNDMScheduler: {"set_alpha_to_one": True}}
    made = kind.from_config(scheduler().config, **options.get(kind, {}))
    graph = hefw.compile(net, (2, 8, 8), scheduler=made, steps=5, classes=classes)
    agrees(graph, net, made, 5, (2, 8, 8), classes)


def test_digits_compiled_is_digits_by_hand() -> None:
    net, own = load()
    compiled = hefw.compile(net, (1, 8, 8), scheduler=own, steps=10, classes=10)
    by_hand = digits_graph(net, linear_updates(own, 10))
    rng = np.random.default_rng(3)
    inputs = {"latent": rng.normal(size=(10, 64)), "label": np.eye(10)}
    for step in range(10):
        found, expected = (g.evaluate(step, inputs)["update"] for g in (compiled, by_hand))
        assert np.abs(found - expected).max() < 1e-9
    sizes = [sorted(len(t.matrix.values) for n in g.nodes.values() if isinstance(n, Affine) for t in n.terms)
             for g in (compiled, by_hand)]  # fmt: skip
    assert sizes[0] == sizes[1]
    programs = [lower(g, SimulatorBackend()) for g in (compiled, by_hand)]
    assert programs[0].interface.depth == programs[1].interface.depth
    assert programs[0].counts() == programs[1].counts()
    assert "activations.0" in compiled.nodes


def test_a_compiled_unet_runs_on_ciphertext() -> None:
    torch.manual_seed(0)

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inp, self.out = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)
            self.time, self.labels = nn.Linear(1, 4), nn.Embedding(3, 4)

        def forward(self, x, t, y):
            h = self.inp(x) + (self.time(t[:, None] / 1000) + self.labels(y))[:, :, None, None]
            return self.out(h + 0.2 * h * h)

    graph = hefw.compile(Tiny(), (1, 4, 4), scheduler=scheduler(), steps=2, classes=3)
    program = lower(graph, SimulatorBackend(), Request(allow_insecure=True))
    inputs = {"latent": np.random.default_rng(0).normal(size=(3, 16)), "label": np.eye(3)}
    found = Session(program, SimulatorBackend()).trajectory(inputs)
    expected = plain(graph, inputs)
    assert psnr(found[-1]["latent"], expected[-1]["latent"]) > 55
    assert program.interface.depth == 3


def test_a_unet_of_diffusers_has_no_more_levels_than_its_squares_ask_for() -> None:
    torch.manual_seed(0)
    net = polynomial(UNet2DModel(**blocks((4,))))
    flat = normalise(hefw.compile(net, (1, 8, 8), scheduler=scheduler(), steps=2))
    squares = sum(not isinstance(node, Affine) for node in flat.nodes.values()) - len(flat.inputs)
    assert len(flat.nodes) == len(flat.inputs) + squares + squares + 1
    assert squares == 2 * 5 + 1  # five resnets, and the last activation


def test_a_server_loads_the_file_without_torch(tmp_path) -> None:
    torch.manual_seed(0)
    graph = hefw.compile(Plain().eval(), (2, 8, 8), scheduler=scheduler(), steps=2)
    graph.save(tmp_path / "model.hefw")
    code = (
        "import sys; from hefw.core.graph import Graph; "
        "g = Graph.load(sys.argv[1]); assert 'torch' not in sys.modules; print(g.digest)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.hefw")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == graph.digest


def test_the_module_is_left_as_it_was() -> None:
    net = Plain().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    hefw.compile(net, (2, 8, 8), scheduler=scheduler(), steps=2)
    after = net.state_dict()
    assert all(torch.equal(before[name], after[name]) and after[name].dtype == before[name].dtype for name in before)
    assert net.first.weight.requires_grad


def test_calibration_is_kept() -> None:
    latents = torch.randn(6, 2, 8, 8)
    graph = hefw.compile(Plain(3).eval(), (2, 8, 8), scheduler=scheduler(), steps=2, classes=3, calibration=latents)
    assert np.allclose(graph.calibration["latent"], latents.reshape(6, -1).numpy())
    assert graph.calibration["label"].shape == (6, 3)
