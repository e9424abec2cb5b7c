"""The whole protocol on a small insecure ring: the server's blind result is what the graph gives in the clear."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import toy_model
from protocol_loop import Loop

from hefw.core.errors import CapabilityError, HefwError, ProtocolError
from hefw.core.lower import Request
from hefw.protocol import wire
from hefw.protocol.client import Client
from hefw.protocol.process import ServerProcess
from hefw.protocol.server import Server


def precise(found, graph, inputs) -> None:
    assert toy_model.psnr(found["latent"], toy_model.expected(graph, inputs)) >= toy_model.PRECISION_DB


def test_in_one_process(loop, graph, backend) -> None:
    client = Client(loop, backend)
    interface = client.open(graph.digest, toy_model.REQUEST)
    assert (interface.batch, interface.steps) == (toy_model.BATCH, toy_model.STEPS)
    assert interface.params.params.insecure
    for images in (1, 3, interface.batch):
        inputs = toy_model.inputs(images, seed=images)
        watched = []
        found = client.generate(inputs, lambda step, outputs, seen=watched: seen.append((step, outputs["latent"])))
        precise(found, graph, inputs)
        assert [step for step, _ in watched] == list(range(toy_model.STEPS))
        assert np.array_equal(watched[-1][1], found["latent"])
    client.close()


def test_in_a_process_of_its_own(model_file, graph, backend) -> None:
    inputs = toy_model.inputs(5)
    with ServerProcess(model_file, backend.name) as server:
        client = Client(server, backend)
        client.open(graph.digest, toy_model.REQUEST)
        precise(client.generate(inputs), graph, inputs)
        client.close()
    assert client.figures.server_peak_rss > 10_000_000


def test_every_step_is_right(loop, graph, backend) -> None:
    client = Client(loop, backend)
    client.open(graph.digest, toy_model.REQUEST)
    inputs = toy_model.inputs(4)
    states = {}
    client.generate(inputs, lambda step, outputs: states.update({step: outputs["latent"]}))
    output = graph.outputs["latent"]
    for step, values in enumerate(graph.trajectory(inputs)):
        assert toy_model.psnr(states[step], values[output.node] * output.factors[step]) >= toy_model.PRECISION_DB


def test_figures_and_ledger_are_those_of_the_frames(graph, backend) -> None:
    loop = Loop(Server(graph, backend))  # of its own: weights that another session has encoded are not encoded again
    client = Client(loop, backend)
    client.open(graph.digest, toy_model.REQUEST)
    client.generate(toy_model.inputs(3))
    client.close()
    kinds = Counter(wire.decode(frame).kind for frame in loop.sent)
    program, _ = loop.server.programs[toy_model.REQUEST]
    keys = len(program.interface.keys.names())
    assert kinds == {"open": 1, "prepare": 1, "key": keys, "begin": 1, "step": toy_model.STEPS, "close": 1}
    blobs = [len(wire.decode(f).fields["blob"]) for f in loop.sent if wire.decode(f).kind == "key"]
    assert client.figures.evaluation_keys == sum(blobs)
    assert client.figures.upload_per_step == max(len(f) for f in loop.sent if wire.decode(f).kind == "step")
    assert client.figures.encoded_weights == program.weight_bytes
    assert client.ledger.plaintext_fraction("server") == 0
    of_server = [(e.item, e.step, e.form, e.entries) for e in client.ledger.of("server") if e.form != "public"]
    steps = [("latent", step, "ciphertext", 3 * toy_model.PIXELS) for step in range(toy_model.STEPS)]
    assert of_server == [("label", None, "ciphertext", 3 * toy_model.LABELS), *steps]
    wanted = sum((program.counts(step) for step in range(toy_model.STEPS)), program.prelude_counts())
    counts = dict(client.figures.counts)
    assert counts.pop("encode") == wanted.pop("encode") + program.weight_count
    assert counts == dict(wanted)


def test_stages_of_progress(loop, graph, backend) -> None:
    told = []
    client = Client(loop, backend, told.append)
    client.open(graph.digest, toy_model.REQUEST)
    client.generate(toy_model.inputs(3), units=(1, 2))
    stages = list(dict.fromkeys(p.stage for p in told))
    assert stages == ["plan", "keygen", "encode", "label", "evaluate"]
    assert all(0 <= p.done <= p.total for p in told)
    evaluate = [p for p in told if p.stage == "evaluate"]
    assert [p.done for p in evaluate] == sorted(p.done for p in evaluate)
    assert evaluate[-1].done == evaluate[-1].total
    assert evaluate[-1].detail == "message 3 of 3, region update, batch 2 of 2"


def test_one_server_serves_a_second_key_holder(loop, graph, backend) -> None:
    for seed in (1, 2):
        client = Client(loop, backend)
        client.open(graph.digest, toy_model.REQUEST)
        inputs = toy_model.inputs(3, seed)
        precise(client.generate(inputs), graph, inputs)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda given: given | {"latent": given["latent"][:, :-1]}, ProtocolError, "the program takes inputs"),
        (lambda given: {"latent": given["latent"]}, ProtocolError, "the program takes inputs"),
        (lambda given: given | {"more": given["latent"]}, ProtocolError, "the program takes inputs"),
        (lambda given: given | {"label": given["label"][:1]}, ProtocolError, "one number of images, 1 to 64"),
        (lambda given: {k: np.repeat(v, 40, axis=0) for k, v in given.items()}, ProtocolError, "1 to 64"),
        (lambda given: {k: v[:0] for k, v in given.items()}, ProtocolError, "1 to 64"),
        (lambda given: given | {"latent": given["latent"] * np.nan}, HefwError, "not finite"),
        (lambda given: given | {"latent": given["latent"] * 1e80}, HefwError, "exceed the modulus"),
    ],
)
def test_bad_inputs_of_the_key_holder(loop, graph, backend, change, error, message) -> None:
    client = Client(loop, backend)
    client.open(graph.digest, toy_model.REQUEST)
    with pytest.raises(error, match=message):
        client.generate(change(toy_model.inputs(2)))
    client.generate(toy_model.inputs(2))


def test_not_open(loop, backend) -> None:
    with pytest.raises(ProtocolError, match="not open"):
        Client(loop, backend).generate(toy_model.inputs(2))


def test_another_model(loop, backend) -> None:
    with pytest.raises(ProtocolError, match="another model: the key holder expects graph"):
        Client(loop, backend).open(toy_model.graph(seed=1).digest, toy_model.REQUEST)


def test_another_backend(loop, graph) -> None:
    with pytest.raises(CapabilityError, match="evaluates with backend 'tenseal', not 'simulator'"):
        Client(loop, toy_model.backend("simulator")).open(graph.digest, toy_model.REQUEST)


def test_insecure_parameters_must_be_allowed(loop, graph, backend) -> None:
    with pytest.raises(HefwError):
        Client(loop, backend).open(graph.digest, Request(toy_model.PRECISION_DB, toy_model.RING, None, False))
