"""What a cell's process and the comparison say to each other: JSON, each with its length before it."""

from __future__ import annotations

import json
from typing import Any

from hefw.core.errors import ProtocolError
from hefw.core.stream import ByteStream

LENGTH_BYTES = 8
#: A run's record with its trace, and two rows of pictures, are a few MB at most.
MOST_BYTES = 2**30


def send(stream: ByteStream, message: dict[str, Any]) -> None:
    """Send one message; ProtocolError if nobody is there."""
    data = json.dumps(message).encode()
    stream.send(len(data).to_bytes(LENGTH_BYTES, "big") + data)


def receive(stream: ByteStream) -> dict[str, Any] | None:
    """The next message; None at the end."""
    header = stream.read(LENGTH_BYTES)
    if header is None:
        return None
    length = int.from_bytes(header, "big")
    data = stream.read(length) if length <= MOST_BYTES else None
    if data is None:
        raise ProtocolError("the other side went away in the middle of a message")
    message: dict[str, Any] = json.loads(data)
    return message
