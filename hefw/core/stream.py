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

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`."""
        try:
            self._connection.sendall(data)
        except OSError as error:
            raise ProtocolError(f"the other side is gone: {error.strerror or error}") from None

    def read(self, count: int, deadline: float | None = None) -> bytes | None:
        """Exactly `count` bytes; None if the stream ends before the first.

        TimeoutError if they have not come at `deadline`, a time of `time.monotonic`; the stream is of no use then.
        """
        buffer = self.read_buffer(count, deadline)
        return None if buffer is None else bytes(buffer)

    def read_buffer(self, count: int, deadline: float | None = None) -> bytearray | None:
        """`read`, with a copy less."""
        buffer, filled = bytearray(min(count, CHUNK_BYTES)), 0
        while filled < count:
            if filled == len(buffer):  # memory follows what has come, not what was announced
                buffer += bytes(min(filled, count - filled))
            with memoryview(buffer) as view:
                read = self._receive(view[filled:], deadline)
            if not read:
                if filled:
                    raise ProtocolError("the other side went away in the middle of a message")
                return None
            filled += read
        return buffer

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _receive(self, into: memoryview, deadline: float | None) -> int:
        try:
            if deadline is None:
                return self._connection.recv_into(into)
            self._connection.settimeout(max(1e-3, deadline - time.monotonic()))
            try:
                return self._connection.recv_into(into)
            finally:
                self._connection.settimeout(None)
        except TimeoutError:
            raise
        except OSError as error:
            raise ProtocolError(f"the other side is gone: {error.strerror or error}") from None
