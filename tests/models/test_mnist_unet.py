"""The networks of `mnist`: shapes, depth, what is refused, and noise levels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from hefw.core.graph import Affine, Polynomial
from hefw.core.normalise import normalise
from hefw.models.compiler.compile import compile
from hefw.models.mnist import autoencoder as autoencoders
from hefw.models.mnist.autoencoder import Autoencoder
from hefw.models.mnist.judge import Judge
from hefw.models.mnist.schedule import POWER, make_scheduler
from hefw.models.mnist.unet import LatentUNet
from hefw.models.schedules import linear_updates
from hefw.models.training import seeded


def tiny(**config: Any) -> LatentUNet:
    """With random weights in every layer."""
    made: LatentUNet = seeded(0, lambda: _random(LatentUNet(channels=4, maps=2, **config)))
    return made.eval()


def _random(unet: LatentUNet) -> LatentUNet:
    for layer in (unet.out, unet.out_residual):
        torch.nn.init.normal_(layer.weight, std=0.1)
    for part in unet.conditioning:
        torch.nn.init.normal_(part.place, std=0.1)
    return unet


@pytest.mark.parametrize("quadratics", [3, 4, 6])
def test_depth_is_two_a_quadratic_and_one(quadratics: int) -> None:
    graph = compile(tiny(quadratics=quadratics), (2, 8, 8), scheduler=make_scheduler(), steps=2, classes=10)
    flat = normalise(graph)
    depth: dict[str, int] = {}
    for name, node in flat.nodes.items():
        own = isinstance(node, (Affine, Polynomial))
        reads = [t.source for t in node.terms] if isinstance(node, Affine) else [getattr(node, "source", name)]
        depth[name] = own + max((depth[source] for source in reads if source in depth), default=0)
    assert max(depth.values()) == 2 * quadratics + 1
    assert sum(isinstance(node, Polynomial) for node in flat.nodes.values()) == quadratics
    assert sum(isinstance(node, Affine) for node in flat.nodes.values()) == quadratics + 1


def test_the_label_enters_by_one_matrix_that_no_step_changes() -> None:
    graph = compile(tiny(), (2, 8, 8), scheduler=make_scheduler(), steps=3, classes=10)
    terms = [t for node in graph.nodes.values() if isinstance(node, Affine) for t in node.terms if t.source == "label"]
    assert len(terms) == 4
    assert all(term.factors is None for term in terms)


def test_every_entry_depends_on_label_and_timestep() -> None:
    unet, x = tiny(), torch.zeros(1, 2, 8, 8)
    with torch.no_grad():
        given = [unet(x, t, torch.tensor([y])).sample for t, y in ((10, 3), (700, 3), (10, 4))]
    assert all((given[0] - other).abs().min() > 0 for other in given[1:])


def test_the_preactivations_are_those_of_all_quadratics() -> None:
    unet = tiny(quadratics=5)
    v, z = unet.forward_with_preactivations(torch.randn(3, 2, 8, 8), torch.tensor([0, 1, 999]), torch.tensor([0, 9, 5]))
    assert v.shape == (3, 2, 8, 8)
    assert [tuple(part.shape[1:]) for part in z] == [(4, 8, 8), *[(8, 4, 4)] * 3, (4, 8, 8)]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="sample_size=7: expected an even number"):
        LatentUNet(sample_size=7)
    with pytest.raises(ValueError, match="quadratics=2: expected at least 3"):
        LatentUNet(quadratics=2)
    with pytest.raises(ValueError, match="timestep with 2 entries: expected 1 or 3"):
        tiny()(torch.zeros(3, 2, 8, 8), torch.tensor([1, 2]), torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize("steps", [2, 5, 10, 20])
def test_steps_are_at_the_angles_of_the_schedule(steps: int) -> None:
    shares = 1 - (np.arange(steps + 1) / steps) ** POWER
    turns = -np.diff(math.pi / 2 * shares)
    updates = linear_updates(make_scheduler(), steps)
    assert [u.timestep for u in updates] == [1000 - 1 - k * 1000 // steps for k in range(steps)]
    for update, turn in zip(updates, turns, strict=True):
        assert update.sample == pytest.approx(math.cos(turn), abs=1e-3)
        assert update.predictions == pytest.approx((-math.sin(turn),), abs=2e-3)


def test_a_trace_of_the_picture_is_left_at_the_last_timestep() -> None:
    kept = make_scheduler().alphas_cumprod
    assert 0 < kept[-1] < 1e-5
    assert kept[0] > 0.9999
    assert (kept.diff() < 0).all()


def test_pictures_and_latents_have_their_shapes_and_ranges() -> None:
    autoencoder: Autoencoder = seeded(0, Autoencoder).eval()
    assert autoencoder.latent_shape == (2, 8, 8)
    images = torch.rand(3, 1, 28, 28) * 2 - 1
    latents = autoencoders.encode(autoencoder, images)
    drawn = autoencoders.decode(autoencoder, 3 * latents)
    assert latents.shape == (3, 2, 8, 8)
    assert drawn.shape == images.shape
    assert drawn.abs().max() <= 1


def test_a_picture_whose_size_is_a_multiple_of_eight_has_no_margin() -> None:
    autoencoder = Autoencoder(image_size=32, latent_channels=3, channels=16)
    assert autoencoder.margin == 0
    assert autoencoder.encode(torch.zeros(2, 1, 32, 32)).shape == (2, *autoencoder.latent_shape) == (2, 3, 8, 8)


def test_scores_follow_from_features() -> None:
    judge: Judge = seeded(0, Judge).eval()
    images = torch.randn(5, 1, 28, 28)
    features = judge.features(images)
    assert features.shape == (5, 64)
    assert features.min() == 0
    assert torch.allclose(judge(images), judge.head(features))
