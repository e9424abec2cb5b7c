"""Matrices of numbers times ciphertexts by products of residues: exactly what the library's own calls give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hefw.backends.rns import matrices, wide
from hefw.backends.rns.loops import rows
from hefw.backends.tenseal.backend import TensealBackend
from hefw.core.backend import Evaluator, KeyManifest
from hefw.core.linear import Group, Term, Transform
from hefw.core.params import CkksParams

BACKEND = TensealBackend()
PARAMS = CkksParams(1024, (60, 50, 55), (60,), 30.0, allow_insecure=True)
SCALE, WEIGHT_SCALE = 2.0**30, 2.0**16
PRIMES = [(1 << 60) - (1 << 18) * 7 + 1, (1 << 50) - 27 * 2048 + 1, (1 << 31) - 1]


@pytest.fixture(scope="module")
def holder():
    return BACKEND.keygen(BACKEND.resolve(PARAMS), KeyManifest())


@pytest.fixture
def evaluator(holder) -> Evaluator:
    made = BACKEND.evaluator(BACKEND.resolve(PARAMS))
    made.load_keys(dict(holder.evaluation_keys()))
    return made


def transform(matrix: np.ndarray) -> Transform:
    """A matrix (outputs, inputs) of numbers, each feature a ciphertext; zeros are left out."""
    rows, columns = np.nonzero(matrix)
    terms = [Term(int(column), 0, k) for k, column in enumerate(columns)]
    groups = tuple(
        (Group(0, tuple(t for t, row in zip(terms, rows, strict=True) if row == k)),) for k in range(len(matrix))
    )
    babies = tuple((0,) for _ in range(matrix.shape[1]))
    return Transform(babies, groups, (), matrix[rows, columns][:, None], (0,) * len(rows), 512)


class Encoded:
    """Weights that are encoded when they are read, as a runner's are; `read` are those that were."""

    def __init__(self, evaluator: Evaluator, made: Transform) -> None:
        self.evaluator, self.made, self.read = evaluator, made, []

    def __len__(self) -> int:
        return len(self.made.weights)

    def __getitem__(self, index: int):
        self.read.append(index)
        return self.evaluator.encode(float(self.made.weights[index, 0]), 2, WEIGHT_SCALE)


def banded(outputs: int, inputs: int, seed: int = 0) -> np.ndarray:
    """A convolution's pattern: each row reads some neighbours."""
    rng = np.random.default_rng(seed)
    far = np.abs(np.arange(outputs)[:, None] * inputs / outputs - np.arange(inputs)) > 6
    return np.where(far, 0, rng.uniform(0.01, 1, (outputs, inputs)) * rng.choice([-1, 1], (outputs, inputs)))


@pytest.fixture(params=["compiled", "numpy"])
def loops(request, monkeypatch):
    assert wide.loops.missing() is None
    if request.param == "numpy":
        monkeypatch.setattr(wide.loops, "missing", lambda: "not here")


@pytest.fixture
def inputs(holder, evaluator):
    values = np.random.default_rng(1).normal(size=(24, 512))
    return values, [evaluator.load(holder.encrypt_bytes(row, 2, SCALE)) for row in values]


@pytest.mark.filterwarnings("ignore:compiled loops cannot be used")
@pytest.mark.parametrize("threads", [1, 2])
def test_the_librarys_own_bytes_and_counts(holder, evaluator, inputs, loops, threads) -> None:
    values, cts = inputs
    matrix = banded(30, 24)
    made = transform(matrix)
    assert made.products >= matrices.MANY_PRODUCTS
    expected = Evaluator.linear_transform(evaluator, cts, made, Encoded(evaluator, made))
    own = dict(evaluator.counts)
    evaluator.counts.clear()
    evaluator.threads = threads
    weights = Encoded(evaluator, made)
    found = evaluator.linear_transform(cts, made, weights)
    assert len(weights.read) == 1  # only its scale was wanted
    assert [evaluator.dump(ct) for ct in found] == [evaluator.dump(ct) for ct in expected]
    assert dict(evaluator.counts) == {name: own[name] for name in ("mul_plain", "add", "encode")}
    result = np.stack([holder.decrypt_bytes(evaluator.dump(ct)).real for ct in found])
    assert np.abs(result - matrix @ values).max() < 1e-3
    rescaled = evaluator.rescale(evaluator.square(found[0], relinearise=True))
    assert np.abs(holder.decrypt_bytes(evaluator.dump(rescaled)).real - result[0] ** 2).max() < 1e-2


@pytest.mark.parametrize(
    "change",
    [
        lambda matrix: matrix[:2],  # few products
        lambda matrix: matrix * 2.0**9,  # a weight alone exceeds what float64 adds
        lambda matrix: np.where(matrix, 100.0, 0) + np.where(matrix, 1e-3, 0),  # all of a row do
    ],
)
def test_what_does_not_suit_is_done_by_the_library(holder, evaluator, inputs, change) -> None:
    values, cts = inputs
    matrix = change(banded(30, 24))
    made = transform(matrix)
    weights = Encoded(evaluator, made)
    found = evaluator.linear_transform(cts, made, weights)
    assert set(weights.read) == set(range(len(weights)))
    result = np.stack([holder.decrypt_bytes(evaluator.dump(ct)).real for ct in found])
    assert np.abs(result - matrix @ values).max() < 1e-3 * np.abs(matrix).max()


@pytest.mark.filterwarnings("ignore:compiled loops cannot be used")
def test_a_source_of_a_smaller_scale_has_larger_weights(holder, evaluator, loops) -> None:
    """Its weights alone exceed what float64 adds; they are as precise as the others are."""
    values, matrix = np.random.default_rng(1).normal(size=(24, 512)), banded(30, 24)
    finer, made = 2.0**12, transform(matrix)
    columns = np.nonzero(matrix)[1]
    made = replace(made, weight_sources=tuple(int(column >= 12) for column in columns))
    scales = [SCALE / finer if k >= 12 else SCALE for k in range(24)]
    cts = [evaluator.load(holder.encrypt_bytes(row, 2, scale)) for row, scale in zip(values, scales, strict=True)]

    class Weighted(Encoded):
        def __getitem__(self, index: int):
            self.read.append(index)
            scale = WEIGHT_SCALE * finer if made.weight_sources[index] else WEIGHT_SCALE
            return self.evaluator.encode(float(matrix[np.nonzero(matrix)][index]), 2, scale)

    weights = Weighted(evaluator, made)
    found = evaluator.linear_transform(cts, made, weights)
    assert len(weights.read) == 2  # a scale each
    result = np.stack([holder.decrypt_bytes(evaluator.dump(ct)).real for ct in found])
    assert np.abs(result - matrix @ values).max() < 2e-2  # the noise of a scale of 2^18
    slow = [holder.decrypt(ct).real for ct in Evaluator.linear_transform(evaluator, cts, made, weights)]
    assert np.abs(result - np.stack(slow)).max() < 1e-3


def test_a_build_that_hides_residues_uses_the_library(holder, evaluator, inputs, monkeypatch) -> None:
    monkeypatch.setattr(evaluator._residues, "usable", lambda handle: False)
    made = transform(banded(30, 24))
    weights = Encoded(evaluator, made)
    evaluator.linear_transform(inputs[1], made, weights)
    assert set(weights.read) == set(range(len(weights)))


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(PRIMES),
    st.integers(1, 12),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    st.sampled_from([4, 14, 18]),
    st.sampled_from([(0,), (0, 3), (0, 17, 44)]),
)
def test_products_modulo_a_prime_are_exact(prime, outputs, inputs, seed, bits, shifts) -> None:
    rng = np.random.default_rng(seed)
    assert wide.suits(prime)
    weights = rng.integers(-(2**bits), 2**bits, (outputs, inputs)) * (rng.random((outputs, inputs)) < 0.6)
    weights[:, 0] = 1  # every row reads something
    residues = rng.integers(0, prime, (inputs, 2, 1, 16), dtype=np.int64)
    residues[:, 0, 0, 0], residues[:, 0, 0, 1] = prime - 1, 0
    given = residues.astype(np.uint64)
    shift = rng.choice(shifts, inputs)
    whole = weights.astype(object) * np.array([1 << int(k) for k in shift], dtype=object)
    expected = np.tensordot(whole, residues.astype(object), 1) % prime
    for missing in (None, "not here"):
        found = np.full((outputs, 2, 1, 16), 7, np.uint64)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wide.loops, "missing", lambda missing=missing: missing)
            wide.multiply(wide.Matrix(weights, shift), rows(given), rows(found), [prime], 16, 1)
        assert found.astype(object).tolist() == expected.tolist()


def test_heavy_rows_are_cut_and_too_heavy_ones_refused() -> None:
    heavy = np.full((2, 8), wide.MOST_WEIGHT * 2 // 5)
    assert [piece.more for piece in wide.Matrix(heavy).pieces] == [False, True, True, True]
    with pytest.raises(OverflowError):
        wide.Matrix(np.full((2, 9), wide.MOST_WEIGHT * 2 // 5))


@pytest.mark.parametrize("prime", [65537, (1 << 30) - 35, (1 << 59) + (1 << 45) + 1])
def test_primes_that_do_not_suit(prime) -> None:
    assert not wide.suits(prime)
