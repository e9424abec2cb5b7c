"""Partial strategies in `end-to-end`: what is shown, how much of it at most, and messages about it that are wrong."""

from __future__ import annotations

import numpy as np
import pytest
import toy_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from protocol_loop import Loop, Session

from hefw.core.errors import ProtocolError
from hefw.protocol import client as client_module
from hefw.protocol import wire
from hefw.protocol.client import Client
from hefw.protocol.server import Server

IMAGES = 3
SIZE = IMAGES * toy_model.PIXELS


def half(latents: np.ndarray) -> np.ndarray:
    """Every second entry is encrypted."""
    return np.broadcast_to(np.arange(latents.shape[1]) % 2 == 0, latents.shape)


def by_the_picture(latents: np.ndarray) -> np.ndarray:
    """What is large: another selection at each step."""
    return np.abs(latents) > np.median(np.abs(latents))


def opened(loop: Loop, backend) -> Client:
    client = Client(loop, backend)
    client.open(loop.server.graph.digest, toy_model.REQUEST)
    return client


def shown(frame: bytes) -> int:
    """Entries in plaintext in a message."""
    return sum(len(part["values"]) for part in wire.decode(frame).fields.get("shown", {}).values())


# -- the picture does not change ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "select",
    [half, by_the_picture, lambda x: np.zeros(x.shape, bool), lambda x: np.ones(x.shape, bool)],
    ids=["half", "by the picture", "all shown", "nothing shown"],
)
@pytest.mark.parametrize("name", ["tenseal", "simulator"])
def test_no_selection_changes_the_picture(graph, name, select) -> None:
    """The ciphertext has what rounding leaves; and nothing at all where an entry is a multiple of the unit."""
    backend = toy_model.backend(name)
    client = opened(Loop(Server(graph, backend)), backend)
    inputs, states = toy_model.inputs(IMAGES), {}
    client.generate(inputs, lambda step, outputs: states.update({step: outputs["latent"]}), select=select)
    output = graph.outputs["latent"]
    for step, values in enumerate(graph.trajectory(inputs)):
        assert toy_model.psnr(states[step], values[output.node] * output.factors[step]) >= toy_model.PRECISION_DB
    client.close()
    hidden = select(inputs["latent"]).all()
    assert ("latent" in {e.item for e in client.ledger.of("server") if e.form == "plaintext"}) == (not hidden)


def test_zeros_shown_whole_are_encrypted_zeros(loop, backend) -> None:
    """Nothing is left for the ciphertext: it is still one, which a library takes."""
    client = opened(loop, backend)
    inputs = {**toy_model.inputs(IMAGES), "latent": np.zeros((IMAGES, toy_model.PIXELS))}
    found = client.generate(inputs, select=lambda x: np.zeros(x.shape, bool))
    assert toy_model.psnr(found["latent"], toy_model.expected(loop.server.graph, inputs)) >= toy_model.PRECISION_DB


# -- how much is shown -------------------------------------------------------------------------------------------------


def test_the_limit_holds_under_one_key(loop, backend, monkeypatch) -> None:
    """Two and a half steps' worth: the third is refused before it is sent, and so is every one after it."""
    limit = 5 * SIZE // 4
    monkeypatch.setattr(client_module, "SHOWN_LIMIT", limit)
    client = opened(loop, backend)
    with pytest.raises(ProtocolError) as caught:
        client.generate(toy_model.inputs(IMAGES), select=half)
    assert str(caught.value) == (
        f"step 2 would show more than {limit} decrypted entries under one key; at most so many are shown, since each "
        "tells of the key a little: draw fewer images or steps a run, or encrypt more"
    )
    assert sum(map(shown, loop.sent)) == SIZE
    with pytest.raises(ProtocolError, match="step 0 would show more than"):
        client.generate(toy_model.inputs(IMAGES), select=half)
    assert sum(map(shown, loop.sent)) == SIZE <= limit, "nothing more was shown"


def test_the_limit_is_over_all_requests_of_a_key(loop, backend, monkeypatch) -> None:
    each = toy_model.STEPS * SIZE // 2
    monkeypatch.setattr(client_module, "SHOWN_LIMIT", 2 * each)
    client = opened(loop, backend)
    for _ in range(2):
        client.generate(toy_model.inputs(IMAGES), select=half)
    assert client.shown == 2 * each == sum(map(shown, loop.sent))
    with pytest.raises(ProtocolError, match="would show more than"):
        client.generate(toy_model.inputs(IMAGES), select=half)
    assert sum(map(shown, loop.sent)) == 2 * each
    again = opened(loop, backend)  # new keys
    again.generate(toy_model.inputs(IMAGES), select=half)
    assert again.shown == each


def test_what_is_encrypted_does_not_count(loop, backend, monkeypatch) -> None:
    monkeypatch.setattr(client_module, "SHOWN_LIMIT", 0)
    client = opened(loop, backend)
    client.generate(toy_model.inputs(IMAGES), select=lambda x: np.ones(x.shape, bool))
    client.generate(toy_model.inputs(IMAGES))
    assert client.shown == 0
    with pytest.raises(ProtocolError, match="would show more than 0 decrypted entries"):
        client.generate(toy_model.inputs(IMAGES), select=half)


def test_the_limit_is_what_the_documentation_says() -> None:
    assert client_module.SHOWN_LIMIT == 2**20


# -- a server against wrong messages -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def partial(graph, backend, programs) -> Loop:
    found = Loop(Server(graph, backend, programs))
    client = opened(found, backend)
    client.generate(toy_model.inputs(IMAGES), select=half)
    client.close()
    return found


@pytest.fixture
def session(partial) -> Session:
    return Session(partial.server, [f for f in partial.sent if wire.decode(f).kind in ("begin", "step")])


def step(session: Session) -> dict:
    return dict(wire.decode(session.frame("step")).fields)


def part(session: Session, **fields: object) -> dict:
    return {"latent": {**step(session)["shown"]["latent"], **fields}}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda s: {"images": 0}, "ProtocolError", "0 images came; at most 64 fit"),
        (lambda s: {"images": 65}, "ProtocolError", "65 images came; at most 64 fit"),
        (lambda s: {"images": True}, "EnvelopeError", "field 'images'"),
        (lambda s: {"images": None}, "EnvelopeError", "field 'images'"),
        (lambda s: {"images": IMAGES + 1}, "EnvelopeError", f"a tensor of {SIZE} entries came"),
        (lambda s: {"shown": None}, "EnvelopeError", "field 'shown'"),
        (lambda s: {"shown": {"seed": {}}}, "ProtocolError", "input 'seed' is not one of a step"),
        (lambda s: {"shown": {"x" * 10**5: {}}}, "ProtocolError", "is not one of a step"),
        (lambda s: {"shown": {"label": part(s)["latent"]}}, "ProtocolError", "input 'label' is not one of a step"),
        (lambda s: {"shown": {"latent": {}}}, "EnvelopeError", "a tensor's parts must have"),
        (lambda s: {"shown": part(s, entries=SIZE - 1)}, "EnvelopeError", f"{SIZE} are expected"),
        (lambda s: {"shown": part(s, values=b"")}, "EnvelopeError", "0 bytes of plaintext came"),
        (lambda s: {"shown": part(s, unit=1e308)}, "EnvelopeError", "not finite"),
        (lambda s: {"shown": part(s, unit=1e200)}, "EncodingError", "exceed the modulus"),
        (
            lambda s: {"shown": part(s, ciphertexts=step(s)["inputs"]["latent"])},
            "EnvelopeError",
            "the plaintext part of input 'latent' came with ciphertexts",
        ),
    ],
)
def test_wrong_messages(session, change, error, words) -> None:
    session.replay("begin")
    answer = session.ask(wire.encode("step", **{**step(session), **change(session)}))
    assert answer.kind == "error"
    assert (answer.fields["error"], words in answer.fields["message"]) == (error, True), answer.fields
    assert answer.fields["message"].isprintable()
    session.replay("step")


small = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8) | st.binary()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["entries", "mask", "values", "unit", "ciphertexts", "x"]), small, min_size=1))
def test_any_plaintext(session, fields) -> None:
    session.replay("begin")
    frame = wire.encode("step", **{**step(session), "shown": part(session, **fields)})
    assert session.ask(frame).kind in ("result", "error")
