"""Where key sets are, what they may be called, and who may read them.

    HOME/keys/NAME/keys.json          what the set is: public, but nobody's business
    HOME/keys/NAME/secret             the secret key, sealed with a passphrase if one was given
    HOME/keys/NAME/shown.json         how many decrypted entries were shown under the key
    HOME/keys/NAME/evaluation/...     the evaluation keys, as they are sent

HOME is that of `hefw.environments`. Folders have the mode 0700, files 0600, and all belong to who runs hefw.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hefw.config import KEY_SET_NAME
from hefw.core.errors import KeyStoreError
from hefw.environments import home

RECORD, SECRET, SHOWN, EVALUATION = "keys.json", "secret", "shown.json", "evaluation"
#: A folder in memory, where there is one: what is written there reaches no disk (but may be swapped).
MEMORY = Path("/dev/shm")


def root() -> Path:
    """The folder of all key sets, whether or not it is there."""
    return home() / "keys"


def folder(name: str) -> Path:
    """That of a key set, whether or not it is there; KeyStoreError if no set can have this name."""
    if not re.fullmatch(KEY_SET_NAME, name):
        raise KeyStoreError(
            f"{name!r} cannot name a key set; allowed: a letter or digit, then letters, digits, '.', '_' and '-', at "
            "most 64"
        )
    return root() / name


def make_root() -> Path:
    """The folder of all key sets, made if need be."""
    place = root()
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_private(place)
    except OSError as error:
        raise KeyStoreError(
            f"key sets cannot be kept in {str(place)!r}: {error.strerror}; name another folder by HEFW_HOME"
        ) from None
    return place


def check_private(path: Path) -> None:
    """KeyStoreError if others may read or write a file or a folder, or if it is a link. OSError if it is not there."""
    found = path.lstat()
    wanted = "700" if stat.S_ISDIR(found.st_mode) else "600"
    if stat.S_ISLNK(found.st_mode):
        raise KeyStoreError(f"{str(path)!r} is a link; put the file itself there, of mode {wanted}")
    if found.st_uid != os.geteuid():
        raise KeyStoreError(f"{str(path)!r} belongs to another user; key sets must be yours: make one of your own")
    if found.st_mode & 0o077:
        raise KeyStoreError(
            f"{str(path)!r} is open to others (mode {stat.S_IMODE(found.st_mode):04o}); run: chmod {wanted} "
            f"{str(path)!r}, and make new keys if others may have read it"
        )


@contextmanager
def memory_folder(beside: Path) -> Iterator[Path]:
    """A folder that only its owner can enter, in memory if there is such a place, else in `beside`; then removed."""
    usable = sys.platform == "linux" and MEMORY.is_dir() and os.access(MEMORY, os.W_OK | os.X_OK)
    with tempfile.TemporaryDirectory(prefix="hefw-", dir=MEMORY if usable else beside) as made:  # of mode 0700
        yield Path(made)
