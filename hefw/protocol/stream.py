"""Frames over a stream socket, with bounds checked before memory is taken."""

from __future__ import annotations

import socket

from hefw.core.errors import ProtocolError
from hefw.protocol import wire

CHUNK_BYTES = 2**20


class Stream:
    """Sends and receives whole frames. ProtocolError if the other side goes away in the middle of one."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, frame: bytes) -> None:
        """Send one frame."""
        try:
            self._connection.sendall(frame)
        except OSError as error:
            raise ProtocolError(f"the other side is gone: {error.strerror or error}") from None

    def receive(self) -> bytes | None:
        """The next frame, or None at the end of the stream."""
        header = self._read(wire.HEADER_SIZE)
        if header is None:
            return None
        payload = self._read(wire.payload_length(header))
        if payload is None:
            raise ProtocolError("the other side went away in the middle of a message")
        return header + payload

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _read(self, count: int) -> bytes | None:
        """Exactly `count` bytes; None if the stream ends before the first."""
        buffer = bytearray()
        while len(buffer) < count:  # memory follows what has come, not what was announced
            try:
                read = self._connection.recv(min(count - len(buffer), CHUNK_BYTES))
            except OSError as error:
                raise ProtocolError(f"the other side is gone: {error.strerror or error}") from None
            if not read:
                if buffer:
                    raise ProtocolError("the other side went away in the middle of a message")
                return None
            buffer += read
        return bytes(buffer)
