"""Bytes over a stream socket: exact counts of them, and memory only for what has come."""

from __future__ import annotations

import socket
import time

from hefw.core.errors import ProtocolError

CHUNK_BYTES = 2**20


class ByteStream:
    """Sends and reads exact counts of bytes. ProtocolError if the other side goes away in between."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        try:
            self._connection.sendall(data)
        except OSError as error:
            raise ProtocolError(f"the other side is gone: {error.strerror or error}") from None

    def read(self, count: int, deadline: float | None = None) -> bytes | None:
        """Exactly `count` bytes; None if the stream ends before the first.

        TimeoutError if they have not come at `deadline`, a time of `time.monotonic`; the stream is of no use then.
        """
        buffer = bytearray()
        while len(buffer) < count:  # memory follows what has come, not what was announced
            read = self._receive(min(count - len(buffer), CHUNK_BYTES), deadline)
            if not read:
                if buffer:
                    raise ProtocolError("the other side went away in the middle of a message")
                return None
            buffer += read
        return bytes(buffer)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _receive(self, count: int, deadline: float | None) -> bytes:
        try:
            if deadline is None:
                return self._connection.recv(count)
            self._connection.settimeout(max(1e-3, deadline - time.monotonic()))
            try:
                return self._connection.recv(count)
            finally:
                self._connection.settimeout(None)
        except TimeoutError:
            raise
        except OSError as error:
            raise ProtocolError(f"the other side is gone: {error.strerror or error}") from None
