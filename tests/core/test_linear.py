"""Matrices in slot space: a transform is the dense product, at every place, by as many operations as it says."""

from __future__ import annotations

import numpy as np
import pytest
from core_graphs import matrix, run_transform
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hefw.core.diagonals import LinearCost, diagonals, inputs_of, transform
from hefw.core.errors import LoweringError
from hefw.core.layout import Layout, grid_order, periodic
from hefw.core.sparse import SparseMatrix

COST = LinearCost(rotate=12.0, mul_plain=0.7, new_key=12.0)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def layouts(draw: st.DrawFn, slots: int = 64, batch: int = 2) -> Layout:
    """Permuted, with gaps, with equal copies, of one to three ciphertexts."""
    features = draw(st.integers(1, 70))
    order = np.array(draw(st.permutations(range(features))))
    if features <= 8 and draw(st.booleans()):
        order = np.repeat(order, draw(st.integers(2, 4)))
    gaps = draw(st.integers(0, 5))
    return periodic(np.concatenate([order[:1], np.full(gaps, -1), order[1:]]), batch, slots)


def check(matrices: list[tuple[SparseMatrix, Layout]], out: Layout, rng: np.random.Generator) -> None:
    """The transform's result sits wherever `out` says that a feature sits (over several ciphertexts: at its home)."""
    found = transform(matrices, out, COST)
    values = [rng.normal(size=(layout.batch, layout.features)) for _, layout in matrices]
    slots = [ct for (_, layout), v in zip(matrices, values, strict=True) for ct in layout.pack(v)]
    results, counts = run_transform(found, slots)
    expected = sum(v @ m.dense().T for (m, _), v in zip(matrices, values, strict=True))
    occupied = np.repeat((out.positions >= 0) & (out.ciphertexts == 1), out.batch, axis=1)
    assert np.abs(np.where(occupied, np.stack(results) - out.pack(expected), 0)).max() < 1e-9
    assert np.allclose(out.unpack(np.stack(results), out.batch), expected)
    assert counts["rotate"] == len(found.rotations)
    assert counts["mul_plain"] == found.products == len(found.weights)


@settings(max_examples=60, deadline=None)
@given(st.lists(layouts(), min_size=1, max_size=3), layouts(), seeds, st.sampled_from([0.03, 0.2, 1.0]))
def test_a_transform_is_the_sum_of_dense_products(sources, out, seed, density) -> None:
    rng = np.random.default_rng(seed)
    matrices = [(matrix(rng, out.features, s.features, density), s) for s in sources]
    rows = np.unique(np.concatenate([m.row for m, _ in matrices]))
    # an output's ciphertext without any weight is refused
    assume(len(np.unique(out.home[0][rows])) == out.ciphertexts)
    check(matrices, out, rng)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((1, 8, 8), (4, 4, 4)),
        ((4, 4, 4), (8, 2, 2)),
        ((8, 2, 2), (4, 4, 4)),
        ((4, 4, 4), (1, 8, 8)),
        ((10,), (4, 4, 4)),
    ],
)
def test_grid_layouts_of_a_unet(source, target) -> None:
    rng = np.random.default_rng(0)
    inner, outer = (periodic(grid_order(shape, (4, 4)), 2, 512) for shape in (source, target))
    check([(matrix(rng, outer.features, inner.features), inner)], outer, rng)


@pytest.mark.parametrize("density", [0.1, 1.0])
def test_a_vector_repeated_over_the_grid_has_its_value_at_every_copy(density) -> None:
    rng = np.random.default_rng(1)
    inner, outer = (periodic(grid_order(shape, (4, 4)), 2, 256) for shape in ((2, 4, 4), (3,)))
    check([(matrix(rng, 3, 32, density), inner)], outer, rng)


def test_a_small_output_is_folded_where_that_is_cheaper() -> None:
    rng = np.random.default_rng(2)
    inner, outer = periodic(np.arange(64), 1, 64), periodic(np.arange(4), 1, 64)
    dense = matrix(rng, 4, 64)
    found = transform([(dense, inner)], outer, COST)
    assert found.folds
    assert found.products < 64 // 2  # a fold halves the diagonals
    check([(dense, inner)], outer, rng)


def test_zero_diagonals_do_not_exist() -> None:
    layout = periodic(np.arange(16), 1, 16)
    shifted = np.roll(np.eye(16), 3, axis=1)
    found = diagonals([(SparseMatrix.from_dense(shifted), layout)], layout)
    assert list(found) == [(0, 0, 3)]
    cancelling = [(SparseMatrix.from_dense(shifted), layout), (SparseMatrix.from_dense(np.eye(16)), layout)]
    assert sorted(diagonals(cancelling, layout)) == [(0, 0, 3), (0, 1, 0)]
    explicit = SparseMatrix.from_entries((16, 16), np.arange(16), np.arange(16), np.zeros(16))
    assert diagonals([(explicit, layout)], layout) == {}


def test_an_all_zero_output_is_refused() -> None:
    layout = periodic(np.arange(4), 1, 4)
    with pytest.raises(LoweringError, match="no nonzero weight"):
        transform([(SparseMatrix.from_dense(np.zeros((4, 4))), layout)], layout, COST)


def test_a_matrix_of_another_shape_is_refused() -> None:
    layout = periodic(np.arange(4), 1, 4)
    with pytest.raises(LoweringError, match=r"\(4, 5\) does not map 4 to 4"):
        diagonals([(SparseMatrix.from_dense(np.ones((4, 5))), layout)], layout)


def test_existing_keys_are_preferred_when_keys_are_dear() -> None:
    rng = np.random.default_rng(3)
    layout = periodic(np.arange(32), 1, 32)
    dense = matrix(rng, 32, 32)
    first = transform([(dense, layout)], layout, COST)
    dear = LinearCost(rotate=1.0, mul_plain=0.1, new_key=1e6)
    again = transform([(dense, layout)], layout, dear, keys=first.rotations)
    assert set(again.rotations) <= set(first.rotations)


def test_equal_weights_over_all_slots_are_one_constant() -> None:
    layout = periodic(np.arange(8), 2, 16)
    found = transform([(SparseMatrix.diagonal(np.full(8, 0.5)), layout)], layout, COST)
    assert found.weight(0) == 0.5
    assert isinstance(found.weight(0), float)
    varied = transform([(SparseMatrix.diagonal(np.arange(1.0, 9)), layout)], layout, COST)
    assert np.array_equal(varied.weight(0), np.repeat(np.arange(1.0, 9), 2))


def test_weight_sources_name_the_matrix_of_each_weight() -> None:
    rng = np.random.default_rng(4)
    wide, narrow = periodic(np.arange(64), 1, 32), periodic(np.arange(8), 1, 32)
    matrices = [(matrix(rng, 8, 64), wide), (matrix(rng, 8, 8), narrow)]
    assert inputs_of(matrices) == [(0, 0), (0, 1), (1, 0)]
    found = transform(matrices, narrow, COST)
    terms = [t for groups in found.outputs for group in groups for t in group.terms]
    assert {(t.weight, inputs_of(matrices)[t.source][0]) for t in terms} == set(enumerate(found.weight_sources))


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_sparse_matrix_arithmetic_is_dense_arithmetic(seed, a, b, c) -> None:
    rng = np.random.default_rng(seed)
    left, right, other = matrix(rng, a, b, 0.4), matrix(rng, b, c, 0.4), matrix(rng, a, b, 0.4)
    factors = rng.normal(size=b)
    assert np.allclose(left.compose(right).dense(), left.dense() @ right.dense())
    assert np.allclose(left.plus(other).dense(), left.dense() + other.dense())
    assert np.allclose(left.scale_columns(factors).dense(), left.dense() * factors)
    assert np.allclose(left @ factors, left.dense() @ factors)


def test_identity_factor_is_told_from_other_diagonals() -> None:
    assert SparseMatrix.diagonal(np.full(3, -2.0)).identity_factor == -2.0
    assert SparseMatrix.diagonal(np.array([1.0, 1.0, 2.0])).identity_factor is None
    assert SparseMatrix.diagonal(np.array([1.0, 0.0, 1.0])).identity_factor is None
    assert SparseMatrix.from_dense(np.ones((1, 2))).identity_factor is None
    assert SparseMatrix.from_dense(np.eye(3)[::-1]).identity_factor is None
