"""A server against whatever a key holder may send: one 'error' answer each, and the session goes on."""

from __future__ import annotations

import msgpack
import pytest
import toy_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from protocol_loop import Loop, Session

from hefw.core.backend import KeyManifest
from hefw.core.envelope import HEADER_SIZE, KINDS, Envelope
from hefw.core.params import CkksParams
from hefw.protocol import wire
from hefw.protocol.client import Client
from hefw.protocol.server import Server


def refused(session: Session, frame: bytes, error: str, words: str) -> None:
    answer = session.ask(frame)
    assert answer.kind == "error", answer
    assert answer.fields["error"] == error
    assert words in answer.fields["message"]
    assert answer.fields["message"].isprintable()


def works(session: Session) -> None:
    """The key holder's own frames are still answered."""
    session.replay("key", "begin", "step", "close")


def changed(frame: bytes, **fields: object) -> bytes:
    message = wire.decode(frame)
    return wire.encode(message.kind, **{**message.fields, **fields})


@pytest.fixture
def opened(session: Session) -> Session:
    session.replay("open")
    return session


@pytest.fixture
def keyed(opened: Session) -> Session:
    opened.replay("key")
    return opened


@pytest.fixture
def begun(keyed: Session) -> Session:
    keyed.replay("begin")
    return keyed


@pytest.fixture(scope="module")
def stranger(graph, backend, programs) -> Loop:
    """Another key holder's frames, for the same program."""
    found = Loop(Server(graph, backend, programs))
    client = Client(found, backend)
    client.open(graph.digest, toy_model.REQUEST)
    client.generate(toy_model.inputs(3, seed=5))
    return found


# -- order -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["prepare", "key", "begin", "step", "close"])
def test_before_open(session, kind) -> None:
    refused(session, session.frame(kind), "ProtocolError", "the session is not open")
    session.replay("open")
    works(session)


def test_begin_before_keys(opened) -> None:
    refused(opened, opened.frame("begin"), "KeyMismatchError", "missing evaluation keys: relinearisation, rotation/")
    works(opened)


@pytest.mark.parametrize("missing", ["relinearisation", "rotation"])
def test_begin_with_one_key_missing(opened, missing) -> None:
    frames = [f for f in opened.frames if wire.decode(f).kind == "key"]
    left_out = next(f for f in frames if wire.decode(f).fields["name"].startswith(missing))
    for frame in frames:
        if frame is not left_out:
            assert opened.ask(frame).kind == "done"
    refused(opened, opened.frame("begin"), "KeyMismatchError", f"missing evaluation keys: {missing}")
    works(opened)


def test_step_before_begin(keyed) -> None:
    refused(keyed, keyed.frame("step"), "ProtocolError", "the request has not begun")
    works(keyed)


def test_open_again_starts_over(begun) -> None:
    begun.replay("open")
    refused(begun, begun.frame("step"), "ProtocolError", "the request has not begun")
    works(begun)


@pytest.mark.parametrize("kind", ["manifest", "result", "done", "progress", "error"])
def test_a_servers_own_messages(begun, kind) -> None:
    refused(begun, wire.encode(kind), "ProtocolError", "out of order")
    works(begun)


# -- open --------------------------------------------------------------------------------------------------------------


PARAMS = {
    "ring_dimension": 4096,
    "modulus_bits": [60, 60, 60],
    "special_bits": [60],
    "scale_bits": 30.0,
    "allow_insecure": True,
}


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"graph_digest": "0" * 32}, "ProtocolError", "another model"),
        ({"graph_digest": None}, "EnvelopeError", "'graph_digest'"),
        ({"backend": "openfhe"}, "CapabilityError", "evaluates with backend 'tenseal', not 'openfhe'"),
        ({"backend": b"tenseal"}, "EnvelopeError", "'backend'"),
        ({"precision_db": -3.0}, "ParameterError", "precision_db -3.0"),
        ({"precision_db": float("nan")}, "ParameterError", "precision_db nan"),
        ({"precision_db": "60"}, "EnvelopeError", "'precision_db'"),
        *(
            ({"ring_dimension": n}, "ParameterError", "is not allowed; choose none, or a power of two from 1024")
            for n in ("4096", 4096.0, True, 0, -4096, 3, 172, 5000, 2**62, [4096], "x" * 10**5)
        ),
        ({"ring_dimension": 131072}, "ParameterError", "has no ring dimension 131072"),
        ({"allow_insecure": False}, "LoweringError", ""),
        ({"allow_insecure": 1}, "EnvelopeError", "'allow_insecure'"),
        ({"params": [1]}, "ParameterError", "params must be a mapping"),
        ({"params": {}}, "ParameterError", "cannot be read"),
        ({"params": PARAMS | {"ring_dimension": 4097}}, "ParameterError", "4097"),
        ({"params": PARAMS | {"allow_insecure": False}}, "ParameterError", "below 128-bit"),
        ({"params": PARAMS | {"modulus_bits": [60]}}, "LoweringError", "too short"),
        ({"params": PARAMS | {"modulus_bits": [60] * 65}}, "ParameterError", "at most 64"),
        ({"params": PARAMS | {"modulus_bits": [2**40]}}, "ParameterError", "not allowed"),
        ({"params": PARAMS | {"special_bits": [30]}}, "ParameterError", "the special prime"),
        ({"params": PARAMS | {"scale_bits": float("inf")}}, "ParameterError", "finite"),
    ],
)
def test_open_out_of_bounds(session, fields, error, words) -> None:
    refused(session, changed(session.frame("open"), **fields), error, words)
    session.replay("open")
    works(session)


def test_a_refused_open_leaves_the_open_session_as_it_was(begun) -> None:
    refused(begun, changed(begun.frame("open"), graph_digest="0" * 32), "ProtocolError", "another model")
    begun.replay("step")


# -- keys --------------------------------------------------------------------------------------------------------------


def key_frames(frames: list[bytes]) -> list[bytes]:
    return [frame for frame in frames if wire.decode(frame).kind == "key"]


def test_keys_of_another_key_holder(opened, stranger) -> None:
    first, second, *_ = key_frames(opened.frames)
    assert opened.ask(first).kind == "done"
    other = next(f for f in stranger.sent if wire.decode(f).fields.get("name") == wire.decode(second).fields["name"])
    refused(opened, other, "EnvelopeError", "made with another key")
    works(opened)


def test_keys_under_another_name(opened) -> None:
    relinearisation, first, second, *_ = key_frames(opened.frames)
    name = wire.decode(first).fields["name"]
    refused(opened, changed(second, name=name), "KeyMismatchError", f"the blob named {name!r} holds the key of")
    refused(opened, changed(relinearisation, name=name), "EnvelopeError", "a rotation-key was expected")
    refused(opened, changed(first, name="relinearisation"), "EnvelopeError", "a relinearisation-key was expected")
    works(opened)


@pytest.mark.parametrize("name", ["rotation/999", "rotation/-1", "rotation/", "secret", "", "conjugation", "x" * 10**5])
def test_keys_that_are_not_in_the_manifest(opened, name) -> None:
    frame = changed(opened.frame("key"), name=name)
    refused(opened, frame, "KeyMismatchError", "is not in the program's manifest")
    works(opened)


def test_keys_of_other_parameters(opened, graph, backend) -> None:
    other = backend.resolve(CkksParams(2048, (60, 60, 60), (60,), 40.0, allow_insecure=True))
    _, blob = next(iter(backend.keygen(other, KeyManifest()).evaluation_keys()))
    frame = wire.encode("key", name="relinearisation", blob=blob)
    refused(opened, frame, "EnvelopeError", "made for other parameters")
    works(opened)


def test_a_secret_key_is_refused_unread(opened, backend, tmp_path) -> None:
    """A key holder that sends its secret key by mistake is told so; the server's parser never sees it."""
    program, _ = opened.server.programs[toy_model.REQUEST]
    holder = backend.keygen(program.params, KeyManifest())
    holder.save(tmp_path / "key")
    frame = wire.encode("key", name="relinearisation", blob=(tmp_path / "key").read_bytes())
    refused(opened, frame, "EnvelopeError", "a relinearisation-key was expected, a secret-key was sent")
    works(opened)


# -- ciphertexts -------------------------------------------------------------------------------------------------------


def test_ciphertexts_of_another_key_holder(begun, stranger) -> None:
    for kind in ("begin", "step"):
        frame = next(f for f in stranger.sent if wire.decode(f).kind == kind)
        refused(begun, frame, "EnvelopeError", "made with another key")
    works(begun)


def repacked(frame: bytes, **fields: object) -> bytes:
    """The frame with other values in the first envelope of each input, its digest right."""
    inputs = {}
    for name, (item, *rest) in wire.decode(frame).fields["inputs"].items():
        envelope = Envelope.unpack(item)
        inputs[name] = [Envelope(**{**vars(envelope), **fields}).pack(), *rest]
    return changed(frame, inputs=inputs)


@pytest.mark.parametrize("kind", ["begin", "step"])
@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"params_digest": b"x" * 16}, "EnvelopeError", "made for other parameters"),
        ({"key_id": b"x" * 16}, "EnvelopeError", "made with another key"),
        ({"backend": "openfhe"}, "EnvelopeError", "made by backend 'openfhe'"),
        ({"kind": "secret-key"}, "EnvelopeError", "a ciphertext was expected"),
        ({"level": 0}, "EnvelopeError", "was sent as one of level 0"),
        ({"level": 60}, "LevelError", "level 60 does not exist"),
        ({"scale": 2.0**20}, "ScaleError", "has scale 1.04858e+06; the program takes scale"),
        ({"scale": 2.0**500}, "ScaleError", "does not fit the modulus"),
        ({"payload": b""}, "EnvelopeError", "not a padded ciphertext"),
        ({"payload": bytes(1000)}, "EnvelopeError", "SEAL cannot read the ciphertext"),
        ({"payload": b"\xff" * 1000}, "EnvelopeError", "not a padded ciphertext"),
    ],
)
def test_ciphertexts_made_for_something_else(begun, kind, fields, error, words) -> None:
    refused(begun, repacked(begun.frame(kind), **fields), error, words)
    works(begun)


def test_a_ciphertext_of_a_lower_level(begun, backend) -> None:
    program, _ = begun.server.programs[toy_model.REQUEST]
    holder = backend.keygen(program.params, KeyManifest())
    holder.key_id = Envelope.unpack(wire.decode(begun.frame("step")).fields["inputs"]["latent"][0]).key_id
    port = program.interface.inputs["latent"]
    low = holder.encrypt_bytes(port.layout.pack(toy_model.inputs(1)["latent"])[0], port.level - 1, port.scale)
    frame = changed(begun.frame("step"), inputs={"latent": [low]})
    refused(begun, frame, "LevelError", f"input 'latent' has level {port.level - 1}")
    works(begun)


def test_inputs_that_do_not_fit(begun) -> None:
    begin, step = begun.frame("begin"), begun.frame("step")
    label, latent = (wire.decode(f).fields["inputs"] for f in (begin, step))
    for frame, fields, words in [
        (begin, latent, "input 'latent' is not one of a 'begin' message"),
        (step, label, "input 'label' is not one of a 'step' message"),
        (step, latent | label, "input 'label' is not one of"),
        (step, latent | {"x" * 10**5: []}, "is not one of"),
        (step, {"latent": []}, "has 0 ciphertexts; 1 are expected"),
        (step, {"latent": latent["latent"] * 2}, "has 2 ciphertexts; 1 are expected"),
        (step, {}, "input 'latent' is missing; sent: none"),
        (begin, {}, "input 'label' is missing; sent: none"),
    ]:
        refused(begun, changed(frame, inputs=fields), "ProtocolError", words)
    works(begun)


@pytest.mark.parametrize("step", [-1, toy_model.STEPS, 2**63])
def test_a_step_that_does_not_exist(begun, step) -> None:
    frame = changed(begun.frame("step"), step=step)
    refused(begun, frame, "ProtocolError", f"step {step} does not exist; this program has steps 0 to 2")
    works(begun)


@pytest.mark.parametrize("step", [True, None, 0.0, "0"])
def test_a_step_that_is_no_number(begun, step) -> None:
    refused(begun, changed(begun.frame("step"), step=step), "EnvelopeError", "field 'step'")
    works(begun)


# -- anything at all ---------------------------------------------------------------------------------------------------


small = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8) | st.binary()
anything = st.recursive(small, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=8), v, max_size=3))
fuzzing = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@fuzzing
@given(st.binary(max_size=200))
def test_any_bytes(begun, data) -> None:
    assert begun.ask(data).kind == "error"


@fuzzing
@given(st.sampled_from(list(wire.KINDS)), st.data())
def test_any_fields(begun, kind, data) -> None:
    """Right frames, anything in them: the names of fields are the real ones, their values are not."""
    own = [f for f in begun.frames if wire.decode(f).kind == kind]
    fields = dict(wire.decode(data.draw(st.sampled_from(own))).fields) if own else {}
    for name in data.draw(st.lists(st.sampled_from([*fields, "x"]), max_size=3)):
        fields[name] = data.draw(anything)
    begun.ask(wire.encode(kind, **fields))


@fuzzing
@given(st.data())
def test_any_flipped_or_cut_frame(begun, data) -> None:
    """With the checksum of the frame put right, so that what is inside must be checked too."""
    frame = data.draw(st.sampled_from(begun.frames))
    payload = bytearray(frame[wire.HEADER_SIZE :])
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, min(300, len(payload) - 1)))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(payload), len(payload) // 2, 3]))
    try:
        fields = msgpack.unpackb(bytes(payload[:cut]))
        again = wire.encode(wire.decode(frame).kind, **fields)
    except (TypeError, ValueError, msgpack.UnpackException):
        return
    begun.ask(again)


@fuzzing
@given(st.data())
def test_any_payload_under_a_right_digest(begun, data) -> None:
    """The HE library's own parser, on bytes that hefw's header cannot tell from good ones."""
    frame = data.draw(st.sampled_from([begun.frame("key"), begun.frame("begin"), begun.frame("step")]))
    fields = dict(wire.decode(frame).fields)
    blob = fields["blob"] if "blob" in fields else next(iter(fields["inputs"].values()))[0]
    envelope = Envelope.unpack(blob)
    payload = bytearray(envelope.payload)
    places = st.integers(0, 60) | st.integers(0, len(payload) - 1)
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(places)] = data.draw(st.integers(0, 255))
    changes = {"payload": bytes(payload), "kind": data.draw(st.sampled_from([envelope.kind, *KINDS]))}
    broken = Envelope(**{**vars(envelope), **changes}).pack()
    assert len(broken) == HEADER_SIZE + len(payload)
    if "blob" in fields:
        begun.ask(changed(frame, blob=broken))
    else:
        begun.ask(changed(frame, inputs={next(iter(fields["inputs"])): [broken]}))


@fuzzing
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8))
def test_any_order(session, picks) -> None:
    for pick in picks:
        session.ask(session.frames[pick % len(session.frames)])


@settings(max_examples=12, deadline=None)
@given(
    precision=st.floats(10, 60) | st.integers(-5, 60),
    ring=st.none() | st.integers(-(2**20), 2**20) | st.sampled_from([1024, 2048, 4096, 8192]),
)
def test_any_request(precision, ring) -> None:
    """Planning and lowering on what a key holder asks for."""
    graph = toy_model.graph()
    server = Server(graph, toy_model.backend("simulator"))
    fields = {"precision_db": precision, "ring_dimension": ring, "params": None, "allow_insecure": True}
    fields |= {"every": 1, "bootstrap": False, "images": 1}
    frame = wire.encode("open", graph_digest=graph.digest, backend="simulator", **fields)
    assert Session(server, []).ask(frame).kind in ("manifest", "error")


def test_the_session_survives_all_that(begun) -> None:
    for data in (b"", b"x" * 100, begun.frame("step")[:-1], wire.encode("step", step=0)):
        assert begun.ask(data).kind == "error"
    works(begun)
