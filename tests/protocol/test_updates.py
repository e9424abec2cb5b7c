"""A scheduler's updates by both parties against numpy: any schedule, history and selection, step after step."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import toy_model
from hypothesis import given, settings
from hypothesis import strategies as st
from update_session import PRECISION, SLOTS, UpdateSession, draw, schedule

from hefw.core.errors import ProtocolError
from hefw.protocol import wire
from hefw.protocol.update_client import Tensor, check_result

ENTRIES = 90
NAMES = ("latent", "prediction", "noise")
both = pytest.mark.parametrize("backend", ["simulator", "tenseal"])
ways = pytest.mark.parametrize("listed", [False, True], ids=["in place", "listed"])


def masks(rng: np.random.Generator, kind: str, entries: int = ENTRIES) -> dict[str, np.ndarray]:
    """Selections of one step: of a kind, or another for each tensor."""

    def one(kind: str) -> np.ndarray:
        if kind == "mixed":
            kind = str(rng.choice(["all", "none", "some", "few"]))
        share = {"all": 1.0, "none": 0.0, "some": rng.uniform(0.2, 0.8), "few": 0.05, "half": 0.5}[kind]
        return rng.random(entries) < share

    if kind == "prediction shown":
        return {name: one("none" if name == "prediction" else "some") for name in NAMES}
    if kind == "each its own":
        return {name: one("mixed") for name in NAMES}
    return dict.fromkeys(NAMES, one(kind))


KINDS = ["all", "none", "some", "mixed", "prediction shown", "each its own"]
SCHEDULES = {
    "one step": {},
    "prediction-1": {"predictions": 1},
    "prediction-3": {"predictions": 3},
    "latent-1": {"latents": 1},
    "both and noise": {"latents": 1, "predictions": 2, "noise": True},
    "noise": {"noise": True},
}


@both
@ways
@pytest.mark.parametrize("history", SCHEDULES)
@pytest.mark.parametrize("kind", KINDS)
def test_updates_are_those_of_numpy(backend, listed, history, kind) -> None:
    """Two requests of one session; masks change at every step."""
    options = SCHEDULES[history]
    session = UpdateSession(schedule(5, **options), ENTRIES, toy_model.backend(backend))
    rng = np.random.default_rng(1)
    for _ in range(2):
        for step, update in enumerate(session.updates):
            session.check(step, draw(rng, masks(rng, kind), update.noise), listed)
    session.client.close()  # which compares what both sides list
    assert session.client.ledger.plaintext_fraction("server") == pytest.approx(fraction(session), abs=1e-12)


def fraction(session: UpdateSession) -> float:
    """The share of numbers sent in plaintext, counted off the messages."""
    shown = sent = 0
    for frame in session.loop.sent:
        message = wire.decode(frame)
        for part in message.fields.get("parts", {}).values():
            shown += len(part["values"]) // 4
            sent += part["entries"]
    return shown / sent


@both
@pytest.mark.parametrize("entries", [1, 2, 3, SLOTS, 2 * SLOTS - 1, 2 * SLOTS, 2 * SLOTS + 1, 5 * SLOTS + 3])
def test_sizes_around_those_of_ciphertexts(backend, entries) -> None:
    session = UpdateSession(schedule(3, 1, 1), entries, toy_model.backend(backend))
    rng = np.random.default_rng(2)
    for listed in (False, True):
        for kind in ("all", "half"):
            for step in range(3):
                session.check(step, draw(rng, masks(rng, kind, entries)), listed)
    session.client.close()


@pytest.mark.parametrize("options", [{}, {"hosted": True}], ids=["here", "hosted"])
def test_a_library_elsewhere_computes_the_same(options) -> None:
    from hefw import plugins
    from hefw.backends import choose

    entry = plugins.registry().entry("backend", "tenseal")
    backend = choose.make(entry, entry.options.model_validate(options))
    session, rng = UpdateSession(schedule(3, 1, 1, True), 700, backend), np.random.default_rng(3)
    for step, update in enumerate(session.updates):
        session.check(step, draw(rng, masks(rng, "mixed", 700), update.noise), listed=True)
    session.client.close()


@st.composite
def situations(draw_: st.DrawFn) -> tuple:
    """A schedule, and for each step the masks of its tensors."""
    entries, steps = draw_(st.integers(1, 12)), draw_(st.integers(1, 5))
    options = {name: draw_(st.integers(0, 3)) for name in ("latents", "predictions")}
    updates = schedule(steps, noise=draw_(st.booleans()), seed=draw_(st.integers(0, 99)), **options)
    bits = st.integers(0, 2**entries - 1).map(lambda n: np.array([n >> k & 1 for k in range(entries)], bool))
    selections = [{name: draw_(bits) for name in NAMES} for _ in updates]
    if draw_(st.booleans()):  # the masks of one step for all
        selections = [selections[0]] * steps
    return updates, entries, selections, draw_(st.booleans())


def check(situation: tuple, backend: str) -> None:
    updates, entries, selections, listed = situation
    session = UpdateSession(updates, entries, toy_model.backend(backend))
    rng = np.random.default_rng(0)
    for step, (update, chosen) in enumerate(zip(updates, selections, strict=True)):
        session.check(step, draw(rng, chosen, update.noise), listed)
    session.client.close()


@settings(max_examples=150, deadline=None)
@given(situations())
def test_any_situation(situation) -> None:
    check(situation, "simulator")


@settings(max_examples=25, deadline=None)
@given(situations())
def test_any_situation_on_ciphertext(situation) -> None:
    check(situation, "tenseal")


# -- what is sent ------------------------------------------------------------------------------------------------------


def sent(session: UpdateSession) -> list[dict]:
    return [dict(m.fields) for m in map(wire.decode, session.loop.sent) if m.kind == "update"]


def test_nothing_encrypted_takes_no_ciphertext() -> None:
    session, rng = UpdateSession(schedule(3, 1, 1), ENTRIES, toy_model.backend()), np.random.default_rng(4)
    for step in range(3):
        tensors = draw(rng, masks(rng, "none"))
        found = session.check(step, tensors, listed=True)
        assert np.abs(found - session.expected()).max() < 1e-6  # plaintext arithmetic in 32 bits
    session.client.close()
    assert not any(part["ciphertexts"] for message in sent(session) for part in message["parts"].values())
    assert session.client.figures.counts == {}
    assert session.client.ledger.plaintext_fraction("server") == 1


def test_nothing_shown_is_sent_in_plaintext() -> None:
    session, rng = UpdateSession(schedule(3, 1, 1), ENTRIES, toy_model.backend()), np.random.default_rng(4)
    for step in range(3):
        session.check(step, draw(rng, masks(rng, "all")), listed=True)
    for message in sent(session):
        assert (message["listed"], message["order"]) == (False, b""), "where all are encrypted, there is no list"
        assert all((part["mask"], part["values"]) == (b"", b"") for part in message["parts"].values())
    assert {entry.form for entry in session.client.ledger.of("server")} == {"public", "ciphertext"}


def test_entries_stay_where_they_are_while_they_fit() -> None:
    """Few entries: the list is all of them, and what was sent before need not be sent again."""
    session, rng = UpdateSession(schedule(4, 1, 2, gaps=False), ENTRIES, toy_model.backend()), np.random.default_rng(5)
    for step in range(4):
        session.check(step, draw(rng, masks(rng, "some")), listed=True)
    assert not any(message["again"] for message in sent(session))


def test_a_list_takes_fewer_ciphertexts_and_moves_with_the_selection() -> None:
    """Some entries of many: history is encrypted anew, in the order of now, and only then."""
    entries = 6 * 2 * SLOTS
    session, rng = UpdateSession(schedule(4, 1, 1, gaps=False), entries, toy_model.backend()), np.random.default_rng(6)
    first, other = (masks(rng, "few", entries) for _ in range(2))
    for step, chosen in enumerate([first, first, other, other]):
        session.check(step, draw(rng, chosen), listed=True)
    messages = sent(session)
    assert [bool(message["again"]) for message in messages] == [False, False, True, False]
    assert set(messages[2]["again"]) == {"latent-1", "prediction-1"}
    assert all(message["listed"] for message in messages)
    assert {len(part["ciphertexts"]) for message in messages for part in message["parts"].values()} == {1}
    again = [e for e in session.client.ledger.of("server") if e.item.endswith(", again")]
    assert [(e.item, e.step, e.form, e.entries) for e in again] == [
        (f"{name}-1, again", 2, "ciphertext", 0) for name in ("latent", "prediction")
    ], "numbers that were sent before are not counted twice"


def test_a_step_with_nothing_inside_loses_no_history() -> None:
    """An encrypted past, a step that neither takes it nor encrypts anything, and a step that takes it again."""
    updates = schedule(3, 0, 2, gaps=False)
    updates[1] = type(updates[1])(**{**vars(updates[1]), "predictions": (0.5,)})
    rng = np.random.default_rng(7)
    for listed in (False, True):
        session = UpdateSession(updates, ENTRIES, toy_model.backend())
        for step, kind in enumerate(["some", "none", "some"]):
            session.check(step, draw(rng, masks(rng, kind)), listed)
        session.client.close()


def test_a_request_ends_where_the_next_begins() -> None:
    """History of an unfinished request is of no use to the next."""
    session, rng = UpdateSession(schedule(4, 1, 2, gaps=False), ENTRIES, toy_model.backend()), np.random.default_rng(8)
    for steps in (2, 4, 1, 4):
        for step in range(steps):
            session.check(step, draw(rng, masks(rng, "some")), listed=True)
    session.client.close()
    assert Counter(m["step"] for m in sent(session)) == {0: 4, 1: 3, 2: 2, 3: 2}


def test_figures_of_a_session() -> None:
    session, rng = UpdateSession(schedule(3, 0, 1), ENTRIES, toy_model.backend()), np.random.default_rng(9)
    for step in range(3):
        session.check(step, draw(rng, masks(rng, "half")))
    session.client.close()
    figures, frames = session.client.figures, [f for f in session.loop.sent if wire.decode(f).kind == "update"]
    assert figures.upload_per_step == len(frames[-1])
    assert figures.evaluation_keys == 0, "sums of multiples take none"
    assert figures.encoded_weights == 0
    assert all(figures.seconds[stage] > 0 for stage in ("plan", "keygen", "encrypt", "evaluate", "decrypt"))
    assert figures.server_peak_rss > 10_000_000
    assert [item.step for item in figures.trace] == [0, 1, 2]
    assert len(session.client.view) == 3, "the latent's first ciphertext of each step"


# -- a server that computes something else -----------------------------------------------------------------------------


def test_a_result_that_is_something_else() -> None:
    own = np.random.default_rng(0).normal(size=50)
    noise = np.random.default_rng(1).normal(size=50)
    assert check_result(own + 1e-5 * noise, own, 60.0) == pytest.approx(1e-5 * np.abs(noise).max())
    for wrong in (own + 0.1 * np.eye(50)[7], own * 1.1, -own, np.zeros(50), own[::-1], np.full(50, np.nan)):
        with pytest.raises(ProtocolError, match="it computed something else, or values left the range"):
            check_result(wrong, own, 60.0)


@pytest.mark.parametrize("shown", [False, True])
def test_a_server_that_adds_up_otherwise_is_found(shown) -> None:
    """Other factors than the schedule's, on ciphertext or on what is shown: at the first step."""
    session, rng = UpdateSession(schedule(2), ENTRIES, toy_model.backend()), np.random.default_rng(10)
    updates = session.loop.server._updates
    updates.shares = {name: 1.05 * share for name, share in updates.shares.items()}
    if not shown:
        (op,) = session.loop.server._opened.runner.program.step
        for scalar in op.scalars:
            scalar.factors[:] *= 1.05
    found = session.step(0, draw(rng, masks(rng, "none" if shown else "all")))
    with pytest.raises(ProtocolError, match="it computed something else"):
        check_result(found, session.expected(), session.client.interface.forecast_db)


def test_an_honest_result_is_far_from_the_bound() -> None:
    session, rng = UpdateSession(schedule(2), ENTRIES, toy_model.backend()), np.random.default_rng(11)
    found = session.step(0, draw(rng, masks(rng, "half")))
    assert check_result(found, session.expected(), session.client.interface.forecast_db) < PRECISION / 10


def test_values_beyond_the_modulus_are_one_clear_error() -> None:
    session, rng = UpdateSession(schedule(2), ENTRIES, toy_model.backend()), np.random.default_rng(12)
    huge = {name: Tensor(1e12 * t.values, t.mask) for name, t in draw(rng, masks(rng, "all")).items()}
    with pytest.raises(Exception, match="exceed the modulus"):
        session.step(0, huge)
    session.check(0, draw(rng, masks(rng, "all")))
