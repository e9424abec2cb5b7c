"""Activations as polynomials: `hefw.compile(..., activations="fit")`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler, UNet2DModel
from torch import nn
from torch.nn import functional

import hefw
from hefw.backends.simulator.backend import SimulatorBackend
from hefw.core.errors import CompileError
from hefw.core.graph import Graph, Polynomial
from hefw.core.lower import Request, lower
from hefw.core.normalise import normalise
from hefw.models.compiler import fit
from hefw.testing.session import Session, plain, psnr
from hefw.testing.unets import Static, blocks

pytestmark = pytest.mark.filterwarnings("ignore")

SHAPE = (1, 4, 4)


class Net(nn.Module):
    """One activation after a convolution, one in the time embedding, which is public and stays as it is."""

    def __init__(self, activation) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 1, 1)
        self.time, self.activation = nn.Linear(1, 3), activation

    def forward(self, x, t):
        time = functional.silu(self.time(t.to(x.dtype)[:, None] / 1000))
        return self.last(self.activation(3 * self.first(x) + time[:, :, None, None]))


def scheduler(kind=DDIMScheduler):
    options = {"clip_sample": False} if kind is DDIMScheduler else {"set_alpha_to_one": True}
    return kind(prediction_type="v_prediction", **options)


def fitted(net: nn.Module, degree: int, **options) -> Graph:
    made = options.pop("scheduler", scheduler())
    return hefw.compile(net.eval(), SHAPE, scheduler=made, steps=4, activations="fit", degree=degree, **options)


ACTIVATIONS = {
    "silu": functional.silu,
    "gelu": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_more_degrees_are_closer(name) -> None:
    errors = {}
    for degree in (2, 8):
        graph = fitted(Net(ACTIVATIONS[name]), degree)
        (record,) = graph.metadata["activations"]
        assert [len(n.coefficients) - 1 for n in graph.nodes.values() if isinstance(n, Polynomial)] == [degree]
        errors[degree] = graph.metadata["prediction_error"]
        assert record["rms_error"] <= record["max_error"]
    assert errors[8] < errors[2] < 0.3
    json.dumps(graph.metadata)


def test_what_the_metadata_says_is_the_error() -> None:
    net = Net(functional.silu)
    graph = fitted(net, 4)
    (record,) = graph.metadata["activations"]
    low, high = record["range"]
    latents = graph.calibration["latent"][:8]
    with torch.no_grad():
        read = 3 * net.double().first(torch.from_numpy(latents).reshape(-1, *SHAPE))
        read = (
            read
            + functional.silu(net.time(torch.tensor([[graph.timesteps[0] / 1000]], dtype=torch.float64)))[
                :, :, None, None
            ]
        )
        assert low <= read.min()
        assert read.max() <= high
        values = graph.evaluate(0, {"latent": latents})
        found = next(values[name] for name, node in graph.nodes.items() if isinstance(node, Polynomial))
        off = np.abs(found - functional.silu(read).reshape(len(latents), -1).numpy()).max()
    assert off <= record["max_error"] + 1e-9


def test_each_channel_has_its_own_interval() -> None:
    rng = np.random.default_rng(0)
    values = np.stack([0.1 * rng.normal(size=200), 10 * rng.normal(size=200)])
    silu = lambda x: functional.silu(torch.from_numpy(x)).numpy()  # noqa: E731
    found = fit.fitted(silu, values, 6, "block", "silu")
    x = torch.from_numpy(values.T.copy())
    off = (found(x) - functional.silu(x)).abs().amax(dim=0)
    assert off[0] < 1e-6 < off[1]
    assert found.half[1] > 50 * found.half[0]


def test_the_calibration_given_is_what_counts() -> None:
    small = fitted(Net(functional.silu), 3, calibration=0.1 * torch.randn(6, *SHAPE))
    large = fitted(Net(functional.silu), 3, calibration=10 * torch.randn(6, *SHAPE))
    wide = [graph.metadata["activations"][0]["range"][1] for graph in (small, large)]
    assert wide[1] > 5 * wide[0]


def test_a_history_of_the_scheduler_is_followed() -> None:
    assert fitted(Net(functional.silu), 6, scheduler=scheduler(PNDMScheduler)).metadata["prediction_error"] < 0.01


@pytest.mark.parametrize("degree", [3, 8])
def test_fitted_polynomials_of_high_degree_keep_their_precision(degree) -> None:
    graph = fitted(Net(torch.sigmoid), degree)
    program = lower(graph, SimulatorBackend(), Request(allow_insecure=True, precision_db=50))
    inputs = {"latent": np.random.default_rng(0).normal(size=(3, 16))}
    found = Session(program, SimulatorBackend()).trajectory(inputs)
    assert psnr(found[-1]["latent"], plain(graph, inputs)[-1]["latent"]) > 45
    squares = [node for node in normalise(graph).nodes.values() if isinstance(node, Polynomial)]
    assert len(squares) <= 2 * degree


def test_a_unet_of_diffusers_with_its_own_activations() -> None:
    torch.manual_seed(0)
    net = UNet2DModel(**blocks((4,), num_class_embeds=3))
    for part in list(net.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(part, name, Static(child.num_channels))
    graph = hefw.compile(net.eval(), (1, 8, 8), scheduler=scheduler(), steps=2, classes=3, activations="fit", degree=6)
    assert len(graph.metadata["activations"]) == 11
    assert graph.metadata["prediction_error"] < 0.02


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"activations": "drop"}, "activations='drop' is not allowed; allowed: 'refuse', 'fit'"),
        ({"degree": 1}, "degree=1 is not allowed; allowed: 2 to 15"),
        ({"degree": 16}, "degree=16 is not allowed"),
        ({"degree": 2.5}, "degree=2.5 is not allowed"),
    ],
)
def test_what_is_asked_is_checked(options, expected) -> None:
    with pytest.raises(CompileError, match=expected):
        hefw.compile(Net(functional.silu), SHAPE, scheduler=scheduler(), steps=2, **{"activations": "fit", **options})


def test_what_is_no_activation_is_refused_as_ever() -> None:
    with pytest.raises(CompileError, match=r"softmax.*exponentials"):
        fitted(Net(lambda h: h.softmax(1)), 4)
    with pytest.raises(CompileError, match=r"'silu' is no polynomial.*activations='fit'"):
        hefw.compile(Net(functional.silu).eval(), SHAPE, scheduler=scheduler(), steps=2)
