"""`StrategyConformance`: what every encryption strategy must do, as tests that its author inherits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from hefw.strategies.base import Strategy

Array = NDArray[np.float64]


def latents(shape: tuple[int, int, int]) -> dict[str, Array]:
    """Latents (channels, height, width) by kind: noise, nothing at all, one value, a large one, a single spike."""
    noise = np.random.default_rng(0).normal(size=shape)
    spike = np.zeros(shape)
    spike[0, 0, 0] = 1.0
    return {"noise": noise, "zeros": np.zeros(shape), "ones": np.ones(shape), "large": 1e6 * noise, "spike": spike}


class StrategyConformance:
    """Subclass it with a fixture `strategy`.

    `shapes` are latents' shapes (channels, height, width): any, unless the strategy is for some of them only.
    """

    shapes: tuple[tuple[int, int, int], ...] = (
        (1, 1, 1),
        (2, 1, 9),
        (3, 5, 7),
        (1, 8, 8),
        (4, 8, 8),
        (3, 16, 12),
        (4, 64, 64),
    )

    @pytest.fixture
    def strategy(self) -> Strategy:
        """The strategy under test."""
        raise NotImplementedError("a subclass of StrategyConformance needs a fixture 'strategy' that returns one")

    def test_it_says_how_its_entries_are_sent(self, strategy: Strategy) -> None:
        assert isinstance(strategy.packed, bool)

    def test_a_selection_is_a_mask_of_the_latents_shape(self, strategy: Strategy) -> None:
        for shape in self.shapes:
            for kind, latent in latents(shape).items():
                found = strategy.select(latent)
                assert isinstance(found, np.ndarray), kind
                assert found.shape == shape, kind
                assert found.dtype == np.bool_, kind

    def test_the_same_latent_gives_the_same_selection(self, strategy: Strategy) -> None:
        """Both parties must be able to count on it: no state, and no random numbers but from the options."""
        for shape in self.shapes:
            given = latents(shape)
            first = {kind: strategy.select(latent).copy() for kind, latent in given.items()}
            for kind, latent in reversed(given.items()):
                assert np.array_equal(strategy.select(latent), first[kind]), f"{kind} of shape {shape}"

    def test_a_selection_outlives_the_next(self, strategy: Strategy) -> None:
        """A run keeps those of all steps."""
        for shape in self.shapes:
            given = latents(shape)
            found = strategy.select(given["noise"])
            before = found.copy()
            for latent in given.values():
                strategy.select(latent)
            assert np.array_equal(found, before), f"shape {shape}"

    def test_the_latent_is_left_as_it_was(self, strategy: Strategy) -> None:
        for shape in self.shapes:
            for kind, latent in latents(shape).items():
                before = latent.copy()
                found = strategy.select(latent)
                assert np.array_equal(latent, before), f"{kind} of shape {shape} was changed"
                assert not np.shares_memory(found, latent)
                latent.flags.writeable = False
                assert np.array_equal(strategy.select(latent), found)

    def test_a_latents_place_in_memory_does_not_matter(self, strategy: Strategy) -> None:
        for shape in self.shapes:
            latent = latents(shape)["noise"]
            reordered = np.asfortranarray(latent)
            strided = np.repeat(latent, 2, axis=2)[:, :, ::2]
            assert np.array_equal(strategy.select(reordered), strategy.select(latent))
            assert np.array_equal(strategy.select(strided), strategy.select(latent))
