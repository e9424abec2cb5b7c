"""Both parties of `update-only` against messages that are wrong: one clear error each, and the session goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import toy_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from protocol_loop import Session
from update_session import REQUEST, SLOTS, UpdateSession, draw, schedule

from hefw.core.backend import KeyManifest
from hefw.core.envelope import Envelope
from hefw.core.errors import EnvelopeError, HefwError, ProtocolError
from hefw.core.params import CkksParams
from hefw.protocol import wire
from hefw.protocol.client import Client
from hefw.protocol.server import Server

STEPS = 3
ENTRIES = 3 * 2 * SLOTS
UPDATES = schedule(STEPS, 1, 1, gaps=False)


def few(seed: int, count: int = 200) -> np.ndarray:
    mask = np.zeros(ENTRIES, bool)
    mask[np.random.default_rng(seed).choice(ENTRIES, count, replace=False)] = True
    return mask


def recorded(seed: int) -> UpdateSession:
    """Three steps of lists, of which the last has another selection, so that history comes again."""
    session, rng = UpdateSession(UPDATES, ENTRIES, toy_model.backend()), np.random.default_rng(seed)
    for step, mask in enumerate([few(1), few(1), few(2)]):
        session.check(step, draw(rng, {"latent": mask, "prediction": mask}), listed=True)
    return session


@pytest.fixture(scope="module")
def run() -> UpdateSession:
    return recorded(0)


@pytest.fixture(scope="module")
def stranger() -> UpdateSession:
    """Another key holder's session with the same program."""
    return recorded(5)


@pytest.fixture
def session(run) -> Session:
    """The server of the recorded session, which begins its request anew at step 0, and the key holder's frames."""
    return Session(run.loop.server, [f for f in run.loop.sent if wire.decode(f).kind == "update"])


def update(session: Session, step: int) -> dict:
    return dict(wire.decode(session.frames[step]).fields)


def before(session: Session, step: int) -> None:
    """The steps before one, as they should be."""
    for frame in session.frames[:step]:
        assert session.ask(frame).kind == "updated"


def refused(session: Session, number: int, error: str, words: str, **fields: object) -> None:
    """One line, and the steps from this one on are still done."""
    before(session, number)
    answer = session.ask(wire.encode("update", **{**update(session, number), **fields}))
    assert answer.kind == "error", answer
    assert (answer.fields["error"], words in answer.fields["message"]) == (error, True), answer.fields
    assert answer.fields["message"].isprintable()
    assert len(answer.fields["message"]) < 300
    for frame in session.frames[number:]:
        assert session.ask(frame).kind == "updated"


# -- order -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("done", "step"), [(1, 2), (1, -1), (2, 1), (2, 2**62), (3, 2), (3, 1)])
def test_a_step_out_of_order(session, done, step) -> None:
    """Step 0 begins a request at any time; another must be the next."""
    before(session, done)
    wanted = f"step {step} is out of order; step {done} of {STEPS} is next"
    answer = session.ask(wire.encode("update", **{**update(session, 0), "step": step}))
    assert (answer.kind, answer.fields["message"]) == ("error", wanted)
    for frame in session.frames[done:]:
        assert session.ask(frame).kind == "updated"


def test_a_step_that_does_not_exist(session) -> None:
    before(session, STEPS)
    answer = session.ask(wire.encode("update", **{**update(session, 2), "step": STEPS}))
    assert answer.fields["message"] == f"step {STEPS} is out of order; step {STEPS} of {STEPS} is next"
    before(session, STEPS)


def test_before_open() -> None:
    server = Session(Server(UpdateSession(UPDATES, ENTRIES, toy_model.backend()).graph, toy_model.backend()), [])
    answer = server.ask(wire.encode("update", step=0))
    assert answer.fields["message"] == "the session is not open; send an 'open' message first"


def test_a_network_takes_no_updates(loop, graph, backend, session) -> None:
    Client(loop, backend).open(graph.digest, toy_model.REQUEST)
    answer = Session(loop.server, []).ask(session.frames[0])
    assert "this program evaluates a network: send 'step' messages" in answer.fields["message"]


# -- what is in a message ----------------------------------------------------------------------------------------------


def order(*indices: int) -> bytes:
    return np.array(indices, "<i4").tobytes()


LISTED = np.flatnonzero(few(1))


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"step": "0"}, "EnvelopeError", "field 'step'"),
        ({"step": True}, "EnvelopeError", "field 'step'"),
        ({"entries": ENTRIES - 2}, "ProtocolError", f"{ENTRIES - 2} entries came, for a program of {ENTRIES // 2}"),
        ({"entries": -1}, "ProtocolError", "-1 entries came"),
        ({"entries": 0}, "ProtocolError", "0 entries came"),
        ({"entries": None}, "EnvelopeError", "field 'entries'"),
        ({"paired": False}, "ProtocolError", f"{ENTRIES} entries came, for a program of"),
        ({"paired": 1}, "EnvelopeError", "field 'paired'"),
        ({"parts": {}}, "ProtocolError", "step 0 takes latent, prediction, which did not come"),
        ({"parts": None}, "EnvelopeError", "field 'parts'"),
        ({"parts": {"seed": {}}}, "ProtocolError", "input 'seed' is not one of this program"),
        ({"parts": {"x" * 10**5: {}}}, "ProtocolError", "is not one of this program"),
        ({"parts": {"latent": {}, "prediction": {}}}, "EnvelopeError", "a tensor's parts must have"),
        ({"parts": {"latent": b"", "prediction": b""}}, "EnvelopeError", "a tensor's parts must be a map"),
        ({"again": None}, "EnvelopeError", "field 'again'"),
        ({"again": {"latent": []}}, "EnvelopeError", "input 'latent' has 0 ciphertexts; 1 are expected"),
        ({"again": {"latent": [b""]}}, "ProtocolError", "latent came again at step 0, but never before"),
        ({"listed": 1}, "EnvelopeError", "field 'listed'"),
        ({"listed": False}, "EnvelopeError", "the indices of encrypted entries are none"),
        ({"order": None}, "EnvelopeError", "field 'order'"),
        ({"order": order(*LISTED)[:-1]}, "EnvelopeError", "the indices of encrypted entries are none"),
        ({"order": order(*LISTED[::-1])}, "EnvelopeError", "the indices of encrypted entries must ascend"),
        ({"order": order(*LISTED, LISTED[-1])}, "EnvelopeError", "the indices of encrypted entries must ascend"),
        ({"order": order(-1, *LISTED)}, "EnvelopeError", "the indices of encrypted entries are none"),
        ({"order": order(*LISTED, ENTRIES)}, "EnvelopeError", "the indices of encrypted entries are none"),
        ({"order": order(*LISTED[1:])}, "ProtocolError", "an encrypted entry is in no ciphertext"),
        ({"order": order(*LISTED[:-1])}, "ProtocolError", "an encrypted entry is in no ciphertext"),
        ({"order": order()}, "EnvelopeError", "has 1 ciphertexts; 0 are expected"),
        ({"order": b"", "listed": False}, "EnvelopeError", "has 1 ciphertexts; 3 are expected"),
        ({"order": order(*range(ENTRIES))}, "EnvelopeError", "has 1 ciphertexts; 3 are expected"),
    ],
)
def test_a_message_that_is_none(session, fields, error, words) -> None:
    refused(session, 0, error, words, **fields)


@pytest.mark.parametrize(
    ("again", "error", "words"),
    [
        (lambda items: {}, "ProtocolError", "input 'latent-1' has 0 ciphertexts"),
        (lambda items: {"latent-1": items["latent-1"]}, "ProtocolError", "input 'prediction-1' has 0 ciphertexts"),
        (lambda items: items | {"latent-1": []}, "EnvelopeError", "input 'latent-1' has 0 ciphertexts; 1 are expected"),
        (lambda items: items | {"latent-1": items["latent-1"] * 2}, "EnvelopeError", "has 2 ciphertexts"),
        (
            lambda items: items | {"latent": items["latent-1"]},
            "ProtocolError",
            "latent came again at step 2, but never",
        ),
        (lambda items: items | {"noise": items["latent-1"]}, "ProtocolError", "input 'noise' is not one of"),
        (lambda items: items | {"latent-1": [b"x" * 500]}, "EnvelopeError", "not a hefw envelope"),
    ],
)
def test_what_comes_again(session, again, error, words) -> None:
    """At the last step, where the selection has changed."""
    refused(session, 2, error, words, again=again(update(session, 2)["again"]))


@pytest.mark.parametrize("step", [0, 1])
def test_again_without_need(session, step) -> None:
    """At the first step there is no history; at the second it is in order already."""
    items = {"latent-1": update(session, step)["parts"]["latent"]["ciphertexts"]}
    words = ["latent-1 came again at step 0, but never before", "tensors came again in an order that they are in"]
    refused(session, step, "ProtocolError", words[step], again=items)


def test_history_that_did_not_come(session) -> None:
    """A prediction that was left out at the step before, where it had no share, is missed at this one."""
    first = update(session, 0)
    before(session, 0)
    session.server._updates.shares["prediction"][0] = 0.0
    try:
        parts = {"latent": first["parts"]["latent"]}
        assert session.ask(wire.encode("update", **{**first, "parts": parts})).kind == "updated"
        answer = session.ask(session.frames[1])
        assert answer.fields["message"] == "step 1 takes prediction-1, which did not come"
    finally:
        session.server._updates.shares["prediction"][0] = UPDATES[0].predictions[0]
    before(session, STEPS)


# -- ciphertexts -------------------------------------------------------------------------------------------------------


def with_ciphertexts(session: Session, change: Callable[[list[bytes]], list[bytes]], name: str = "latent") -> dict:
    parts = {key: dict(part) for key, part in update(session, 0)["parts"].items()}
    parts[name]["ciphertexts"] = change(parts[name]["ciphertexts"])
    return parts


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda items: [], "EnvelopeError", "input 'latent' has 0 ciphertexts; 1 are expected"),
        (lambda items: items * 2, "EnvelopeError", "input 'latent' has 2 ciphertexts; 1 are expected"),
        (lambda items: [items[0][:-1]], "EnvelopeError", "truncated"),
        (lambda items: [b""], "EnvelopeError", "truncated"),
        (lambda items: [3], "EnvelopeError", "a tensor's parts must have"),
    ],
)
def test_wrong_ciphertexts(session, change, error, words) -> None:
    refused(session, 0, error, words, parts=with_ciphertexts(session, change))


def repacked(**fields: object) -> Callable[[list[bytes]], list[bytes]]:
    return lambda items: [Envelope(**{**vars(Envelope.unpack(item)), **fields}).pack() for item in items]


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"level": 1}, "LevelError", "level 1 does not exist"),
        ({"scale": 2.0**20}, "ScaleError", "input 'prediction' has scale 1.04858e+06; the program takes scale"),
        ({"scale": 2.0**70}, "ScaleError", "does not fit the modulus"),
        ({"key_id": b"x" * 16}, "EnvelopeError", "made with another key"),
        ({"params_digest": b"x" * 16}, "EnvelopeError", "made for other parameters"),
        ({"backend": "openfhe"}, "EnvelopeError", "made by backend 'openfhe'"),
        ({"kind": "secret-key"}, "EnvelopeError", "a ciphertext was expected"),
        ({"payload": bytes(1000)}, "EnvelopeError", "SEAL cannot read"),
    ],
)
def test_ciphertexts_of_something_else(session, fields, error, words) -> None:
    parts = with_ciphertexts(session, repacked(**fields), "prediction")
    refused(session, 0, error, words, parts=parts)


def test_ciphertexts_of_a_lower_level() -> None:
    """Where the chain has one: the program takes the highest."""
    session, mask = UpdateSession(UPDATES, ENTRIES, toy_model.backend()), few(1)
    params = CkksParams(1024, (50, 50), (60,), 30.0, allow_insecure=True)
    interface = session.client.open(session.graph.digest, replace(REQUEST, params=params))
    assert interface.inputs["latent"].level == interface.params.max_level == 1
    session.check(0, draw(np.random.default_rng(0), {"latent": mask, "prediction": mask}), listed=True)
    low = session.client._keys.encrypt_bytes(np.zeros(SLOTS), 0, 2.0**20)
    asked = Session(session.loop.server, [f for f in session.loop.sent if wire.decode(f).kind == "update"])
    refused(asked, 0, "LevelError", "'latent' has level 0", parts=with_ciphertexts(asked, lambda items: [low]))


def test_ciphertexts_of_another_key_holder(session, stranger) -> None:
    """The first ciphertext of a session tells the key: those of another are refused whole, or one by one."""
    theirs = [f for f in stranger.loop.sent if wire.decode(f).kind == "update"]
    answer = session.ask(theirs[0])
    assert answer.fields["error"] == "EnvelopeError"
    assert "made with another key" in answer.fields["message"]
    (foreign,) = wire.decode(theirs[0]).fields["parts"]["latent"]["ciphertexts"]
    parts = with_ciphertexts(session, lambda items: [foreign])
    refused(session, 0, "EnvelopeError", "made with another key", parts=parts)


# -- plaintext ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"entries": ENTRIES + 1}, f"a tensor of {ENTRIES + 1} entries came"),
        ({"values": b""}, "0 bytes of plaintext came for"),
        ({"mask": b""}, "bytes of plaintext came for 0 entries"),
        ({"mask": b"\0"}, "are expected"),
        ({"unit": float("nan")}, "must have a mask"),
    ],
)
def test_wrong_plaintext(session, fields, words) -> None:
    parts = {key: dict(part) for key, part in update(session, 0)["parts"].items()}
    parts["latent"] |= fields
    refused(session, 0, "EnvelopeError", words, parts=parts)


def test_a_refused_request_leaves_the_one_before_done(session) -> None:
    """A wrong first step ends no session; the history of the request before it is gone, as it should be."""
    before(session, STEPS)
    refused(session, 0, "ProtocolError", "which did not come", parts={})


small = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8) | st.binary()
anything = st.recursive(small, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=8), v, max_size=3))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_message(session, data) -> None:
    """Right names of fields, anything in them, at any depth: an answer each, never an end."""
    fields = update(session, data.draw(st.integers(0, STEPS - 1)))
    place = fields
    while True:
        key = data.draw(st.sampled_from([*place, "x"]))
        if isinstance(place.get(key), dict) and place[key] and data.draw(st.booleans()):
            place[key] = dict(place[key])
            place = place[key]
            continue
        place[key] = data.draw(anything)
        break
    assert session.ask(wire.encode("update", **fields)).kind in ("updated", "error")
    before(session, STEPS)


# -- a server's answers ------------------------------------------------------------------------------------------------


def changing(change: Callable[[dict], dict]) -> Callable[[bytes], bytes]:
    def changed(frame: bytes) -> bytes:
        message = wire.decode(frame)
        return wire.encode("updated", **change(dict(message.fields))) if message.kind == "updated" else frame

    return changed


def ciphertexts(change: Callable[[list[bytes]], object]) -> Callable[[bytes], bytes]:
    return changing(lambda fields: {**fields, "ciphertexts": change(fields["ciphertexts"])})


def plaintext(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[bytes], bytes]:
    return changing(lambda f: {**f, "values": change(np.frombuffer(f["values"], "<f8")).astype("<f8").tobytes()})


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (ciphertexts(lambda items: []), EnvelopeError, "the result of an update has 1 ciphertexts; others came"),
        (ciphertexts(lambda items: items * 2), EnvelopeError, "has 1 ciphertexts; others came"),
        (ciphertexts(lambda items: None), EnvelopeError, "others came"),
        (ciphertexts(lambda items: [3]), EnvelopeError, "others came"),
        (ciphertexts(lambda items: [items[0][:-1]]), EnvelopeError, "truncated"),
        (ciphertexts(repacked(key_id=b"x" * 16)), EnvelopeError, "made with another key"),
        (ciphertexts(repacked(scale=2.0**30)), ProtocolError, "the manifest announced"),
        (ciphertexts(repacked(level=3)), ProtocolError, "is at level 3"),
        (ciphertexts(repacked(payload=b"\xff" * 5000)), EnvelopeError, "not a padded ciphertext"),
        (plaintext(lambda values: values[:-1]), EnvelopeError, "are not those that were shown"),
        (plaintext(lambda values: np.append(values, 1.0)), EnvelopeError, "are not those that were shown"),
        (plaintext(lambda values: values * np.nan), EnvelopeError, "are not those that were shown"),
        (plaintext(lambda values: values * np.inf), EnvelopeError, "are not those that were shown"),
        (changing(lambda f: {**f, "values": f["values"][:-1]}), EnvelopeError, "are not those that were shown"),
        (changing(lambda f: {**f, "values": None}), EnvelopeError, "field 'values'"),
        (changing(lambda f: {"seconds": 1.0}), EnvelopeError, "field 'values'|others came"),
        (changing(lambda f: {}), EnvelopeError, "field 'seconds'"),
    ],
)
def test_a_servers_answer_that_is_none(change, error, words) -> None:
    session = UpdateSession(UPDATES, ENTRIES, toy_model.backend())
    mask = few(1)
    tensors = draw(np.random.default_rng(0), {"latent": mask, "prediction": mask})
    session.loop.change = change
    with pytest.raises(error, match=words) as caught:
        session.step(0, tensors, listed=True)
    assert str(caught.value).isprintable()
    session.loop.change = lambda frame: frame
    session.check(0, tensors, listed=True)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["ciphertexts", "values", "x"]), anything | st.binary(), min_size=1))
def test_any_answer(run, fields) -> None:
    run.loop.change = changing(lambda told: {**told, **fields})
    mask = few(1)
    try:
        with contextlib.suppress(HefwError):
            run.step(0, draw(np.random.default_rng(0), {"latent": mask, "prediction": mask}), listed=True)
    finally:
        run.loop.change = lambda frame: frame


def test_keys_that_are_not_needed_are_not_made(run) -> None:
    interface = run.client.interface
    assert interface.keys == KeyManifest({}, relinearisation=False)
    assert not [f for f in run.loop.sent if wire.decode(f).kind == "key"]
