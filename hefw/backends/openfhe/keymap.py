"""How OpenFHE serialises a map of keys: a head, their number, and for each its index and what belongs to the key."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hefw.backends.openfhe.library import openfhe

_COUNT = struct.Struct("<Q")
_INDEX = struct.Struct("<I")
_NULL = struct.Struct("<II")  # an index, and the null pointer of a key that is not there


def start(count: int) -> bytes:
    """What comes before the first key's index."""
    empty: bytes = openfhe.Serialize(openfhe.EvalKeyMap(), openfhe.BINARY)
    return empty[: -_COUNT.size] + _COUNT.pack(count)


def with_index(first: bytes, index: int) -> bytes:
    """The first bytes of a map of one key, for another index."""
    place = len(start(1))
    return first[:place] + _INDEX.pack(index) + first[place + _INDEX.size :]


def of_nulls(indices: Sequence[int]) -> bytes:
    """A map that says that these keys are there, in ascending order."""
    return start(len(indices)) + b"".join(_NULL.pack(index, 0) for index in indices)


def cut(serialised: bytes, before: int, keys: int, after: int) -> bytes:
    """A map without its keys that are not there: so many before, and so many after, the `keys` that are."""
    first = len(start(0)) + before * _NULL.size
    return start(keys) + serialised[first : len(serialised) - after * _NULL.size]
