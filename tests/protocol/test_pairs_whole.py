"""Two images a slot between both parties: requests, histories, strategies that show entries, and servers that lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgpack
import numpy as np
import pytest
import toy_model
from protocol_loop import Loop

from hefw.core.errors import CapabilityError, HefwError, ProtocolError
from hefw.core.graph import Affine, Graph, Input, LinearTerm, features
from hefw.core.program import Interface
from hefw.core.sparse import SparseMatrix
from hefw.protocol import wire
from hefw.protocol.client import Client
from hefw.protocol.server import Server

FITTING = 2 * toy_model.BATCH
REQUEST = replace(toy_model.REQUEST, images=FITTING, pairs=True)


def manifest(change: Callable[[dict], None]) -> Callable[[bytes], bytes]:
    """Replaces fields of the interface in a manifest."""

    def changed(frame: bytes) -> bytes:
        message = wire.decode(frame)
        if message.kind != "manifest":
            return frame
        interface = msgpack.unpackb(message.fields["interface"])
        change(interface)
        return wire.encode("manifest", interface=msgpack.packb(interface))

    return changed


def drawn(graph: Graph, name: str, inputs: dict[str, np.ndarray], select=None) -> tuple[np.ndarray, Interface]:
    backend = toy_model.backend(name)
    client = Client(Loop(Server(graph, backend)), backend)
    interface = client.open(graph.digest, REQUEST)
    found = client.generate(inputs, select=select)["latent"]
    client.close()  # which compares what either party says that was sent
    return found, interface


@pytest.mark.parametrize("name", ["tenseal", "simulator"])
def test_a_request_holds_twice_the_images(graph, name) -> None:
    inputs = toy_model.inputs(FITTING)
    found, interface = drawn(graph, name, inputs)
    assert interface.images == 2 * interface.batch == FITTING
    wanted = toy_model.expected(graph, inputs)
    assert min(toy_model.psnr(a, b) for a, b in zip(found, wanted, strict=True)) > toy_model.PRECISION_DB


@pytest.mark.parametrize("name", ["tenseal", "simulator"])
def test_shown_entries_change_no_picture(graph, name) -> None:
    inputs = toy_model.inputs(5)
    found, _ = drawn(graph, name, inputs, lambda x: np.broadcast_to(np.arange(x.shape[1]) % 2 == 0, x.shape))
    assert toy_model.psnr(found, toy_model.expected(graph, inputs)) > toy_model.PRECISION_DB


def test_a_history_moves_on_in_pairs() -> None:
    """The update also reads the latent of the step before, which is nothing at first."""
    plain = toy_model.graph()
    update = plain.nodes["update"]
    assert isinstance(update, Affine)
    before = Input("before", update.shape, previous="latent")
    term = LinearTerm("before", SparseMatrix.diagonal(np.full(features(update), 0.5)))
    nodes = {"before": before, **plain.nodes, "update": replace(update, terms=(*update.terms, term))}
    calibration = {**plain.calibration, "before": np.zeros((8, toy_model.PIXELS))}
    graph = replace(plain, nodes=nodes, calibration=calibration)
    inputs = {**toy_model.inputs(7), "before": np.zeros((7, toy_model.PIXELS))}
    found, _ = drawn(graph, "simulator", inputs)
    assert toy_model.psnr(found, toy_model.expected(graph, inputs)) > toy_model.PRECISION_DB
    assert toy_model.psnr(found, toy_model.expected(plain, toy_model.inputs(7))) < 30


def test_more_images_than_a_request_holds_are_refused(graph) -> None:
    with pytest.raises(ProtocolError, match=f"one number of images, 1 to {FITTING}"):
        drawn(graph, "simulator", toy_model.inputs(FITTING + 1))


@pytest.mark.parametrize(
    ("asked", "change", "message"),
    [
        (True, {"pairs": False}, "does not have two images a slot"),
        (False, {"pairs": True}, "does not have one image a slot"),
        (True, {"alternating": False}, "i in the slots otherwise than backend 'simulator'"),
    ],
)
def test_a_manifest_of_another_packing_is_refused(graph, asked, change, message) -> None:
    backend = toy_model.backend("simulator")
    loop = Loop(Server(graph, backend), manifest(lambda interface: interface.update(change)))
    with pytest.raises(ProtocolError, match=message):
        Client(loop, backend).open(graph.digest, replace(REQUEST, pairs=asked))


def test_a_server_refuses_what_it_cannot_do(graph) -> None:
    backend = toy_model.backend("simulator")
    backend.capabilities = replace(backend.capabilities, conjugation=False)
    with pytest.raises(CapabilityError, match="has no conjugation"):
        Client(Loop(Server(graph, backend)), backend).open(graph.digest, REQUEST)


def test_a_request_that_means_nothing_is_refused(graph) -> None:
    backend = toy_model.backend("simulator")
    with pytest.raises(HefwError, match="pairs 2 is not allowed; choose true, false or none"):
        Client(Loop(Server(graph, backend)), backend).open(graph.digest, replace(REQUEST, pairs=2))  # type: ignore[arg-type]
