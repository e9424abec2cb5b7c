"""The simulator's bytes: readable, and as long as a real ciphertext would be short."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hefw.core.errors import EnvelopeError

KEY_PREFIX = b"simulated key "


def write(slots: NDArray[np.complex128], level: int) -> bytes:
    """(slots,) complex values and their level."""
    return level.to_bytes(4, "big") + np.ascontiguousarray(slots, dtype="<c16").tobytes()


def read(data: bytes, slots: int, level: int) -> NDArray[np.complex128]:
    """The inverse of `write`; EnvelopeError if the length or the level is another one."""
    if len(data) != 4 + 16 * slots or int.from_bytes(data[:4], "big") != level:
        raise EnvelopeError(f"not a simulated ciphertext of {slots} slots at level {level}: {len(data)} bytes")
    return np.frombuffer(data, dtype="<c16", offset=4).astype(np.complex128)


def key(name: str) -> bytes:
    """What stands for an evaluation key."""
    return KEY_PREFIX + name.encode()


def check_key(data: bytes, name: str) -> None:
    """EnvelopeError if `data` does not stand for the key of that name."""
    if data != key(name):
        raise EnvelopeError(f"not the simulated key {name!r}")
