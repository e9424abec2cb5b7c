"""Messages between the two parties: versioned, bounded, checked before they are parsed.

A frame is a header (magic, version, kind, length, CRC-32 of the payload) and a msgpack map. Ciphertexts and keys inside
are envelopes with headers of their own. The CRC finds accidents; it does not authenticate: run the connection over TLS.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgpack

from hefw.core.errors import (
    CapabilityError,
    ConfigError,
    EnvelopeError,
    HefwError,
    LoweringError,
    ParameterError,
    PluginError,
    ProtocolError,
    SchedulerError,
    error_class,
    line,
)

MAGIC = b"HEFM"
VERSION = 4
_HEADER = struct.Struct(">4sHHQI")
HEADER_SIZE = _HEADER.size

MEBIBYTE = 2**20
#: Kinds of messages and the largest payload of each, in bytes.
KINDS: dict[str, int] = {
    "open": MEBIBYTE,  # key holder: how to lower the model
    "manifest": 64 * MEBIBYTE,  # server: the program's interface
    "prepare": MEBIBYTE,  # key holder: encode weights now
    "key": 1024 * MEBIBYTE,  # key holder: one evaluation key
    "begin": 1024 * MEBIBYTE,  # key holder: inputs that are sent once a request
    "step": 1024 * MEBIBYTE,  # key holder: inputs of one step
    "result": 1024 * MEBIBYTE,  # server: outputs of one step
    "close": MEBIBYTE,  # key holder: end of the session
    "done": 4 * MEBIBYTE,  # server: understood, with figures
    "progress": MEBIBYTE,  # server: sent before an answer
    "error": MEBIBYTE,  # server: one line
    "update": 1024 * MEBIBYTE,  # key holder: tensors of one update, in protocol update-only
    "updated": 1024 * MEBIBYTE,  # server: their sum
}
#: Errors in what a user asked for, whichever party finds out.
ASKED = (CapabilityError, ConfigError, LoweringError, ParameterError, PluginError, SchedulerError)
_NUMBERS = {kind: number for number, kind in enumerate(KINDS)}


@dataclass(frozen=True)
class Message:
    """A kind and its fields."""

    kind: str
    fields: Mapping[str, Any]


def encode(kind: str, **fields: Any) -> bytes:
    """The frame of a message."""
    payload: bytes = msgpack.packb(fields, use_bin_type=True)
    if len(payload) > KINDS[kind]:
        raise ProtocolError(f"a {kind!r} message of {len(payload)} bytes is too large; at most {KINDS[kind]}")
    return _HEADER.pack(MAGIC, VERSION, _NUMBERS[kind], len(payload), zlib.crc32(payload)) + payload


def payload_length(header: bytes) -> int:
    """How many bytes follow a header; EnvelopeError if it is not one, or announces more than its kind may have."""
    if len(header) < HEADER_SIZE:
        raise EnvelopeError(f"truncated message: {len(header)} bytes, a header alone has {HEADER_SIZE}")
    magic, version, number, length, _ = _HEADER.unpack_from(header)
    if magic != MAGIC:
        raise EnvelopeError(f"not a hefw message: it starts with {magic!r}, not {MAGIC!r}")
    if version != VERSION:
        raise EnvelopeError(f"message version {version} is not supported; this hefw speaks version {VERSION}")
    if number >= len(KINDS):
        raise EnvelopeError(f"unknown kind of message {number}; known: 0 to {len(KINDS) - 1}")
    kind = list(KINDS)[number]
    if length > KINDS[kind]:
        raise EnvelopeError(
            f"oversized: a {kind!r} message announces {length} bytes, at most {KINDS[kind]} are allowed"
        )
    return int(length)


def decode(frame: bytes, *allowed: str) -> Message:
    """The message of a frame. EnvelopeError if it is malformed; ProtocolError if its kind is not one of `allowed`."""
    length = payload_length(frame)
    payload = memoryview(frame)[HEADER_SIZE:]
    if len(payload) != length:
        raise EnvelopeError(f"truncated or too long: the header announces {length} bytes, {len(payload)} are there")
    _, _, number, _, checksum = _HEADER.unpack_from(frame)
    if zlib.crc32(payload) != checksum:
        raise EnvelopeError("changed on the way: the checksum of the message does not match")
    kind = list(KINDS)[number]
    try:
        fields = msgpack.unpackb(payload, raw=False, strict_map_key=True, max_map_len=100_000, max_array_len=100_000)
    except (ValueError, msgpack.UnpackException) as error:
        raise EnvelopeError(f"a {kind!r} message cannot be read: {error}") from None
    if not isinstance(fields, dict):
        raise EnvelopeError(f"a {kind!r} message must be a map, it is {type(fields).__name__}")
    if allowed and kind not in allowed:
        raise ProtocolError(f"a {kind!r} message is out of order; expected: {', '.join(allowed)}")
    return Message(kind, fields)


def error(exception: HefwError) -> bytes:
    """The frame that tells the other side of a refusal: the error's class and its one line."""
    return encode("error", error=type(exception).__name__, message=str(exception))


def raise_error(message: Message) -> None:
    """Raise what an 'error' message tells of, as an error of the same class."""
    kind = error_class(message.fields.get("error"))
    text = line(message.fields.get("message", ""))
    raise kind(text if issubclass(kind, ASKED) else f"the server refused: {text}")


def field(message: Message, name: str, kind: type | tuple[type, ...]) -> Any:
    """A field of a message, of a given type; EnvelopeError otherwise."""
    value = message.fields.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        wanted = kind.__name__ if isinstance(kind, type) else " or ".join(k.__name__ for k in kind)
        raise EnvelopeError(
            f"field {name!r} of a {message.kind!r} message must be {wanted}, it is {type(value).__name__}"
        )
    return value


def blobs(message: Message, name: str) -> dict[str, list[bytes]]:
    """A field that maps names to lists of byte strings."""
    value = field(message, name, dict)
    for key, items in value.items():
        if not isinstance(key, str) or not isinstance(items, list) or not all(isinstance(b, bytes) for b in items):
            raise EnvelopeError(f"field {name!r} of a {message.kind!r} message must map names to lists of bytes")
    return dict(value)


Emit = Callable[[bytes], None]
