"""Plaintexts as bytes and back: their residues as they are in memory, or what SEAL saves, where they are out of reach.

What is read back is not copied: compiled loops read residues wherever they lie, and SEAL gets an object of its own only
when one of its calls wants it. Getting memory for as many residues takes as long as all else that loading does.
"""

from __future__ import annotations

import struct
from functools import cached_property
from typing import Any

import _sealapi_cpp as seal
import numpy as np
from numpy.typing import NDArray

from hefw.backends.tenseal.context import Context, PublicFile, saved
from hefw.backends.tenseal.pointers import Place, places
from hefw.core.errors import EnvelopeError

Array = NDArray[np.uint64]

#: Of plaintexts that are made to try something with: it fits every modulus.
EXAMPLE_SCALE = 2.0**10
#: Residues in bytes begin so; what SEAL saves begins otherwise.
MAGIC = b"hefw-pt\x01"
#: Before the residues: MAGIC, the scale, and SEAL's id of parameters and level.
HEADER = struct.Struct("<8sd4Q")


class Stored:
    """A plaintext's residues (primes, N) in memory that is not SEAL's, and not to be written to."""

    def __init__(self, residues: Array, scale: float) -> None:
        self.residues = residues
        self.scale = scale
        self.address: int = residues.ctypes.data
        self.object: Any = None  # SEAL's, once it was wanted


class Plaintexts:
    """Those of one context: SEAL's objects, and stored ones."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._evaluator = seal.Evaluator(context.seal)
        self._file = PublicFile()

    @cached_property
    def place(self) -> Place | None:
        """Where SEAL's keep their residues, tried; None if that is not found."""
        level = min(1, self._context.params.max_level)
        return next((place for place in places(*self._examples(level)) if self._passes(place, level)), None)

    def address(self, handle: Any) -> int:
        """Of its first residue, where `place` was found."""
        if isinstance(handle, Stored):
            return handle.address
        assert self.place is not None
        return self.place.address(handle)

    def object(self, handle: Any) -> Any:
        """SEAL's own of a plaintext."""
        if not isinstance(handle, Stored):
            return handle
        if handle.object is None:
            assert self.place is not None
            made = self._context.encode(1.0, len(handle.residues) - 1, 1.0)  # of that level and size
            self.place.at(made, handle.residues.shape)[...] = handle.residues
            made.scale = handle.scale
            handle.object = made
        return handle.object

    def dropped(self, handle: Any, level: int) -> Any:
        """For a lower level."""
        if isinstance(handle, Stored):
            return Stored(handle.residues[: level + 1], handle.scale)
        out = seal.Plaintext()
        self._evaluator.mod_switch_to(handle, self._context.level_ids[level], out)
        return out

    def dump(self, handle: Any, level: int, scale: float) -> bytes:
        """Its residues, or what SEAL saves."""
        if self.place is None:
            return saved(handle.save)
        stored = isinstance(handle, Stored)
        residues = handle.residues if stored else self.place.at(handle, self._shape(level))
        return HEADER.pack(MAGIC, scale, *self._context.level_ids[level]) + residues.tobytes()

    def load(self, data: bytes | memoryview, level: int, scale: float) -> Any:
        """What `dump` wrote, of that level and scale; EnvelopeError for any other bytes. `data` is read later, too."""
        view = memoryview(data)
        if view.nbytes < HEADER.size or view.cast("B")[: len(MAGIC)] != MAGIC:
            return self._load_saved(data, level, scale)
        if self.place is None:
            raise EnvelopeError("residues of a plaintext, which this build of TenSEAL keeps out of reach")
        _, found, *parameters = HEADER.unpack_from(view)
        if parameters != self._context.level_ids[level] or found != scale:
            raise another(level, scale)
        shape = self._shape(level)
        wanted = HEADER.size + 8 * shape[0] * shape[1]
        if view.nbytes != wanted:
            raise EnvelopeError(f"a plaintext of {view.nbytes} bytes, not {wanted}")
        residues = np.require(np.frombuffer(view, np.uint64, offset=HEADER.size), requirements="A").reshape(shape)
        if (residues.max(axis=1) >= np.array(self._context.params.primes[: level + 1], np.uint64)).any():
            raise EnvelopeError("a plaintext with residues that are not below their prime")
        return Stored(residues, scale)

    def _load_saved(self, data: bytes | memoryview, level: int, scale: float) -> Any:
        """By SEAL's loader, which checks it against the context."""
        plaintext = seal.Plaintext()
        self._file.load("plaintext", lambda path: plaintext.load(self._context.seal, path), data)
        if plaintext.parms_id() != self._context.level_ids[level] or plaintext.scale != scale:
            raise another(level, scale)
        return plaintext

    def _passes(self, place: Place, level: int) -> bool:
        """Whether SEAL saves a plaintext as another one whose residues were written into its memory."""
        one, other = self._examples(level)
        place.at(other, self._shape(level))[...] = place.at(one, self._shape(level))
        return saved(other.save) == saved(one.save)

    def _examples(self, level: int) -> tuple[Any, Any]:
        """Two that differ."""
        few = np.arange(self._context.params.slots) / self._context.params.slots
        one, other = (self._context.encode(few + k, level, EXAMPLE_SCALE) for k in range(2))
        return one, other

    def _shape(self, level: int) -> tuple[int, int]:
        return level + 1, self._context.params.params.ring_dimension


def another(level: int, scale: float) -> EnvelopeError:
    """The bytes of a plaintext are not those that were asked for."""
    return EnvelopeError(f"a plaintext that is not of level {level} and scale {scale:g}")
