"""A server in a process of its own, reached over a socket pair; it never outlives the key holder's process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hefw.core.errors import ProtocolError
from hefw.protocol.stream import Stream

GRACE_SECONDS = 5.0
LAST_WORDS = 2000


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
    ) -> None:
        ours, theirs = socket.socketpair()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)
        command = [*python, "-m", "hefw.protocol.serve", "--fd", str(theirs.fileno()), "--model", str(model)]
        command += ["--backend", backend, "--options", json.dumps(dict(options or {}))]
        # A session of its own: Ctrl-C in the terminal reaches the key holder alone, which then ends the server.
        self._process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._stderr,
            stderr=self._stderr,
            start_new_session=True,
            env=_environment(),
        )
        theirs.close()
        self._stream = Stream(ours)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, frame: bytes) -> None:
        """Send one frame; ProtocolError with the server's last words if it is gone."""
        try:
            self._stream.send(frame)
        except ProtocolError:
            raise self._died() from None

    def receive(self) -> bytes:
        """The next frame; ProtocolError with the server's last words if it is gone."""
        try:
            frame = self._stream.receive()
        except ProtocolError:
            frame = None
        if frame is None:
            raise self._died()
        return frame

    def stderr(self) -> str:
        """All that the server has written to its standard streams so far."""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")

    def close(self) -> None:
        """End the server: by closing the connection, then by force."""
        self._stream.close()
        try:
            self._process.wait(GRACE_SECONDS if self._process.poll() is None and sys.exc_info()[0] is None else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        self.close()
        self._stderr.close()

    def _died(self) -> ProtocolError:
        try:
            code = self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        words = self.stderr().strip()[-LAST_WORDS:].splitlines()
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return ProtocolError(f"the server process ended {how}" + (f"; its last words: {words[-1]}" if words else ""))


def _environment() -> dict[str, str]:
    kept = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "OMP_NUM_THREADS")
    extra = tuple(name for name in os.environ if name.startswith("OPENBLAS_"))
    return {name: os.environ[name] for name in (*kept, *extra) if name in os.environ}
