"""`min_distortion` and `sparse` select exactly what a slow, readable reference selects."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image
from slow_min_distortion import distortion, encrypted, encrypted_share, flat

from hefw.core.errors import EncodingError
from hefw.strategies.base import Strategy
from hefw.strategies.min_distortion import MinDistortion
from hefw.strategies.plugin import MinDistortionOptions
from hefw.strategies.sparse import Sparse
from hefw.testing import StrategyConformance

Array = NDArray[np.float64]
Selection = NDArray[np.bool_]

THRESHOLDS = (0.0, 1e-300, 1e-6, 0.001, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999999, 1 - 2**-53, 1.0)
FRACTIONS = (0.0, 1e-9, 0.07, 0.5, 0.93, 1.0)


def photograph(shape: tuple[int, int, int]) -> Array:
    """Red, green, blue and grey of scikit-learn's picture of a temple, in blocks' means, -1 to 1."""
    channels, height, width = shape
    picture = load_sample_image("china.jpg")[:384, :640].astype(np.float64).transpose(2, 0, 1)
    blocks = picture.reshape(3, height, 384 // height, width, 640 // width).mean(axis=(2, 4)) / 127.5 - 1
    return np.concatenate([blocks, blocks.mean(axis=0, keepdims=True)])[:channels]


def latents() -> dict[str, Array]:
    random = np.random.default_rng(0)
    spike = np.zeros((2, 20, 20))
    spike[1, 10, 3] = -1.0
    half = random.normal(size=(3, 24, 20))
    half[:, 12:] = 0.0
    down, across = np.indices((16, 16))
    return {
        "noise": random.normal(size=(4, 64, 64)),
        "float32": random.normal(size=(4, 16, 24)).astype(np.float32).astype(np.float64),
        "photograph": photograph((4, 64, 64)),
        "photograph of bytes": np.round((photograph((3, 32, 40)) + 1) * 127.5),
        "zeros": np.zeros((3, 9, 9)),
        "constant": np.full((4, 16, 16), 0.3),
        "one entry": np.full((1, 1, 1), 2.0),
        "one row": random.normal(size=(2, 1, 30)),
        "spike": spike,
        "half empty": half,
        "chessboard": np.stack([(down + across) % 2.0, (down + across) % 2 - 0.5]),
        "few values": random.integers(-1, 2, size=(4, 16, 16)).astype(np.float64),
        "one pattern again and again": np.tile(random.normal(size=(1, 4, 4)), (3, 4, 4)),
        "slope": 0.1 * down[None] + 0.3 * across,
    }


LATENTS = latents()


@cache
def slow(kind: str) -> list[float]:
    return flat(distortion(LATENTS[kind].tolist()))


def selection(latent: Array, **options: float) -> Selection:
    return MinDistortion(MinDistortionOptions.model_validate(options)).select(latent)


@pytest.mark.parametrize("kind", LATENTS)
def test_thresholds_select_what_the_reference_selects(kind: str) -> None:
    for threshold in THRESHOLDS:
        found = selection(LATENTS[kind], threshold=threshold)
        assert found.ravel().tolist() == encrypted(slow(kind), threshold), threshold


@pytest.mark.parametrize("kind", LATENTS)
def test_fractions_select_what_the_reference_selects(kind: str) -> None:
    for fraction in FRACTIONS:
        found = selection(LATENTS[kind], fraction=fraction)
        assert found.ravel().tolist() == encrypted_share(slow(kind), fraction), fraction


shapes = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.floats(-4, 4), st.integers(-2, 2).map(float), st.just(0.1)
)
shares = st.one_of(st.floats(0, 1), st.sampled_from(THRESHOLDS))


@settings(deadline=None, max_examples=150)
@given(arrays(np.float64, shapes, elements=numbers), shares, shares)
def test_any_latent(latent: Array, threshold: float, fraction: float) -> None:
    distortions = flat(distortion(latent.tolist()))
    assert selection(latent, threshold=threshold).ravel().tolist() == encrypted(distortions, threshold)
    assert selection(latent, fraction=fraction).ravel().tolist() == encrypted_share(distortions, fraction)


@settings(deadline=None)
@given(arrays(np.float64, shapes, elements=numbers), shares, shares)
def test_a_higher_threshold_encrypts_less_of_the_same(latent: Array, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert not (selection(latent, threshold=high) & ~selection(latent, threshold=low)).any()
    assert not (selection(latent, fraction=low) & ~selection(latent, fraction=high)).any()


@pytest.mark.parametrize("kind", LATENTS)
def test_the_ends(kind: str) -> None:
    latent = LATENTS[kind]
    assert selection(latent, threshold=0).all()
    assert not selection(latent, threshold=1).any()
    assert selection(latent, fraction=1).all()
    assert not selection(latent, fraction=0).any()


@pytest.mark.parametrize("kind", ["zeros", "constant", "one entry", "slope"])
def test_without_any_distortion_everything_is_encrypted(kind: str) -> None:
    assert selection(LATENTS[kind], threshold=0.99).all()


def test_the_default_is_the_papers() -> None:
    """The published implementation leaves the same 1,889 entries of this latent, 11.5 %, in plaintext."""
    noise = torch.randn((4, 64, 64), generator=torch.Generator().manual_seed(0)).double().numpy()
    found = MinDistortion(MinDistortionOptions()).select(noise)
    assert np.array_equal(found, selection(noise, threshold=0.01))
    assert np.count_nonzero(~found) == 1889


@pytest.mark.parametrize(("fraction", "count"), [(0.07, 7), (0.29, 29), (0.291, 30), (0.001, 1), (0.0, 0)])
def test_a_fraction_is_the_decimal_that_was_written_rounded_up(fraction: float, count: int) -> None:
    latent = np.random.default_rng(4).normal(size=(1, 10, 10))
    assert np.count_nonzero(selection(latent, fraction=fraction)) == count


def test_sparse_selects_the_same_and_is_sent_as_a_list() -> None:
    for options in ({}, {"threshold": 0.2}, {"fraction": 0.3}):
        given = MinDistortionOptions.model_validate(options)
        for latent in LATENTS.values():
            assert np.array_equal(Sparse(given).select(latent), MinDistortion(given).select(latent))
    assert Sparse(MinDistortionOptions()).packed
    assert not MinDistortion(MinDistortionOptions()).packed


@pytest.mark.parametrize(
    ("latent", "line"),
    [
        (
            np.array([[[1.0, np.nan], [np.inf, -np.inf]]]),
            "3 of 4 entries of a latent are not finite; allowed: finite numbers; look for an overflow in the model or "
            "the scheduler",
        ),
        (
            np.zeros((2, 4, 8, 8)),
            "a latent of shape (2, 4, 8, 8) is not allowed; allowed: (channels, height, width), each at least 1; "
            "select for one image at a time",
        ),
        (
            np.zeros((4, 0, 8)),
            "a latent of shape (4, 0, 8) is not allowed; allowed: (channels, height, width), each at least 1; "
            "select for one image at a time",
        ),
    ],
)
def test_what_is_no_latent_is_refused(latent: Array, line: str) -> None:
    with pytest.raises(EncodingError) as error:
        selection(latent)
    assert str(error.value) == line


class TestMinDistortion(StrategyConformance):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return MinDistortion(MinDistortionOptions())


class TestMinDistortionOfAFraction(StrategyConformance):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return MinDistortion(MinDistortionOptions(fraction=0.3))


class TestSparse(StrategyConformance):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return Sparse(MinDistortionOptions())
