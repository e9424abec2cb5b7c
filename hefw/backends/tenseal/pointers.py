"""Where SEAL's objects keep the pointer to their residues: not told by the binding, and found by what it tells.

SEAL's object lies behind the Python object, and somewhere in its first words is the pointer. It is found by looking for
residues that the binding tells one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.backends.rns.objects import WORD, behind, reader, word, words

Array = NDArray[np.uint64]

#: How far into SEAL's object the pointer is looked for, in bytes.
FURTHEST = 256
#: Residues by which it is recognised: of so many bits each that they stand nowhere else by chance.
TOLD = 8


class Place:
    """Where SEAL's objects of one kind keep the pointer to their residues, in bytes from their start."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def address(self, thing: Any) -> int:
        """That of the first residue, valid as long as `thing` is not resized."""
        return word(behind(thing) + self._offset)

    def at(self, thing: Any, shape: tuple[int, ...]) -> Array:
        """Its residues, in its own memory."""
        return words(self.address(thing), shape)


def places(*things: Any) -> list[Place]:
    """All that point to what the binding says are the first residues of some objects of one kind."""
    try:
        return [Place(offset) for offset in sorted(set.intersection(*map(_offsets, things)))]
    except OSError:
        return []  # no /proc


def _offsets(thing: Any) -> set[int]:
    """Offsets in SEAL's object of pointers to what the binding says are its first residues."""
    told = b"".join(WORD.pack(thing[k]) for k in range(TOLD))
    with reader() as memory:
        found = memory.words_at(behind(thing), FURTHEST)
        return {WORD.size * k for k, pointer in enumerate(found) if memory.bytes_at(pointer, len(told)) == told}
