"""Layouts: every entry sits where it is said to, once or repeated, and comes back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hefw.core.errors import LoweringError
from hefw.core.layout import grid_order, next_power_of_two, periodic


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 100), st.sampled_from([1, 2, 8]), st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_unpack_is_the_inverse_of_pack(features, batch, gaps, seed) -> None:
    rng = np.random.default_rng(seed)
    order = np.insert(rng.permutation(features), 1, np.full(gaps, -1))
    layout = periodic(order, batch, 64)
    images = int(rng.integers(1, batch + 1))
    values = rng.normal(size=(images, features))
    slots = layout.pack(values)
    assert slots.shape == (layout.ciphertexts, 64)
    assert np.array_equal(layout.unpack(slots, images), values)
    assert layout.ciphertexts == max(1, -(-(features + gaps) // (64 // batch)))


def test_the_batch_is_innermost_and_the_features_repeat() -> None:
    layout = periodic(np.array([2, 0, 1]), 2, 16)
    slots = layout.pack(np.array([[10.0, 11, 12], [20, 21, 22]]))
    assert slots[0].tolist() == [12, 22, 10, 20, 11, 21, 0, 0] * 2
    assert layout.period == 4
    assert layout.home[1].tolist() == [1, 2, 0]


def test_a_rotation_by_k_batches_shifts_positions_by_k() -> None:
    layout = periodic(np.arange(8), 4, 32)
    values = np.arange(32.0).reshape(4, 8)
    turned = np.roll(layout.pack(values), -3 * 4, axis=1)
    assert np.array_equal(layout.unpack(turned, 4), np.roll(values, -3, axis=1))


def test_missing_images_are_zero() -> None:
    layout = periodic(np.arange(4), 8, 32)
    slots = layout.pack(np.ones((3, 4))).reshape(4, 8)
    assert slots[:, :3].all()
    assert not slots[:, 3:].any()


def test_large_tensors_take_as_many_ciphertexts_as_they_fill() -> None:
    layout = periodic(np.arange(65), 1, 32)
    assert (layout.ciphertexts, layout.period, layout.width) == (3, 32, 32)
    assert (layout.positions[2] >= 0).sum() == 1
    cts, places = layout.home
    assert np.array_equal(cts * 32 + places, np.arange(65))


def test_copies_are_all_places_below_the_period() -> None:
    layout = periodic(np.repeat(np.arange(3), 4), 1, 64)
    assert layout.copies.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert periodic(np.array([0, 1, 1]), 1, 8).copies.tolist() == [[0], [1]]


@pytest.mark.parametrize("shape", [(3, 8), (2, 7), (1, 4, 4)])
def test_values_of_another_shape_are_refused(shape) -> None:
    layout = periodic(np.arange(8), 2, 16)
    with pytest.raises((LoweringError, ValueError), match=r"do not fit a layout of 8 features|unpack"):
        layout.pack(np.zeros(shape))


@pytest.mark.parametrize("batch", [3, 128])
def test_a_batch_that_does_not_divide_the_slots_is_refused(batch) -> None:
    with pytest.raises(LoweringError, match=f"batch of {batch} does not divide 64"):
        periodic(np.arange(4), batch, 64)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 4), (5, 2, 2), (4, 1, 1), (2, 16, 16), (3,)])
def test_a_grid_order_holds_every_feature_equally_often(shape) -> None:
    order = grid_order(shape, (4, 4))
    assert len(order) % 16 == 0
    counts = np.bincount(order[order >= 0], minlength=int(np.prod(shape)))
    assert set(counts) == ({16} if len(shape) == 1 else {1})


def test_a_shift_in_space_is_one_shift_of_positions() -> None:
    coarse = grid_order((4, 2, 2), (4, 4)).reshape(-1)
    place = np.argsort(coarse)
    index = np.arange(16).reshape(4, 2, 2)
    across = place[index[:, :, 1]] - place[index[:, :, 0]]
    assert len(set(across.ravel())) == 1
    fine = grid_order((1, 8, 8), (4, 4)).reshape(4, 4, 4)  # cells of 2 x 2 become channels
    picture = np.arange(64).reshape(8, 8)
    assert np.array_equal(fine[0], picture[::2, ::2])
    assert np.array_equal(fine[3], picture[1::2, 1::2])


@pytest.mark.parametrize("shape", [(2, 3, 3), (1, 8, 4), (2, 2), (1, 6, 6)])
def test_tensors_that_do_not_fit_the_grid_have_no_order(shape) -> None:
    assert grid_order(shape, (4, 4)) is None


def test_next_power_of_two() -> None:
    assert [next_power_of_two(n) for n in (1, 2, 3, 4, 5, 1023, 1024, 1025)] == [1, 2, 4, 4, 8, 1024, 1024, 2048]
