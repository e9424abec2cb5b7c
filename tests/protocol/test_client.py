"""A client against a broken or malicious server: one HefwError each, and never a traceback."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

import msgpack
import numpy as np
import pytest
import toy_model
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_loop import Loop

from hefw.core.backend import KeyManifest
from hefw.core.envelope import Envelope
from hefw.core.errors import EnvelopeError, HefwError, LoweringError, ParameterError, ProtocolError
from hefw.core.lower import Request
from hefw.core.params import CkksParams
from hefw.core.program import Interface
from hefw.protocol import client as client_module
from hefw.protocol import wire
from hefw.protocol.client import Client
from hefw.protocol.server import Server

#: A message's way takes so long at least, in seconds.
DELAY = 0.01


def changing(kind: str, change: Callable[[dict], dict]) -> Callable[[bytes], bytes]:
    """Replaces the fields of a server's answers of one kind."""

    def changed(frame: bytes) -> bytes:
        message = wire.decode(frame)
        return wire.encode(kind, **change(dict(message.fields))) if message.kind == kind else frame

    return changed


def manifest(change: Callable[[dict], None]) -> Callable[[bytes], bytes]:
    """Replaces fields of the interface in a manifest."""

    def changed(fields: dict) -> dict:
        interface = msgpack.unpackb(fields["interface"])
        change(interface)
        return {"interface": msgpack.packb(interface)}

    return changing("manifest", changed)


def whole(loop: Loop, backend, request: Request = toy_model.REQUEST) -> None:
    client = Client(loop, backend)
    client.open(loop.server.graph.digest, request)
    client.generate(toy_model.inputs(2))
    client.close()


# -- manifests --------------------------------------------------------------------------------------------------------


def set_params(**values: object) -> Callable[[dict], None]:
    return lambda interface: interface["params"].update(values)


def set_port(side: str, name: str, **values: object) -> Callable[[dict], None]:
    return lambda interface: interface[side][name].update(values)


def swap_primes(interface: dict) -> None:
    first, second, *rest = interface["primes"]
    interface["primes"] = [second, first, *rest]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda i: i.update(graph_digest="0" * 32), ProtocolError, "another model: graph 00000000"),
        (lambda i: i.update(backend="openfhe"), ParameterError, "not those of backend 'tenseal'"),
        (swap_primes, ParameterError, "not those of backend"),
        (lambda i: i["special_primes"].append(i["primes"][0]), HefwError, "."),
        (set_params(allow_insecure=False), ParameterError, "below 128-bit security"),
        (set_params(ring_dimension=2048), HefwError, "."),
        (set_params(scale_bits=1e9), ParameterError, "does not fit"),
        (lambda i: i.update(batch=0), ParameterError, "another batch than 0"),
        (lambda i: i.update(batch=2**40), ParameterError, "another batch than"),
        (lambda i: i.update(timesteps=[]), ParameterError, "no steps"),
        (lambda i: i.update(timesteps=[1]), ParameterError, "another number of factors"),
        (lambda i: i.update(outputs={}), ParameterError, "no outputs"),
        (lambda i: i.update(rotations={"0": 1}), LoweringError, "a rotation outside the slots"),
        (lambda i: i.update(rotations={str(10**9): 1}), LoweringError, "a rotation outside the slots"),
        (lambda i: i.update(rotations={"1": 99}), LoweringError, "a level that does not exist"),
        (lambda i: i.update(rotations={"9" * 9999: 1}), LoweringError, "cannot be read"),
        (set_port("inputs", "latent", level=99), LoweringError, "a level or scale"),
        (set_port("inputs", "latent", scale=float("nan")), LoweringError, "a level or scale"),
        (set_port("inputs", "latent", scale=1e-300), HefwError, "."),
        (set_port("inputs", "latent", positions=b""), LoweringError, "cannot be read"),
        (set_port("inputs", "latent", positions=bytes(4 * 32)), LoweringError, "a layout"),
        (set_port("inputs", "latent", ciphertexts=2**63), LoweringError, "cannot be read"),
        (set_port("inputs", "latent", batch=float("inf")), LoweringError, "cannot be read"),
        (set_port("outputs", "latent", feedback="nowhere"), ParameterError, "does not fit input 'nowhere'"),
        (set_port("outputs", "latent", feedback="label"), ParameterError, "does not fit input 'label'"),
        (set_port("outputs", "latent", factors=[1e308] * toy_model.STEPS), ProtocolError, "is no picture"),
        (set_port("outputs", "latent", factors=[float("inf")] * toy_model.STEPS), LoweringError, "not finite"),
        (lambda i: i["inputs"].update(seed=i["inputs"]["latent"]), ProtocolError, "the program takes inputs"),
        (lambda i: i["inputs"].pop("label"), ProtocolError, "the program takes inputs"),
        (lambda i: i.update(relinearisation=False), HefwError, "."),
    ],
)
def test_manifests(loop, backend, change, error, words) -> None:
    loop.change = manifest(change)
    with pytest.raises(error, match=words):
        whole(loop, backend)


def test_insecure_parameters_that_were_not_asked_for(loop, graph, backend) -> None:
    """The server answers an honest request with an insecure ring's manifest; no key is made for it."""
    loop.server.handle(loop_open(graph), lambda _: None)
    program, _ = loop.server.programs[toy_model.REQUEST]
    answer = wire.encode("manifest", interface=program.interface.pack())
    loop.change = lambda frame: answer if wire.decode(frame).kind != "progress" else frame
    with pytest.raises(ParameterError, match="the server proposes parameters below 128 bits"):
        Client(loop, backend).open(graph.digest, Request(60.0))
    assert [wire.decode(frame).kind for frame in loop.sent] == ["open"]


def loop_open(graph) -> bytes:
    fields = {"precision_db": toy_model.FORECAST_DB, "ring_dimension": toy_model.RING, "allow_insecure": True}
    fields |= {"every": 1, "bootstrap": False, "images": 1}
    return wire.encode("open", graph_digest=graph.digest, backend="tenseal", params=None, **fields)


def test_too_many_keys_are_refused_before_one_is_made(loop, graph, backend, monkeypatch) -> None:
    monkeypatch.setattr(client_module, "LARGEST_KEYS", 100 * 2**20)
    loop.change = manifest(lambda i: i.update(rotations={str(k): 1 for k in range(1, 2048)}))
    with pytest.raises(ParameterError, match=r"asks for 2048 evaluation keys of about .* GB in all; at most 0.1 GB"):
        Client(loop, backend).open(graph.digest, toy_model.REQUEST)
    assert [wire.decode(frame).kind for frame in loop.sent] == ["open"]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.integers(-2, 70)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


def mutated(data: st.DataObject, tree: object, depth: int = 0) -> object:
    """The tree with one place in it replaced, left out or doubled."""
    if not isinstance(tree, (dict, list)) or not tree or (depth and data.draw(st.integers(0, 4)) == 0):
        return data.draw(values)
    places = list(tree) if isinstance(tree, dict) else list(range(min(len(tree), 8)))
    place = data.draw(st.sampled_from(places))
    changed = dict(tree) if isinstance(tree, dict) else list(tree)
    action = data.draw(st.sampled_from(["change", "change", "change", "drop", "double"]))
    if action == "drop":
        del changed[place]
    elif action == "change":
        changed[place] = mutated(data, tree[place], depth + 1)
    elif isinstance(changed, list):
        changed.append(tree[place])
    else:
        changed[f"{place}2"] = tree[place]
    return changed


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_manifest_is_read_or_refused(recorded, data) -> None:
    (frame,) = (f for f in recorded.received if wire.decode(f).kind == "manifest")
    interface = msgpack.unpackb(wire.decode(frame).fields["interface"])
    for _ in range(data.draw(st.integers(1, 2))):
        interface = mutated(data, interface)
    with contextlib.suppress(HefwError):
        Interface.unpack(msgpack.packb(interface))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_manifest_through_a_session(graph, backend, programs, data) -> None:
    """What is read is then used: keys, encryption, decryption."""

    def change(fields: dict) -> dict:
        interface = mutated(data, msgpack.unpackb(fields["interface"]))
        return {"interface": msgpack.packb(interface)}

    loop = Loop(Server(graph, backend, programs), changing("manifest", change))
    with contextlib.suppress(HefwError):
        whole(loop, backend)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_for_a_manifest(data) -> None:
    with pytest.raises(HefwError):
        Interface.unpack(data)


# -- results ----------------------------------------------------------------------------------------------------------


def results(change: Callable[[list[bytes]], object]) -> Callable[[bytes], bytes]:
    return changing("result", lambda fields: {**fields, "outputs": {"latent": change(fields["outputs"]["latent"])}})


def repacked(**fields: object) -> Callable[[bytes], bytes]:
    return results(lambda items: [Envelope(**{**vars(Envelope.unpack(item)), **fields}).pack() for item in items])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (results(lambda items: []), ProtocolError, "output 'latent' has 0 ciphertexts; 1 are expected"),
        (results(lambda items: items * 2), ProtocolError, "output 'latent' has 2 ciphertexts; 1 are expected"),
        (results(lambda items: None), EnvelopeError, "'outputs' of a 'result' message"),
        (results(lambda items: [3]), EnvelopeError, "'outputs' of a 'result' message"),
        (results(lambda items: [items[0][:-1]]), EnvelopeError, "truncated"),
        (results(lambda items: [b"NaN" * 1000]), EnvelopeError, "not a hefw envelope"),
        (changing("result", lambda fields: {**fields, "outputs": {}}), ProtocolError, "has 0 ciphertexts"),
        (changing("result", lambda fields: {"seconds": 1.0}), EnvelopeError, "field 'outputs'"),
        (changing("result", lambda fields: {}), EnvelopeError, "field 'seconds'"),
        (changing("result", lambda f: {**f, "seconds": 1}), EnvelopeError, "field 'seconds' .* must be float"),
        (changing("result", lambda f: {**f, "seconds": -1.0}), ProtocolError, "that it worked -1.0 s on a message"),
        (changing("result", lambda f: {**f, "seconds": float("nan")}), ProtocolError, "that it worked nan s"),
        (changing("result", lambda f: {**f, "seconds": float("inf")}), ProtocolError, "that it worked inf s"),
        (repacked(key_id=b"x" * 16), EnvelopeError, "made with another key"),
        (repacked(params_digest=b"x" * 16), EnvelopeError, "made for other parameters"),
        (repacked(backend="simulator"), EnvelopeError, "made by backend 'simulator'"),
        (repacked(kind="rotation-key"), EnvelopeError, "a ciphertext was expected"),
        (repacked(payload=b"\xff" * 5000), EnvelopeError, "not a padded ciphertext"),
        (repacked(payload=bytes(5000)), EnvelopeError, "SEAL cannot read the ciphertext"),
        (repacked(level=40), ProtocolError, "is at level 40"),
        (repacked(scale=1e-300), ProtocolError, "the manifest announced"),
        (repacked(scale=1.0), ProtocolError, "the manifest announced"),
        (repacked(scale=2.0**900), ProtocolError, "the manifest announced"),
    ],
)
def test_results(loop, backend, change, error, words) -> None:
    loop.change = change
    with pytest.raises(error, match=words):
        whole(loop, backend)


def test_a_result_of_another_secret_key(loop, graph, backend) -> None:
    """With this key's id on it: nothing tells but the noise that it decrypts to, as large as the modulus left."""
    client = Client(loop, backend)
    roomy = CkksParams(toy_model.RING, (60,) * 5, (60,), 30.0, allow_insecure=True)
    interface = client.open(graph.digest, replace(toy_model.REQUEST, ring_dimension=None, params=roomy))
    port = interface.outputs["latent"]
    stranger = backend.keygen(interface.params, KeyManifest())
    stranger.key_id = client._keys.key_id
    garbage = stranger.encrypt_bytes(np.zeros(interface.params.slots), port.level, port.scale)
    loop.change = results(lambda items: [garbage])
    with pytest.raises(ProtocolError, match="output 'latent' of step 0 is no picture"):
        client.generate(toy_model.inputs(2))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60) | st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3))
def test_any_result(graph, backend, programs, flips) -> None:
    """The HE library's parser and decryption, on broken payloads under right digests."""

    def change(items: list[bytes]) -> list[bytes]:
        envelope = Envelope.unpack(items[0])
        payload = bytearray(envelope.payload)
        for place, byte in flips:
            payload[place % len(payload)] = byte
        return [Envelope(**{**vars(envelope), "payload": bytes(payload)}).pack()]

    loop = Loop(Server(graph, backend, programs), results(change))
    with contextlib.suppress(HefwError):
        whole(loop, backend)


# -- other answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [b"", b"x", b"HEFM", wire.encode("open"), wire.encode("manifest"), b"HTTP/1.1 200"])
def test_answers_that_are_none(loop, backend, frame) -> None:
    loop.change = lambda _: frame
    with pytest.raises(HefwError):
        whole(loop, backend)


@pytest.mark.parametrize(
    "fields",
    [
        {"counts": {"rotate": -1}},
        {"counts": {"rotate": "many"}},
        {"counts": {"rotate": True}},
        {"counts": None},
        {"encoded_weights": -5},
        {"encoded_weights": 3.5},
        {"peak_rss_bytes": None},
        {"peak_rss_bytes": -1},
        {"threads": 0},
        {"threads": None},
        {"encode_seconds": float("nan")},
        {"encode_seconds": float("inf")},
        {"encode_seconds": -1.0},
        {"encode_seconds": "1"},
    ],
)
def test_figures_that_are_none(loop, backend, fields) -> None:
    loop.change = changing("done", lambda told: {**told, **fields} if "counts" in told else told)
    with pytest.raises(HefwError):
        whole(loop, backend)


def test_a_server_that_received_something_else(loop, backend) -> None:
    loop.change = changing(
        "done", lambda told: {**told, "received": told["received"][:-1]} if "counts" in told else told
    )
    with pytest.raises(ProtocolError, match="the server's list of what it received differs"):
        whole(loop, backend)


@pytest.mark.parametrize(("told", "evaluates", "transfers"), [(0.0, False, True), (1e6, True, False)])
def test_a_round_trip_is_evaluation_and_transfer(loop, graph, backend, told, evaluates, transfers) -> None:
    """Evaluation is what the server says, and the rest is transfer; none is left where its clock runs fast."""

    def changed(frame: bytes) -> bytes:
        message = wire.decode(frame)
        fields = {**message.fields, "seconds": told}
        return wire.encode(message.kind, **fields) if "seconds" in message.fields else frame

    loop.change = changed
    client = Client(loop, backend)
    client.open(graph.digest, toy_model.REQUEST)
    before = dict(client.figures.seconds)
    client.generate(toy_model.inputs(2))
    after = client.figures.seconds
    assert (after["evaluate"] > before["evaluate"]) is evaluates
    assert (after["transfer"] > before["transfer"]) is transfers


def test_what_a_slow_way_takes_is_transfer(loop, graph, backend) -> None:
    """Every frame to the server is held up."""

    class Slow(Loop):
        def send(self, frame: bytes) -> None:
            time.sleep(DELAY)
            super().send(frame)

    client = Client(Slow(loop.server), backend)
    interface = client.open(graph.digest, toy_model.REQUEST)
    before = client.figures.seconds["transfer"]
    assert before >= DELAY * len(interface.keys.names())
    client.generate(toy_model.inputs(2))
    messages = 1 + interface.messages  # one of them with what is sent once
    assert client.figures.seconds["transfer"] - before >= DELAY * messages
    client.close()
    assert client.figures.seconds["evaluate"] >= sum(item.seconds for item in client.figures.trace) > 0


def test_what_a_server_tells_reaches_no_terminal_as_control(loop, backend) -> None:
    told = []
    loop.change = changing("progress", lambda p: {**p, "stage": "\x1b[2J" + p["stage"], "detail": "a\r\n\x07" * 100})
    client = Client(loop, backend, told.append)
    client.open(loop.server.graph.digest, toy_model.REQUEST)
    client.generate(toy_model.inputs(2))
    assert all(p.stage.isprintable() and p.detail.isprintable() for p in told)
    assert max(len(p.detail) for p in told) < 150


@pytest.mark.parametrize("fields", [{"stage": 3}, {"done": "1"}, {"total": None}, {"detail": b"x"}])
def test_progress_that_is_none(loop, backend, fields) -> None:
    loop.change = changing("progress", lambda told: {**told, **fields})
    with pytest.raises(EnvelopeError, match="field"):
        whole(loop, backend)


def test_parameters_of_the_key_holders_choice(loop, graph, backend) -> None:
    """A chain that the user fixes is the one that the manifest must have."""
    params = CkksParams(toy_model.RING, (60, 60, 60, 60), (60,), 40.0, allow_insecure=True)
    found = Client(loop, backend).open(graph.digest, Request(60.0, toy_model.RING, params, True))
    assert found.params.params.modulus_bits == params.modulus_bits
