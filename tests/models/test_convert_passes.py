"""Each replacement alone, against what it replaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from hefw.models.convert import fit
from hefw.models.convert.calibrate import AttentionSeen, NormMoments, Read
from hefw.models.convert.calls import Call
from hefw.models.convert.converted import Converted
from hefw.models.convert.levels import depth, least_harmful
from hefw.models.convert.replacements import MINIMUM_QUADRATIC, Context
from hefw.models.convert.survey import Site

NORM = Site(1, "norm", "group_norm", "norm", (4, 3, 3), -3)
ACTIVATION = Site(2, "act", "silu", "activation", (4, 3, 3), -3)
ATTENTION = Site(3, "attention", "scaled_dot_product_attention", "attention", (2, 5, 6), -3)


def answer(fitted, *tensors, step=((1.0,),), labels=None, function=functional.silu):
    context = Context(torch.tensor(step), labels)
    with torch.no_grad():
        return fitted[1].eval()(Call(1, "", "", function, tensors, {}), context)


def moments(x, y):
    """Of tensors (timesteps, batch, channels, height, width)."""
    x, y = (v.double().movedim(2, 1).flatten(2) for v in (x, y))
    return NormMoments(*(v.sum(2) for v in (torch.ones_like(x), x, y, x * x, x * y)))


def test_a_static_norm_is_the_norm_at_the_calibrated_statistics():
    """Pictures that are permutations of each other have one mean and variance; the mean moves with the timestep."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 9, generator=generator)
    images = torch.stack([base[:, torch.randperm(9, generator=generator)] for _ in range(6)]).reshape(2, 3, 4, 3, 3)
    images = images + torch.tensor([0.0, 5.0])[:, None, None, None, None]
    weight, bias = torch.tensor([1.0, -2.0, 0.5, 3.0]), torch.tensor([0.0, 1.0, -1.0, 2.0])
    normed = torch.stack([functional.group_norm(x, 2, weight, bias) for x in images])
    fitted = fit.static_norm(NORM, moments(images, normed))
    for k, step in enumerate(torch.eye(2).tolist()):
        torch.testing.assert_close(answer(fitted, images[k], step=[step]), normed[k], rtol=1e-4, atol=1e-4)


def test_a_static_norm_is_the_best_line_per_channel():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 50, 4, 3, 3, generator=generator) * torch.tensor([1.0, 2.0])[:, None, None, None, None]
    y = torch.stack([functional.group_norm(v, 2) for v in x])
    fitted = fit.static_norm(NORM, moments(x, y))
    steps = torch.eye(2)
    off = torch.stack([answer(fitted, x[k], step=steps[k : k + 1].tolist()) - y[k] for k in range(2)])
    assert off.mean((1, 3, 4)).abs().max() < 1e-5  # nothing is left at any timestep and channel
    assert (off * x).mean((0, 1, 3, 4)).abs().max() < 1e-5  # nor along the input


def test_norms_of_the_last_axis():
    site = Site(1, "norm", "layer_norm", "norm", (5, 4), -1)
    fitted = fit.static_norm(site, moments(torch.randn(3, 9, 4, 5, 1), torch.randn(3, 9, 4, 5, 1)))
    x = torch.randn(2, 5, 4)
    wanted = x * fitted[1].slope + fitted[1].intercept[1]
    torch.testing.assert_close(answer(fitted, x, step=[[0.0, 1.0, 0.0]]), wanted)


def read(function, mean=0.0, deviation=1.0, channels=4):
    values = torch.randn(channels, 2000, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return Read(mean + deviation * values, function)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 2.0), st.floats(-2, 2), st.floats(-2, 2))
def test_a_quadratic_is_found_exactly(square, slope, constant):
    fitted = fit.polynomial(ACTIVATION, read(lambda z: square * z * z + slope * z + constant), 2)
    x = torch.linspace(-3, 3, 36).reshape(1, 4, 3, 3)
    torch.testing.assert_close(answer(fitted, x), square * x * x + slope * x + constant, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("degree", "mean"), [(1, 0.0), (2, 0.0), (1, -1.0), (2, 1.0)])
def test_polynomials_are_least_squares_under_the_calibrated_normal(degree, mean):
    """The residual is orthogonal to the powers, under the density that was asked for."""
    given = read(functional.silu, mean, 0.8)
    specification, made = fit.polynomial(ACTIVATION, given, degree)
    nodes = np.linspace(-4, 4, 81)
    for channel in range(4):
        values = given.values[channel]
        z = float(values.mean()) + (1.3 * float(values.std()) + 0.1) * nodes
        weight = np.exp(-nodes * nodes / 4)
        wanted = np.polyfit(z, functional.silu(torch.from_numpy(z)).numpy(), degree, w=weight)
        found = [made.constant[channel].item(), made.slope[channel].item()]
        found += [made.square[channel].item()] if degree == 2 else []
        np.testing.assert_allclose(found[::-1], wanted, rtol=1e-3, atol=1e-4)
    assert specification.sizes["degree"] == degree
    assert made.levels == (2 if degree == 2 else 0)


def test_quadratic_coefficients_have_a_least_value():
    made = fit.polynomial(ACTIVATION, read(lambda z: -0.5 * z * z + z), 2)[1]
    assert (made.square >= MINIMUM_QUADRATIC).all()


def test_higher_degrees_come_closer():
    given = read(functional.silu)
    x = given.values.float()
    off = [
        float((answer(fit.chebyshev_polynomial(ACTIVATION, given, degree), x) - functional.silu(x)).square().mean())
        for degree in (2, 4, 8, 16)
    ]
    assert off[0] > off[1] > off[2] > off[3]
    assert off[3] < 1e-8


def test_a_polynomial_of_high_degree_is_held_inside_its_interval_while_it_trains():
    made = fit.chebyshev_polynomial(ACTIVATION, read(functional.silu), 8)[1]
    outside = Call(1, "silu", "activation", functional.silu, (torch.full((1, 4, 3, 3), 50.0),), {})
    context = Context(torch.ones(1, 1), None, read=[])
    assert made.train()(outside, context).abs().max() < 10
    assert made.eval()(outside, context).abs().max() > 100
    assert context.read[0].max() == 50  # the penalty sees it


def test_attention_by_its_mean_and_by_a_kernel():
    generator = torch.Generator().manual_seed(3)
    query, key, value = torch.randn(3, 20, 2, 5, 6, generator=generator)
    scores = query @ key.transpose(-1, -2) / 6**0.5
    weights = 0.2 + 0.05 * scores + 0.01 * scores**2
    seen = AttentionSeen(scores, weights)
    torch.testing.assert_close(
        answer(fit.kernel_attention(ATTENTION, seen, 2), query, key, value), weights @ value, rtol=1e-3, atol=1e-3
    )
    mean = answer(fit.mean_attention(ATTENTION, seen), query, key, value)
    torch.testing.assert_close(mean, weights.mean(0) @ value, rtol=1e-4, atol=1e-4)
    assert not answer(fit.no_attention(ATTENTION, seen), query, key, value).any()
    linear = answer(fit.kernel_attention(ATTENTION, seen, 1), query, key, value)
    off = [float((found - weights @ value).square().mean()) for found in (linear, mean)]
    assert off[0] < off[1]


def test_additive_conditioning_is_exact_where_the_table_is_a_sum():
    site = Site(4, "act", "silu", "conditioning", (6,), -1)
    by_timestep, by_label = torch.randn(2, 1, 6), torch.randn(1, 3, 6)
    fitted = fit.additive(site, by_timestep + by_label)
    labels = torch.tensor([2, 0])
    found = answer(fitted, torch.zeros(2, 6), step=[[0.0, 1.0]], labels=labels)
    torch.testing.assert_close(found, by_timestep[1] + by_label[0, labels])


def test_between_its_timesteps_a_network_takes_from_both():
    network = Converted(None, (), (999, 499, 0), 1, (4, 4), module=torch.nn.Identity())
    weights = network.step_weights(torch.tensor([0.0, 499.0, 749.0, 999.0, 2000.0]))
    torch.testing.assert_close(
        weights, torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1], [0, 0, 1]], dtype=torch.float32)
    )


def chain(*follows):
    return [Site(n, f"act.{n}", "silu", "activation", (1,), -1, frozenset(before)) for n, before in enumerate(follows)]


def test_depth_is_the_costliest_chain():
    sites = chain((), (0,), (), (0, 1, 2))
    assert depth(sites, {}) == 1
    assert depth(sites, {0: 2, 1: 2, 2: 2, 3: 2}) == 7
    assert depth(sites, {0: 2, 1: 2, 2: 6, 3: 2}) == 9


def test_only_what_saves_a_level_is_dropped_and_the_least_harmful_first():
    sites = chain((), (0,), (), (0, 1, 2))
    cost = {0: 2, 1: 2, 2: 2, 3: 2}
    harm = {0: 5.0, 1: 4.0, 2: 0.0, 3: 9.0}
    assert least_harmful(7, sites, cost, set(cost), harm.__getitem__) is None
    assert least_harmful(5, sites, cost, set(cost), harm.__getitem__) == 1  # not 2, which is on no longest chain
