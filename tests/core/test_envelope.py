"""The header of all outside bytes: what was packed comes back, and nothing else gets through."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hefw.core.envelope import HEADER_SIZE, KINDS, Envelope
from hefw.core.errors import EnvelopeError

GOOD = Envelope("rotation-key", "tenseal", b"p" * 16, b"k" * 16, 3, 2.0**40, b"payload", 17)
DATA = GOOD.pack()

envelopes = st.builds(
    Envelope,
    st.sampled_from(KINDS),
    st.text("abcdefghijklmnop-", min_size=1, max_size=16),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 60),
    st.floats(1e-3, 1e300),
    st.binary(max_size=200),
    st.integers(0, 2**31 - 1),
)


@settings(max_examples=100, deadline=None)
@given(envelopes)
def test_roundtrip(envelope) -> None:
    data = envelope.pack()
    assert len(data) == HEADER_SIZE + len(envelope.payload)
    assert Envelope.unpack(data) == envelope


@pytest.mark.parametrize("position", range(len(DATA)))
def test_every_flipped_byte_is_noticed(position) -> None:
    for mask in (1, 0x80, 0xFF):
        changed = bytearray(DATA)
        changed[position] ^= mask
        with pytest.raises(EnvelopeError):
            Envelope.unpack(bytes(changed))


@pytest.mark.parametrize("length", [0, 1, HEADER_SIZE - 1, HEADER_SIZE, len(DATA) - 1])
def test_truncated_bytes_are_refused(length) -> None:
    with pytest.raises(EnvelopeError, match="truncated"):
        Envelope.unpack(DATA[:length])


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(EnvelopeError, match="too long"):
        Envelope.unpack(DATA + b"x")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data) -> None:
    with pytest.raises(EnvelopeError):
        Envelope.unpack(data)
    with pytest.raises(EnvelopeError):
        Envelope.unpack(DATA[:6] + data)


def test_an_oversized_announcement_is_refused_before_anything_else() -> None:
    announced = bytearray(DATA)
    announced[HEADER_SIZE - 40 : HEADER_SIZE - 32] = struct.pack(">Q", 2**63)
    with pytest.raises(EnvelopeError, match=f"oversized.*{2**63}"):
        Envelope.unpack(bytes(announced))
    with pytest.raises(EnvelopeError, match="oversized: a payload of 7 bytes is announced, at most 6"):
        Envelope.unpack(DATA, max_payload=6)


def test_other_versions_and_other_files_are_named() -> None:
    with pytest.raises(EnvelopeError, match="not a hefw envelope"):
        Envelope.unpack(b"PK\x03\x04" + DATA[4:])
    with pytest.raises(EnvelopeError, match="version 2 is not supported; this hefw reads version 1"):
        Envelope.unpack(DATA[:4] + b"\0\2" + DATA[6:])


@pytest.mark.parametrize(("level", "scale"), [(-1, 1.0), (0, 0.0), (0, -2.0), (0, float("nan")), (0, float("inf"))])
def test_levels_and_scales_that_do_not_exist_are_refused(level, scale) -> None:
    with pytest.raises(EnvelopeError, match=r"level .* and scale"):
        Envelope.unpack(replace(GOOD, level=level, scale=scale).pack())


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "love-letter"},
        {"backend": "a-name-of-more-than-16"},
        {"backend": "naïve"},
        {"params_digest": b"short"},
        {"key_id": b""},
        {"level": 2**40},
        {"item": 2**40},
    ],
)
def test_what_cannot_be_packed_is_refused(changes) -> None:
    with pytest.raises(EnvelopeError, match="cannot be made"):
        replace(GOOD, **changes).pack()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "ciphertext"}, "a ciphertext was expected, a rotation-key was sent"),
        ({"backend": "openfhe"}, "made by backend 'tenseal'"),
        ({"params_digest": b"q" * 16}, "made for other parameters"),
        ({"key_id": b"x" * 16}, "made with another key"),
    ],
)
def test_an_envelope_for_something_else_is_refused(changes, message) -> None:
    fits = {"kind": "rotation-key", "backend": "tenseal", "params_digest": b"p" * 16, "key_id": b"k" * 16}
    assert GOOD.expect(**fits) is GOOD
    assert GOOD.expect(**{**fits, "key_id": None}) is GOOD
    with pytest.raises(EnvelopeError, match=message):
        GOOD.expect(**{**fits, **changes})
