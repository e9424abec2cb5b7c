"""A ciphertext's residues in SEAL's own memory, where the binding gives no way to them.

A place where they may be (`pointers`) is used only if what is read and written there is what SEAL itself adds up.
"""

from __future__ import annotations

import warnings
from typing import Any

import _sealapi_cpp as seal
import numpy as np

from hefw.backends.rns.memory import Memory
from hefw.backends.rns.tape import Rows
from hefw.backends.tenseal.context import Context
from hefw.backends.tenseal.plaintexts import Plaintexts
from hefw.backends.tenseal.pointers import Array, Place, places
from hefw.core.backend import Ciphertext

WARNING = (
    "this build of TenSEAL keeps its residues where hefw does not find them: it goes on with the library's own calls, "
    "by one thread"
)


class Residues(Memory):
    """Views of ciphertexts under one context, and ciphertexts made of residues."""

    def __init__(self, context: Context, plaintexts: Plaintexts, wanted: bool = True) -> None:
        self._context = context
        self._wanted = wanted
        self._plaintexts = plaintexts
        self._evaluator = seal.Evaluator(context.seal)
        self._example: Any = None
        self._place: Place | None = None

    def usable(self, example: Ciphertext) -> bool:
        """Whether residues are to be reached, and can be: found out by the first ciphertext, with a warning if not."""
        if self._wanted and self._example is None:
            example.handle.scale = example.scale
            self._example = self._copy(example.handle, example.level)
            self._place = self._find()
            if self._place is None:
                warnings.warn(WARNING, RuntimeWarning, stacklevel=2)
            self._example = self._copy(self._example, 0)  # small: each blank one is a copy of it
        return self._place is not None

    def view(self, ct: Any) -> Array:
        """Residues of a ciphertext: (parts, primes, N), in its own memory, valid as long as `ct` is."""
        assert self._place is not None  # `usable` said so
        return self._place.at(ct, _shape(ct))

    def rows(self, handle: Any) -> Rows:
        """Those of a ciphertext: (parts, level + 1)."""
        assert self._place is not None
        return self._rows(self._place.address(handle), handle.size(), handle.coeff_modulus_size())

    def plain_rows(self, handle: Any, level: int) -> Rows:
        """Those of a plaintext: (level + 1,)."""
        return self._rows(self._plaintexts.address(handle), 1, level + 1).reshape(-1)

    def _rows(self, address: int, parts: int, primes: int) -> Rows:
        """Of residues that follow each other."""
        begins = np.arange(parts * primes, dtype=np.uint64) * np.uint64(8 * self._context.params.params.ring_dimension)
        return (begins + np.uint64(address)).reshape(parts, primes)

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
