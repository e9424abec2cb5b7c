"""Frames over a stream socket, with bounds checked before memory is taken."""

from __future__ import annotations

from hefw.core.errors import ProtocolError
from hefw.core.stream import ByteStream
from hefw.protocol import wire


class Stream(ByteStream):
    """Sends and receives whole frames. ProtocolError if the other side goes away in the middle of one."""

    def receive(self) -> bytes | None:
        """The next frame, or None at the end of the stream."""
        header = self.read(wire.HEADER_SIZE)
        if header is None:
            return None
        payload = self.read(wire.payload_length(header))
        if payload is None:
            raise ProtocolError("the other side went away in the middle of a message")
        return header + payload
