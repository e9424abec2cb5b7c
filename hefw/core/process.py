"""Another process at the far end of a socket pair: how it is started, how it ended, and its last words."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence

from hefw.core.errors import ProtocolError, line

GRACE_SECONDS = 5.0
LAST_WORDS = 2000


class ChildProcess:
    """A child that inherits nothing but the environment given, one end of a socket pair, and a file for its words.

    It is in a session of its own: Ctrl-C in the terminal reaches this process alone, which then ends the child.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], inherited: Sequence[int] = ()
    ) -> None:
        """Start `command` with `--fd N`, the socket's number, behind it. ProtocolError if it cannot be started.

        Parameters
        ----------
        name : what errors call it, e.g. "the server process".
        inherited : further file descriptors that the child keeps.
        """
        self.name = name
        self.connection, theirs = socket.socketpair()
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `end`)
        try:
            self._process = subprocess.Popen(
                [*command, "--fd", str(theirs.fileno())],
                pass_fds=[theirs.fileno(), *inherited],
                stdin=subprocess.DEVNULL,
                stdout=self._words,
                stderr=self._words,
                start_new_session=True,
                env=dict(environment),
            )
        except OSError as error:
            self.connection.close()
            self._words.close()
            raise ProtocolError(f"{name} cannot be started by {command[0]}: {error.strerror or error}") from None
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def words(self) -> str:
        """All that the child has written to its standard streams so far."""
        self._words.seek(0)
        return self._words.read().decode(errors="replace")

    def last_words(self) -> str:
        """The tail of an error message: the last line that the child wrote, with lines that continue it; or nothing."""
        lines = self.words().strip()[-LAST_WORDS:].splitlines()
        start = len(lines) - 1
        while start > 0 and lines[start][:1].isspace():
            start -= 1
        return f"; its last words: {line(' '.join(map(str.strip, lines[start:])))}" if lines else ""

    def exit_code(self) -> int:
        """Wait for the end of a child whose connection has ended, by force if it takes long. Negative for a signal."""
        try:
            return self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """End the child at once."""
        self._process.kill()
        return self._process.wait()

    def died(self) -> ProtocolError:
        """The error that tells of the end of a child whose connection has ended."""
        code = self.exit_code()
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return ProtocolError(f"{self.name} ended {how}{self.last_words()}")

    def end(self, grace: float = 0.0) -> None:
        """Close the connection and wait so many seconds for the child to end by itself; then by force."""
        self.connection.close()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()

    def close(self) -> None:
        """Forget what an ended child has written."""
        self._words.close()


def processors() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment() -> dict[str, str]:
    """The little of this process's environment that another one may have: nothing of the user's."""
    kept = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "OMP_NUM_THREADS")
    cache = ("HEFW_CACHE", "HEFW_CACHE_SIZE")
    homes = ("HEFW_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "HOME")  # where managed environments and the cache are
    extra = tuple(name for name in os.environ if name.startswith("OPENBLAS_"))
    return {name: os.environ[name] for name in (*kept, *homes, *cache, *extra) if name in os.environ}


def end_with(lifeline: int) -> None:
    """End this process when the far end of a socket closes, whatever native code is running then.

    A thread would have to wait for that code to give up Python's lock; the kernel does not (Linux).
    """
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
        if select.select([lifeline], [], [], 0)[0]:  # it was closed before
            os._exit(0)
    else:
        threading.Thread(target=lambda: os.read(lifeline, 1) or os._exit(0), daemon=True).start()
