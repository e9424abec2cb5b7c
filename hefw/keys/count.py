"""How many decrypted entries were shown under a stored key: kept with it, over all runs and processes.

Each of them tells a little of the secret key (Li and Micciancio 2021), so the count must not be lost: it is written
before anything is shown, under a lock, and a set without a readable count is refused.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hefw.core.errors import KeyStoreError
from hefw.core.files import write_atomically


class ShownCount:
    """The count in a file, which several processes may use at once."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name

    def begin(self) -> None:
        """Nothing was shown yet."""
        self._write(0)

    def read(self) -> int:
        """Entries shown so far; KeyStoreError if that is not known."""
        try:
            found = json.loads(self._path.read_bytes())["shown"]
        except (OSError, ValueError, LookupError, TypeError):
            found = None
        if type(found) is not int or found < 0:
            raise KeyStoreError(
                f"key set {self._name!r} has lost its count of decrypted entries that were shown ({self._path.name} is "
                "missing or damaged), so that none may be: make new keys with hefw keys new"
            )
        return found

    def add(self, entries: int, limit: int) -> bool:
        """Count more, unless that makes more than `limit`; it is on the disk before this returns."""
        with self._locked():
            total = self.read() + entries
            if total > limit:
                return False
            self._write(total)
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Against other processes. The folder is locked: the file itself is replaced when it is written."""
        handle = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
            os.fsync(handle)  # the new name of the file, too
        finally:
            os.close(handle)

    def _write(self, shown: int) -> None:
        data = (json.dumps({"shown": shown}) + "\n").encode()
        write_atomically(self._path, data, private=True, durable=True)
