"""Frames: what was encoded comes back, and nothing else gets through."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
import zlib

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hefw.core import errors
from hefw.core.errors import EnvelopeError, HefwError, LevelError, ProtocolError
from hefw.protocol import wire

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=100),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
names = st.text(min_size=1, max_size=10).filter(lambda name: name != "kind")
KINDS = list(wire.KINDS)
FRAME = wire.encode("step", step=3, inputs={"latent": [b"ciphertext"]})


def framed(
    payload: bytes, magic: bytes = b"HEFM", version: int = wire.VERSION, kind: int = 0, length: int | None = None
) -> bytes:
    announced = len(payload) if length is None else length
    return struct.pack(">4sHHQI", magic, version, kind, announced, zlib.crc32(payload)) + payload


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(KINDS), st.dictionaries(names, values, max_size=5))
def test_roundtrip(kind, fields) -> None:
    message = wire.decode(wire.encode(kind, **fields), kind)
    assert message.kind == kind
    assert message.fields == fields


@pytest.mark.parametrize("position", range(len(FRAME)))
def test_every_flipped_byte_is_refused(position) -> None:
    for mask in (1, 0x80, 0xFF):
        changed = bytearray(FRAME)
        changed[position] ^= mask
        with pytest.raises(HefwError):
            wire.decode(bytes(changed), "step")


@pytest.mark.parametrize("length", range(len(FRAME)))
def test_truncated_is_refused(length) -> None:
    with pytest.raises(EnvelopeError, match="truncated"):
        wire.decode(FRAME[:length])


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (FRAME + b"x", "too long"),
        (framed(b"\x80", magic=b"HEFW"), "not a hefw message"),
        (framed(b"\x80", version=wire.VERSION - 1), f"version {wire.VERSION - 1} is not supported"),
        (framed(b"\x80", kind=len(KINDS)), f"unknown kind of message {len(KINDS)}"),
        (framed(b"\x90"), "must be a map"),
        (framed(b""), "cannot be read"),
        (framed(b"\xc1"), "cannot be read"),
        (framed(b"\x80\x80"), "cannot be read"),
        (framed(b"\x81\x01\x02"), "cannot be read"),  # a key that is no text
        (framed(b"\x81\xa1\xff\x02"), "cannot be read"),  # text that is not UTF-8
        (framed(b"\x91" * 5000), "cannot be read"),
        (framed(msgpack.packb({"x": [0] * 100_001})), "cannot be read"),
        (framed(b"\x81\xa1x\xdd\xff\xff\xff\xff"), "cannot be read"),  # a list of 2^32 - 1 elements is announced
    ],
)
def test_malformed_is_refused(frame, message) -> None:
    with pytest.raises(EnvelopeError, match=message):
        wire.decode(frame)


@pytest.mark.parametrize("kind", KINDS)
def test_oversized_is_refused_from_the_header(kind) -> None:
    header = framed(b"", kind=KINDS.index(kind), length=wire.KINDS[kind] + 1)
    tracemalloc.start()
    with pytest.raises(EnvelopeError, match=f"oversized: a '{kind}' message"):
        wire.payload_length(header)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_oversized_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="too large"):
        wire.encode("open", graph_digest=b"x" * wire.KINDS["open"])


def test_kind_out_of_order() -> None:
    with pytest.raises(ProtocolError, match="a 'step' message is out of order; expected: open, key"):
        wire.decode(FRAME, "open", "key")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64), st.integers(0, len(KINDS)), st.booleans())
def test_any_bytes(data, kind, with_header) -> None:
    with contextlib.suppress(HefwError):
        wire.decode(framed(data, kind=kind) if with_header else data)


@pytest.mark.parametrize(
    ("value", "kind"), [("3", int), (True, int), (None, int), (3, str), (b"x", str), ("x", bytes), ([], dict)]
)
def test_field_of_wrong_type(value, kind) -> None:
    message = wire.decode(wire.encode("step", x=value))
    with pytest.raises(EnvelopeError, match=f"field 'x' of a 'step' message must be {kind.__name__}"):
        wire.field(message, "x", kind)


def test_missing_field() -> None:
    with pytest.raises(EnvelopeError, match="must be int or float, it is NoneType"):
        wire.field(wire.decode(FRAME), "absent", (int, float))


@pytest.mark.parametrize("value", [3, [b"x"], {"a": b"x"}, {"a": ["x"]}, {"a": [b"x", None]}])
def test_blobs_of_wrong_type(value) -> None:
    with pytest.raises(EnvelopeError, match="inputs"):
        wire.blobs(wire.decode(wire.encode("step", inputs=value)), "inputs")


# -- errors of the other side ------------------------------------------------------------------------------------------


CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, HefwError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_keeps_its_class_and_line(kind) -> None:
    """What the user asked for is refused in the same words by either party; else the server is named."""
    message = wire.decode(wire.error(kind("level 3 is too high")))
    start = "" if kind in wire.ASKED else "the server refused: "
    with pytest.raises(kind, match=rf"^{start}level 3 is too high$") as caught:
        wire.raise_error(message)
    assert type(caught.value) is kind


@pytest.mark.parametrize("name", ["KeyboardInterrupt", "SystemExit", "difflib", "Iterable", "suggest", "", 3, None])
def test_an_error_of_no_known_class_is_a_protocol_error(name) -> None:
    with pytest.raises(ProtocolError, match="the server refused: no"):
        wire.raise_error(wire.decode(wire.encode("error", error=name, message="no")))


@pytest.mark.parametrize("text", ["Traceback:\n  File\x1b[2J\r\n", "x" * 10**5, {"a": ["\n"]}, None, b"\n\x07"])
def test_an_error_is_one_short_printable_line(text) -> None:
    with pytest.raises(LevelError) as caught:
        wire.raise_error(wire.decode(wire.encode("error", error="LevelError", message=text)))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2100


def test_an_error_carries_no_traceback() -> None:
    try:
        int("secret path")
    except ValueError as cause:
        fields = wire.decode(wire.error(ProtocolError("one line").with_traceback(cause.__traceback__))).fields
    assert fields == {"error": "ProtocolError", "message": "one line"}
