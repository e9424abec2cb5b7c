"""Writing files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

Buffer = bytes | bytearray | memoryview


def write_atomically(
    path: Path, data: bytes | Sequence[Buffer], *, private: bool = False, durable: bool = False
) -> None:
    """Write a file beside its place, then rename it. `data` may come in several blocks.

    `private`: only its owner can read it, from the first byte on. `durable`: its content is on the disk before it takes
    its place.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if not private:
            os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
