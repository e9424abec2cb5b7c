"""What a server sees: no entry too many, none too few, and what follows from it by arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from audit_toys import END_TO_END, MULTISTEP, ONE_STEP, PUBLISHED, UPDATE_ONLY, Fixed, arithmetic, digits, strategy
from hypothesis import given, settings
from hypothesis import strategies as st

from hefw.audit.trajectories import record
from hefw.audit.view import Rules, look
from hefw.models.schedules import LinearUpdate

SHAPE = (2, 2, 3, 3)  # of one step's latents in `arithmetic`


def masks(steps: int, seed: int, share: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).random((steps, *SHAPE)) < share


def test_end_to_end_shows_what_is_not_selected_in_8_bits_and_no_final_latent() -> None:
    runs, hidden = arithmetic(ONE_STEP), masks(2, 0)
    view = look(runs, Fixed(hidden), ONE_STEP, END_TO_END)
    assert np.array_equal(view.masks, hidden)
    assert np.array_equal(np.isfinite(view.latents[:-1]), ~hidden)
    assert np.isnan(view.latents[-1]).all()
    assert np.isnan(view.predictions).all()
    for step, image in np.ndindex(2, SHAPE[0]):
        shown, truth = view.latents[step, image][~hidden[step, image]], runs.latents[step, image][~hidden[step, image]]
        assert 0 < np.abs(shown - truth).max() <= 0.005 * np.abs(truth).max()
        assert len(np.unique(shown)) <= 255


def test_nothing_is_shown_between_two_messages() -> None:
    updates = ONE_STEP * 2
    view = look(arithmetic(updates), Fixed(masks(2, 0)), updates, Rules(rounded=True, every=2))
    assert view.masks[1].all()
    assert view.masks[3].all()
    assert np.isfinite(view.latents[[0, 2]]).any()
    assert np.isnan(view.latents[[1, 3, 4]]).all()


@pytest.mark.parametrize("rules", [UPDATE_ONLY, PUBLISHED])
@pytest.mark.parametrize("updates", [ONE_STEP, MULTISTEP])
@given(seed=st.integers(0, 2**16), share=st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_what_follows_is_the_truth(updates: list[LinearUpdate], rules: Rules, seed: int, share: float) -> None:
    runs, hidden = arithmetic(updates, seed=seed), masks(len(updates), seed, share)
    view = look(runs, Fixed(hidden), updates, rules)
    known = np.isfinite(view.latents)
    assert known[:-1][~hidden].all()
    np.testing.assert_array_equal(view.latents[known], runs.latents[known])
    seen = np.ones_like(hidden) if rules.predictions else ~hidden
    assert np.array_equal(np.isfinite(view.predictions), seen)


@given(seed=st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_update_only_gives_the_update_of_shown_entries_and_no_more(seed: int) -> None:
    """A server that holds the encrypted entries as unknowns must be left with them: changing them changes no view."""
    runs, hidden = arithmetic(ONE_STEP, seed=seed), masks(2, seed)
    view = look(runs, Fixed(hidden), ONE_STEP, UPDATE_ONLY)
    assert np.array_equal(np.isfinite(view.latents[2]), ~hidden[1])
    assert np.array_equal(np.isfinite(view.latents[1]), ~hidden[1] | ~hidden[0])
    assert np.array_equal(np.isfinite(view.latents[0]), ~hidden[0])


def test_predictions_in_the_clear_carry_an_entry_shown_once_to_the_end_and_back() -> None:
    hidden = np.ones((2, *SHAPE), dtype=bool)
    hidden[1, 0, 0, 1, 1] = False
    runs = arithmetic(ONE_STEP)
    view = look(runs, Fixed(hidden), ONE_STEP, PUBLISHED)
    wanted = np.broadcast_to(~hidden[1], (3, *SHAPE))
    assert np.array_equal(np.isfinite(view.latents), wanted)
    np.testing.assert_array_equal(view.latents[wanted], runs.latents[wanted])


def test_noise_of_the_scheduler_is_known_where_the_entry_is_shown() -> None:
    updates = [LinearUpdate(900.0, 1.0, 0.9, (-0.2,), noise=True)]
    hidden = masks(1, 3)
    runs = arithmetic(updates)
    view = look(runs, Fixed(hidden), updates, PUBLISHED)
    assert np.array_equal(np.isfinite(view.latents[1]), ~hidden[0])
    np.testing.assert_array_equal(view.latents[1][~hidden[0]], runs.latents[1][~hidden[0]])
    assert view.random


def test_the_latest_latent_of_which_anything_is_known() -> None:
    hidden = np.ones((2, *SHAPE), dtype=bool)
    hidden[0, 0, 0, 0, 0] = hidden[1, 1, 0, 0, 1] = False
    view = look(arithmetic(ONE_STEP), Fixed(hidden), ONE_STEP, END_TO_END)
    assert np.array_equal(np.isfinite(view.latest), ~(hidden[0] & hidden[1]))
    assert view.latest[0, 0, 0, 0] == view.latents[0, 0, 0, 0, 0]
    assert view.latest[1, 0, 0, 1] == view.latents[1, 1, 0, 0, 1]


def test_full_shows_nothing() -> None:
    subject = digits(3)
    view = look(subject.audited(2), strategy("full"), subject.updates, END_TO_END)
    assert view.masks.all()
    assert np.isnan(view.latents).all()


def test_runs_are_those_of_the_twin_and_the_scheduler_stays_as_it_was() -> None:
    subject = digits(4)
    model, labels = subject.model, np.arange(3)
    start = np.random.default_rng(0).normal(size=(3, *model.latent_shape))
    scheduler = subject._scheduler()
    seen: list[np.ndarray] = []
    final = model.twin(start, labels, subject._scheduler(), 4, lambda step, latents: seen.append(latents.copy()))
    runs = record(model, scheduler, start, labels, 4)
    np.testing.assert_array_equal(runs.latents, np.stack([start, *seen]))
    np.testing.assert_array_equal(runs.final, final)
    assert "step" not in vars(scheduler)
    for step, update in enumerate(subject.updates):
        stepped = sum(update.terms([runs.latents[step]], [runs.predictions[step]]))
        np.testing.assert_allclose(stepped, runs.latents[step + 1], atol=1e-6)
