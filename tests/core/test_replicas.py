"""Weights that fill a ciphertext: the same products as ever, whatever lies in places without a feature."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import numpy as np
import pytest
from core_graphs import denoiser, matrix, run_transform, samples
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import BACKENDS, Session, plain, psnr

from hefw.core.diagonals import LinearCost, build, cheapest
from hefw.core.errors import LoweringError
from hefw.core.layout import Layout, periodic, spread
from hefw.core.layouts import choose
from hefw.core.lower import Request, lower
from hefw.core.normalise import centre_squares, normalise
from hefw.core.plan import Costs
from hefw.core.sparse import SparseMatrix

COST = LinearCost(rotate=12.0, mul_plain=0.7, new_key=1.0)
SLOTS = 1024
FLAT = centre_squares(normalise(denoiser()))


@st.composite
def filled(draw: st.DrawFn, slots: int = 512, batch: int = 2, cell: int = 4) -> Layout:
    """A layout that repeats or is spread, of channels that are no power of two as a rule, with gaps."""
    channels = draw(st.integers(1, 9))
    order = np.array(draw(st.permutations(range(channels * cell))))
    gaps = draw(st.integers(0, 2))
    order = np.concatenate([order, np.full(gaps * cell, -1)])
    if draw(st.booleans()):
        return replace(periodic(order, batch, slots), cell=cell)
    rows, window = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from([1, 2, 4]))
    try:
        return spread(order, cell, batch, slots, rows, window)
    except LoweringError:
        return spread(order, cell, batch, slots, 1, 1)


def check(matrices: list[tuple[SparseMatrix, Layout]], out: Layout, rng: np.random.Generator) -> None:
    """The sum of dense products wherever `out` holds a feature, with noise wherever an input holds none."""
    method = cheapest(matrices, out, COST)
    found = build(matrices, out, method).transform
    values = [rng.normal(size=(layout.batch, layout.features)) for _, layout in matrices]
    slots = []
    for (_, layout), value in zip(matrices, values, strict=True):
        empty = np.repeat(layout.positions < 0, layout.batch, axis=1)
        slots += list(np.where(empty, rng.normal(size=empty.shape), layout.pack(value)))
    results, counts = run_transform(found, slots)
    expected = sum(v @ m.dense().T for (m, _), v in zip(matrices, values, strict=True))
    here = np.repeat(out.positions >= 0, out.batch, axis=1)
    assert np.abs(np.where(here, np.stack(results) - out.pack(expected), 0)).max() < 1e-9
    assert counts["rotate"] == method.rotations == len(found.rotations)
    assert set(found.rotations) <= method.steps
    assert counts["mul_plain"] == found.products == method.vectors + method.constants


@settings(max_examples=80, deadline=None)
@given(st.lists(filled(), min_size=1, max_size=2), filled(), st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0]))
def test_a_transform_is_the_sum_of_dense_products(sources, out, seed, density) -> None:
    rng = np.random.default_rng(seed)
    check([(matrix(rng, out.features, s.features, density), s) for s in sources], out, rng)


def convolution(channels: int, size: int, rng: np.random.Generator) -> SparseMatrix:
    """3 x 3, zero padding, as many channels out as in."""
    dense = np.zeros((channels, size, size, channels, size, size))
    for dy, dx in np.ndindex(3, 3):
        weights = rng.normal(size=(channels, channels))
        for y, x in np.ndindex(size, size):
            v, u = y + dy - 1, x + dx - 1
            if 0 <= v < size and 0 <= u < size:
                dense[:, y, x, :, v, u] = weights
    return SparseMatrix.from_dense(dense.reshape(channels * size**2, -1))


def test_kinds_that_take_turns_need_few_products_and_rotations() -> None:
    """32 channels on 4 x 4 in 8,192 slots: 288 diagonals, 36 products."""
    rng = np.random.default_rng(0)
    conv, order = convolution(32, 4, rng), np.arange(512)
    repeating = replace(periodic(order, 1, 8192), cell=16)
    spread_out = spread(order, 16, 1, 8192, 8, 8)
    assert (spread_out.positions >= 0).mean() > 0.5
    for source, target, rotations in ((repeating, spread_out, 13), (spread_out, repeating, 14)):
        method = cheapest([(conv, source)], target, LinearCost(12, 0.7))
        assert (method.vectors, method.rotations) == (36, rotations)
        check([(conv, source)], target, rng)
    alone = cheapest([(conv, periodic(order, 1, 8192))], periodic(order, 1, 8192), LinearCost(12, 0.7))
    assert alone.vectors == 288


def test_windows_of_a_row_hold_nothing_of_another() -> None:
    layout = spread(np.arange(6), 1, 1, 32, 4, 2)
    rows = layout.positions.reshape(4, 8)
    assert layout.stride == 2
    assert rows.tolist() == [[0, 1] * 3 + [-1] * 2, [2, 3] * 3 + [-1] * 2, [4, 5] * 3 + [-1] * 2, [-1] * 8]
    values = np.arange(6.0)[None]
    assert np.array_equal(layout.unpack(layout.pack(values), 1), values)


@pytest.mark.parametrize(("rows", "window"), [(8, 8), (3, 1), (64, 1)])
def test_layouts_that_have_no_room_are_refused(rows, window) -> None:
    with pytest.raises(LoweringError, match=rf"do not spread over {rows} rows"):
        spread(np.arange(16), 1, 1, 32, rows, window)


def slow_in_products(name):
    """A backend whose products take as long, beside its rotations, as those of most: replicas save products."""
    backend = copy(BACKENDS[name])
    backend.capabilities = replace(backend.capabilities, costs=())
    return backend


@pytest.mark.parametrize("images", [1, 2, 4])
@pytest.mark.parametrize("name", ["simulator", "tenseal"])
def test_few_images_are_drawn_by_fewer_operations(images, name) -> None:
    backend = slow_in_products(name)
    request = Request(precision_db=50, ring_dimension=8 * SLOTS, allow_insecure=True, images=images, pairs=False)
    program = lower(denoiser(), backend, request)
    assert program.interface.images == images
    assert any(port.layout.window > 1 or port.layout.cell > 1 for port in program.interface.inputs.values())
    full = lower(denoiser(), backend, replace(request, images=None))
    few, many = program.counts(), full.counts()
    assert few["rotate"] + few["mul_plain"] / 8 < 0.8 * (many["rotate"] + many["mul_plain"] / 8)
    values = samples(images, seed=5)
    found = Session(program, backend).trajectory(values)[-1]["latent"]
    assert psnr(found, plain(denoiser(), values)[-1]["latent"]) > 45


def test_two_images_a_slot_have_replicas_too() -> None:
    request = Request(precision_db=50, ring_dimension=8 * SLOTS, allow_insecure=True, images=4, pairs=True)
    backend = slow_in_products("tenseal")
    program = lower(denoiser(), backend, request)
    assert program.interface.batch == 2
    values = samples(4, seed=5)
    found = Session(program, backend).trajectory(values)[-1]["latent"]
    assert psnr(found, plain(denoiser(), values)[-1]["latent"]) > 45


def test_no_room_is_left_for_replicas_where_the_images_are_not_known() -> None:
    assert choose(FLAT, SLOTS, Costs(), 1).batch == SLOTS // 64
    assert choose(FLAT, SLOTS, Costs(), 1, replicas=True).batch == 1
    assert choose(FLAT, SLOTS, Costs(), SLOTS, replicas=True).batch == SLOTS
