"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hefw.core.errors import ConfigError


def check_writable(out: str | os.PathLike[str]) -> None:
    """Raise ConfigError unless the folder `out` can be made and written to. Leaves nothing behind."""
    out = Path(out)
    try:
        parent = out
        while not parent.exists():
            parent = parent.parent
        if not parent.is_dir():
            raise NotADirectoryError(0, f"{str(parent)!r} is a file")
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"out: cannot write into {str(out)!r}: {reason}; name a folder you may write to") from None


def put(out: Path, contents: Mapping[str, bytes], names: Sequence[str]) -> list[Path]:
    """Put files into the folder `out`, in the order of `names`, and remove those of `names` that have no contents.

    All are first written beside their places, then renamed into them. The last name is removed before and put last:
    where it is, the others are of the same run. Interrupted at any time, no file is left half-written.

    Args:
        out: the folder; made if it is not there.
        contents: bytes by file name.
        names: all names that a run may have; a superset of those in contents.

    Returns:
        the paths of the files written.
    """
    out.mkdir(parents=True, exist_ok=True)
    aside = {name: out / f".{name}.{os.getpid()}.part" for name in contents}
    try:
        for name, path in aside.items():
            path.write_bytes(contents[name])
        (out / names[-1]).unlink(missing_ok=True)
        for name in names:
            if name in aside:
                os.replace(aside[name], out / name)
            else:
                (out / name).unlink(missing_ok=True)
    finally:
        for path in aside.values():
            path.unlink(missing_ok=True)
    return [out / name for name in names if name in contents]
