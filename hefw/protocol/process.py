"""A server in a process of its own, reached over a socket pair; it never outlives the key holder's process."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hefw.core.errors import ProtocolError
from hefw.core.process import GRACE_SECONDS, ChildProcess, environment
from hefw.protocol.stream import Stream


class ServerProcess:
    """Context manager. `send` and `receive` are those of a `Stream`; a death gives one error with the last words.

    The child gets a minimal environment: nothing of the key holder's reaches it but the socket.
    """

    def __init__(
        self,
        model: Path,
        backend: str,
        options: Mapping[str, Any] | None = None,
        python: Sequence[str] = (sys.executable,),
        threads: int = 1,
    ) -> None:
        command = [*python, "-m", "hefw.protocol.serve", "--model", str(model)]
        command += ["--backend", backend, "--options", json.dumps(dict(options or {})), "--threads", str(threads)]
        self._child = ChildProcess("the server process", command, environment())
        self._stream = Stream(self._child.connection)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    def send(self, frame: bytes) -> None:
        """Send one frame; ProtocolError with the server's last words if it is gone."""
        try:
            self._stream.send(frame)
        except ProtocolError:
            raise self._child.died() from None

    def receive(self) -> bytes:
        """The next frame; ProtocolError with the server's last words if it is gone."""
        try:
            frame = self._stream.receive()
        except ProtocolError:
            frame = None
        if frame is None:
            raise self._child.died()
        return frame

    def stderr(self) -> str:
        """All that the server has written to its standard streams so far."""
        return self._child.words()

    def close(self) -> None:
        """End the server: by closing the connection, then by force."""
        self._child.end(GRACE_SECONDS if sys.exc_info()[0] is None else 0.0)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._child.kill()
        self.close()
        self._child.close()
