"""Running a program that takes its time: its output goes to a log, its last line to whoever watches."""

from __future__ import annotations

import codecs
import contextlib
import os
import selectors
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

TICK_SECONDS = 1.0
GRACE_SECONDS = 5.0
REMEMBERED_LINES = 400


def run(
    command: Sequence[str | os.PathLike[str]],
    log: IO[str],
    watch: Callable[[str], None],
    *,
    environment: Mapping[str, str] | None = None,
    finish_from: str | None = None,
) -> tuple[int, list[str]]:
    """Run a program to its end; the exit code and its last lines, of both its output streams.

    Whatever ends the wait (Ctrl-C, a signal, an error) ends the program too, with all the processes that it started.

    Args:
        command: the program and its arguments.
        log: gets all of the output.
        watch: called with the last line, whenever there is a new one and at least once a second.
        environment: of the program; the present one if None.
        finish_from: once a line starts with this, an interrupt waits for the program's own end.
    """
    lines: deque[str] = deque(maxlen=REMEMBERED_LINES)
    log.write(f"$ {' '.join(map(str, command))}\n")
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=None if environment is None else dict(environment),
        start_new_session=True,  # a process group of its own, so that all of it can be ended
    )
    assert process.stdout is not None
    finishing = False
    try:
        for line in _lines(process.stdout):
            if line is not None:
                log.write(f"{line}\n")
                log.flush()
                shown = "".join(character for character in line if character.isprintable()).strip()
                if any(map(str.isalnum, shown)):  # rulers under a compiler's warnings tell nothing
                    lines.append(shown)
                finishing = finishing or (finish_from is not None and shown.startswith(finish_from))
            elif process.poll() is not None:
                break  # what it started still holds its output open
            watch(lines[-1] if lines else "")
        process.wait()
    finally:
        try:
            if finishing and process.poll() is None:
                log.write(process.communicate()[0].decode(errors="replace"))
        finally:
            _end(process)
    return process.returncode, list(lines)


def _lines(stream: IO[bytes]) -> Iterator[str | None]:
    """Lines as they come, and None whenever a second has passed without one."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    rest = ""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if not selector.select(TICK_SECONDS):
                yield None
                continue
            data = os.read(stream.fileno(), 65_536)
            *whole, rest = (rest + decode(data, final=not data)).replace("\r", "\n").split("\n")
            yield from whole
            if not data:
                if rest:
                    yield rest
                return


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and all of its process group: by the signal of Ctrl-C, on which pip tidies up, then by force."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
