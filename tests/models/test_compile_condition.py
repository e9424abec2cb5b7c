"""Private conditions that are no label: `hefw.compile(..., condition=(size,))`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn
from torch.nn import functional

import hefw
from hefw.backends.simulator.backend import SimulatorBackend
from hefw.core.errors import CompileError
from hefw.core.lower import Request, lower
from hefw.testing.session import Session, plain, psnr

pytestmark = pytest.mark.filterwarnings("ignore")

SHAPE, SIZE = (1, 4, 4), 6


class Text(nn.Module):
    """A prompt's embedding joins two activations, by a linear layer of its own and by one that both share."""

    def __init__(self, classes: int | None = None) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 1, 1)
        self.time, self.shared, self.own = nn.Linear(1, 4), nn.Linear(SIZE, 4), nn.Linear(4, 4)
        self.labels = nn.Embedding(classes, 4) if classes else None

    def forward(self, x, t, y=None, condition=None):
        shared = self.shared(condition)
        emb = functional.silu(self.time(t.to(x.dtype)[:, None] / 1000)) + self.own(shared)
        if y is not None:
            emb = emb + self.labels(y)
        h = self.first(x) + emb[:, :, None, None]
        h = self.second(h + 0.1 * h * h) + shared[:, :, None, None]
        return self.last(h + 0.1 * h * h)


class Third(nn.Module):
    """The condition is the third positional argument, of any name, and two-dimensional."""

    def forward(self, x, t, prompt):
        return x * 0.5 + prompt.mean(dim=1).reshape(-1, *SHAPE)


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(clip_sample=False, prediction_type="v_prediction")


def private(images: int, classes: int | None) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    given = {"latent": rng.normal(size=(images, 16)), "condition": rng.normal(size=(images, SIZE))}
    return given | ({"label": np.eye(classes)[np.arange(images) % classes]} if classes else {})


def predicted(net: nn.Module, inputs: dict[str, np.ndarray], t: float) -> np.ndarray:
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    x = tensors["latent"].reshape(-1, *SHAPE)
    labels = {"y": tensors["label"].argmax(dim=1)} if "label" in tensors else {}
    with torch.no_grad():
        return net.double()(x, torch.full((len(x),), int(t)), condition=tensors["condition"], **labels).numpy()


@pytest.mark.parametrize("classes", [None, 3])
def test_an_embedding_is_an_input_once_a_request(classes) -> None:
    torch.manual_seed(0)
    net = Text(classes).eval()
    graph = hefw.compile(net, SHAPE, scheduler=scheduler(), steps=3, classes=classes, condition=(SIZE,))
    assert graph.inputs["condition"].once
    assert graph.inputs["condition"].shape == (SIZE,)
    inputs = private(4, classes)
    updates = graph.outputs["latent"]
    made = scheduler()
    made.set_timesteps(3)
    for step, t in enumerate(graph.timesteps):
        result = graph.evaluate(step, inputs)[updates.node] * updates.factors[step]
        x = torch.from_numpy(inputs["latent"]).reshape(-1, *SHAPE)
        wanted = made.step(torch.from_numpy(predicted(net, inputs, t)), int(t), x).prev_sample
        assert np.abs(result - wanted.reshape(4, -1).numpy()).max() < 1e-5


def test_any_third_argument_takes_a_condition_of_any_shape() -> None:
    graph = hefw.compile(Third(), SHAPE, scheduler=scheduler(), steps=2, condition=(2, 16))
    prompt = np.random.default_rng(0).normal(size=(3, 2, 16))
    inputs = {"latent": np.ones((3, 16)), "condition": prompt.reshape(3, -1)}
    values = graph.evaluate(0, inputs)
    other = graph.evaluate(0, {**inputs, "condition": 0 * inputs["condition"]})
    assert np.allclose(values["update"] - other["update"], prompt.mean(axis=1))


def test_a_conditioned_step_runs_on_ciphertext() -> None:
    torch.manual_seed(0)
    graph = hefw.compile(Text(3).eval(), SHAPE, scheduler=scheduler(), steps=2, classes=3, condition=(SIZE,))
    program = lower(graph, SimulatorBackend(), Request(allow_insecure=True))
    inputs = private(3, 3)
    found = Session(program, SimulatorBackend()).trajectory(inputs)
    assert psnr(found[-1]["latent"], plain(graph, inputs)[-1]["latent"]) > 50
    assert "condition" in program.kept


def test_conditions_are_calibrated_by_name() -> None:
    conditions, latents = torch.randn(7, SIZE), torch.randn(7, *SHAPE)
    graph = hefw.compile(
        Text().eval(),
        SHAPE,
        scheduler=scheduler(),
        steps=2,
        condition=(SIZE,),
        calibration={"condition": conditions, "latent": latents},
    )
    assert np.allclose(graph.calibration["condition"], conditions.numpy())
    assert np.allclose(graph.calibration["latent"], latents.reshape(7, -1).numpy())


class Curved(nn.Module):
    def forward(self, x, t, condition):
        return x + functional.silu(condition).sum()


class Gated(nn.Module):
    def forward(self, x, t, condition):
        return x / condition.sum()


@pytest.mark.parametrize(
    ("net", "options", "expected"),
    [
        (Curved(), {}, "'silu' is no polynomial"),
        (Gated(), {}, "divides by an encrypted value"),
        (Text(), {"condition": (0,)}, r"condition \(0,\) is not allowed"),
        (Text(), {"condition": 6}, "condition 6 is not allowed"),
        (nn.Identity(), {}, r"cannot be called as forward\(x, t, condition\)"),
        (Text(), {"calibration": {"condition": torch.zeros(3, 5)}}, r"'condition' of shape \(3, 5\).*\(images, 6\)"),
        (Text(), {"calibration": {"prompt": torch.zeros(3, 6)}}, "'prompt' is not allowed; allowed: latent, condition"),
        (
            Text(),
            {"calibration": {"condition": torch.zeros(3, 6), "latent": torch.zeros(4, *SHAPE)}},
            "3 and 4 samples; give as many of each",
        ),
    ],
)
def test_what_cannot_be_conditioned_is_refused(net, options, expected) -> None:
    with pytest.raises(CompileError, match=expected) as caught:
        hefw.compile(net, SHAPE, scheduler=scheduler(), steps=2, **{"condition": (SIZE,), **options})
    assert "\n" not in str(caught.value)
