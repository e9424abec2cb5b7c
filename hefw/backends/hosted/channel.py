"""Messages between a worker and the process that started it: a kind, a length, and a value in `hefw.core.codec`."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Any

from hefw.core import codec
from hefw.core.errors import EnvelopeError, ProtocolError
from hefw.core.stream import ByteStream

MAGIC = b"HEFH"
KINDS = ("call", "answer", "error", "progress")
MEBIBYTE = 2**20
#: The largest answers, in bytes: numbers, one vector, figures; and those that hold ciphertexts or keys.
SMALL, LARGE = 64 * MEBIBYTE, 2**31 + MEBIBYTE
#: The largest call: a program's weights may be any number of gigabytes, and who calls is trusted.
LARGEST_CALL = 2**40
_HEADER = struct.Struct(">4sBQ")

#: A call: its name, the numbers of objects that are not needed any more, and its arguments.
Call = tuple[str, list[int], tuple[Any, ...]]
#: An error: its class, or nothing if it is not one of hefw's; and its one line.
Failure = tuple[str | None, str]


class Channel:
    """Sends and receives whole messages. ProtocolError if the other side goes away."""

    def __init__(self, connection: socket.socket) -> None:
        self._stream = ByteStream(connection)

    def send(self, kind: str, parts: Sequence[codec.Buffer]) -> None:
        """Send one message, `codec.parts` of a value."""
        first, *rest = parts
        header = _HEADER.pack(MAGIC, KINDS.index(kind), sum(map(len, parts)))
        self._stream.send(header + first)
        for part in rest:
            self._stream.send(part)

    def receive(self, most: int, deadline: float | None = None) -> tuple[str, bytearray] | None:
        """The kind and the bytes of the next message; None at the end. TimeoutError at the deadline.

        EnvelopeError if what comes is no message, or one of more than `most` bytes.
        """
        header = self._stream.read(_HEADER.size, deadline)
        if header is None:
            return None
        magic, kind, length = _HEADER.unpack(header)
        if magic != MAGIC or kind >= len(KINDS) or length > most:
            raise EnvelopeError(f"no message of at most {most} bytes begins with {header!r}")
        payload = self._stream.read_buffer(length, deadline)
        if payload is None:
            raise ProtocolError("the other side went away in the middle of a message")
        return KINDS[kind], payload

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()
