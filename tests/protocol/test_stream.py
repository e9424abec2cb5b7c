"""Frames over a socket: whole ones or a clear error, and memory only for what has come."""

from __future__ import annotations

import socket
import struct
import threading
import tracemalloc

import pytest

from hefw.core.errors import EnvelopeError, ProtocolError
from hefw.protocol import wire
from hefw.protocol.serve import serve
from hefw.protocol.stream import Stream


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    yield Stream(ours), theirs
    ours.close()
    theirs.close()


def header(kind: str, length: int) -> bytes:
    return struct.pack(">4sHHQI", b"HEFM", wire.VERSION, list(wire.KINDS).index(kind), length, 0)


def test_frames_arrive_one_by_one(pair) -> None:
    stream, theirs = pair
    frames = [wire.encode("key", name="rotation/1", blob=bytes(3_000_000)), wire.encode("close"), wire.encode("done")]
    sender = threading.Thread(target=lambda: [theirs.sendall(b"".join(frames)), theirs.shutdown(socket.SHUT_WR)])
    sender.start()
    assert [stream.receive() for _ in range(4)] == [*frames, None]
    sender.join()


@pytest.mark.parametrize("length", [1, wire.HEADER_SIZE, wire.HEADER_SIZE + 1, -1])
def test_an_end_within_a_frame(pair, length) -> None:
    stream, theirs = pair
    theirs.sendall(wire.encode("begin", inputs={})[:length])
    theirs.close()
    with pytest.raises(ProtocolError, match="in the middle of a message"):
        stream.receive()


def test_sending_to_nobody(pair) -> None:
    stream, theirs = pair
    theirs.close()
    with pytest.raises(ProtocolError, match="the other side is gone"):
        stream.send(wire.encode("close"))


def test_announced_bytes_take_no_memory(pair) -> None:
    """A gigabyte is announced and never comes: within the bound of its kind, and beyond it."""
    stream, theirs = pair
    tracemalloc.start()
    theirs.sendall(header("step", 2**40))
    with pytest.raises(EnvelopeError, match="oversized"):
        stream.receive()
    theirs.sendall(header("key", wire.KINDS["key"]) + b"a little")
    theirs.close()
    with pytest.raises(ProtocolError, match="in the middle of a message"):
        stream.receive()
    assert tracemalloc.get_traced_memory()[1] < 10 * wire.MEBIBYTE
    tracemalloc.stop()


def test_a_server_answers_garbage_once_and_hangs_up(pair, loop) -> None:
    stream, theirs = pair
    serving = threading.Thread(target=lambda: [serve(loop.server, Stream(theirs)), theirs.close()])
    serving.start()
    stream.send(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n")
    answer = wire.decode(stream.receive(), "error")
    assert "not a hefw message" in answer.fields["message"]
    serving.join()
    # The kernel may tell of the unread rest of the garbage as a reset.
    try:
        assert stream.receive() is None
    except ProtocolError as error:
        assert "gone" in str(error)  # noqa: PT017


def test_a_server_survives_a_malformed_message(pair, loop) -> None:
    """The frame was whole: the stream is still in step."""
    stream, theirs = pair
    serving = threading.Thread(target=serve, args=(loop.server, Stream(theirs)))
    serving.start()
    broken = bytearray(wire.encode("close", x=1))
    broken[-1] ^= 1
    for _ in range(3):
        stream.send(bytes(broken))
        assert "checksum" in wire.decode(stream.receive(), "error").fields["message"]
    stream.close()
    serving.join()
