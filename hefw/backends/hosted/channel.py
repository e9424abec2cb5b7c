"""Messages between a worker and the process that started it: a kind, a length, and a value in `hefw.core.codec`."""

from __future__ import annotations

import socket
import struct
from typing import Any

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

    def send(self, kind: str, payload: bytes) -> None:
        """Send one message."""
        header = _HEADER.pack(MAGIC, KINDS.index(kind), len(payload))
        if len(payload) < MEBIBYTE:
            self._stream.send(header + payload)
        else:  # spares a copy
            self._stream.send(header)
            self._stream.send(payload)

    def receive(self, most: int, deadline: float | None = None) -> tuple[str, bytes] | None:
        """The kind and the bytes of the next message; None at the end. TimeoutError at the deadline.

        EnvelopeError if what comes is no message, or one of more than `most` bytes.
        """
        header = self._stream.read(_HEADER.size, deadline)
        if header is None:
            return None
        magic, kind, length = _HEADER.unpack(header)
        if magic != MAGIC or kind >= len(KINDS) or length > most:
            raise EnvelopeError(f"no message of at most {most} bytes begins with {header!r}")
        payload = self._stream.read(length, deadline)
        if payload is None:
            raise ProtocolError("the other side went away in the middle of a message")
        return KINDS[kind], payload

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()
