"""C++ objects behind pybind11's Python objects, read so that a wrong guess is no crash."""

from __future__ import annotations

import ctypes
import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Where pybind11 keeps the pointer to the C++ object, in bytes from the start of the Python object (64-bit CPython).
HOLDER = 16
WORD = struct.Struct("<Q")
#: Addresses are below it.
LARGEST_ADDRESS = 2**47


class Reader:
    """Reads memory of this process; what is not there is None."""

    def __init__(self, memory: int) -> None:
        self._memory = memory

    def bytes_at(self, address: int, count: int) -> bytes | None:
        """So many, or None."""
        if not 0 < address < LARGEST_ADDRESS:
            return None
        try:
            found = os.pread(self._memory, count, address)
        except OSError:
            return None
        return found if len(found) == count else None

    def words_at(self, address: int, size: int) -> tuple[int, ...]:
        """Those of so many bytes; none where they are not there."""
        found = self.bytes_at(address, size // WORD.size * WORD.size)
        return () if found is None else tuple(number for (number,) in WORD.iter_unpack(found))


@contextmanager
def reader() -> Iterator[Reader]:
    """OSError where there is no /proc."""
    memory = os.open("/proc/self/mem", os.O_RDONLY)  # reading a wrong address there is an error, nothing worse
    try:
        yield Reader(memory)
    finally:
        os.close(memory)


def behind(thing: Any) -> int:
    """The address of the C++ object behind a Python object."""
    return word(id(thing) + HOLDER)


def word(address: int) -> int:
    """What is there."""
    return int(ctypes.c_uint64.from_address(address).value)


def words(address: int, shape: tuple[int, ...]) -> NDArray[np.uint64]:
    """What begins there, in its own place."""
    found: Any = (ctypes.c_uint64 * math.prod(shape)).from_address(address)
    return np.frombuffer(found, dtype=np.uint64).reshape(shape)
