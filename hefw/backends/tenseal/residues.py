"""A ciphertext's residues as a numpy array over SEAL's own memory, where the binding gives no way to them.

SEAL's object lies behind the Python object, and somewhere in its first words is the pointer to its residues. It is
found by looking for numbers that the binding tells, read so that a wrong guess is an error and not a crash, and used
only if what is read and written there is what SEAL itself adds up.
"""

from __future__ import annotations

import ctypes
import math
import os
import struct
import warnings
from typing import Any

import _sealapi_cpp as seal
import numpy as np
from numpy.typing import NDArray

from hefw.backends.tenseal.context import Context

Array = NDArray[np.uint64]

#: Where pybind11 keeps the pointer to the C++ object, in bytes from the start of the Python object (64-bit CPython).
HOLDER = 16
#: How far into SEAL's object the pointer is looked for, in bytes.
FURTHEST = 256
#: Residues by which it is recognised: of so many bits each that they stand nowhere else by chance.
TOLD = 8
WORD = struct.Struct("<Q")
WARNING = (
    "this build of TenSEAL keeps its residues where hefw does not find them: it goes on with the library's own calls, "
    "in one process"
)


class Place:
    """Where SEAL's objects of one kind keep the pointer to their residues, in bytes from their start."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def address(self, thing: Any) -> int:
        """That of the first residue, valid as long as `thing` is not resized."""
        return _word(_word(id(thing) + HOLDER) + self._offset)

    def at(self, thing: Any, shape: tuple[int, ...]) -> Array:
        """Its residues, in its own memory."""
        words: Any = (ctypes.c_uint64 * math.prod(shape)).from_address(self.address(thing))
        return np.frombuffer(words, dtype=np.uint64).reshape(shape)


def places(*things: Any) -> list[Place]:
    """All that point to what the binding says are the first residues of some objects of one kind."""
    try:
        return [Place(offset) for offset in sorted(set.intersection(*map(_offsets, things)))]
    except OSError:
        return []  # no /proc


class Residues:
    """Views of ciphertexts under one context, and ciphertexts made of residues."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._evaluator = seal.Evaluator(context.seal)
        self._example: Any = None
        self._place: Place | None = None

    def usable(self, example: Any) -> bool:
        """Whether residues can be reached: found out by the first ciphertext that is given, with a warning if not."""
        if self._example is None:
            self._example = self._copy(example, example.coeff_modulus_size() - 1)
            self._place = self._find()
            if self._place is None:
                warnings.warn(WARNING, RuntimeWarning, stacklevel=2)
            self._example = self._copy(example, 0)  # small: each blank one is a copy of it
        return self._place is not None

    def view(self, ct: Any) -> Array:
        """Residues of a ciphertext: (parts, primes, N), in its own memory, valid as long as `ct` is."""
        assert self._place is not None  # `usable` said so
        return self._place.at(ct, _shape(ct))

    def address(self, ct: Any) -> int:
        """Where they begin."""
        assert self._place is not None
        return self._place.address(ct)

    def blank(self, level: int, parts: int = 2) -> Any:
        """A ciphertext at a level, whose residues the caller writes.

        All have room for the highest level: SEAL gives memory out again only for the same size, and memory that is
        new takes longer to get than to fill.
        """
        ct = self._copy(self._example, 0)
        ids = self._context.level_ids
        ct.reserve(self._context.seal, ids[self._context.params.max_level], parts)
        ct.resize(self._context.seal, ids[level], parts)
        return ct

    def _copy(self, ct: Any, level: int) -> Any:
        out, scale = seal.Ciphertext(), ct.scale
        ct.scale = 1.0  # its own may not fit the level
        self._evaluator.mod_switch_to(ct, self._context.level_ids[level], out)
        ct.scale = scale
        return out

    def _find(self) -> Place | None:
        """The one place that passes, of those that point to the first residues of two ciphertexts."""
        second = seal.Ciphertext()
        self._evaluator.add(self._example, self._example, second)
        return next((place for place in places(self._example, second) if self._passes(place)), None)

    def _passes(self, place: Place) -> bool:
        """Whether residues that are doubled in memory become those of SEAL's own sum, and SEAL goes on with them."""
        total, fourfold, again = (seal.Ciphertext() for _ in range(3))
        self._evaluator.add(self._example, self._example, total)
        self._evaluator.add(total, total, fourfold)
        level = self._example.coeff_modulus_size() - 1
        primes = np.array(self._context.params.primes[: level + 1], dtype=np.uint64)[:, None]
        mine = self._copy(self._example, level)
        shape = _shape(mine)
        view = place.at(mine, shape)
        view[...] = 2 * view % primes
        self._evaluator.add(mine, mine, again)
        return np.array_equal(view, place.at(total, shape)) and np.array_equal(
            place.at(again, shape), place.at(fourfold, shape)
        )


def _shape(ct: Any) -> tuple[int, int, int]:
    return ct.size(), ct.coeff_modulus_size(), ct.poly_modulus_degree()


def _offsets(thing: Any) -> set[int]:
    """Offsets in SEAL's object of pointers to what the binding says are its first residues."""
    told = b"".join(WORD.pack(thing[k]) for k in range(TOLD))
    memory = os.open("/proc/self/mem", os.O_RDONLY)  # reading a wrong address there is an error, nothing worse
    try:
        words = os.pread(memory, FURTHEST, _word(id(thing) + HOLDER))
        found = set()
        for offset in range(0, len(words) - WORD.size + 1, WORD.size):
            (pointer,) = WORD.unpack_from(words, offset)
            try:
                if 0 < pointer < 2**63 and os.pread(memory, len(told), pointer) == told:
                    found.add(offset)
            except OSError:
                continue
        return found
    finally:
        os.close(memory)


def _word(address: int) -> int:
    return int(ctypes.c_uint64.from_address(address).value)
