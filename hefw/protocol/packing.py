"""How a list of real numbers lies in ciphertexts where every slot is treated alike: two of them a slot, if possible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Packing:
    """Numbers in order; with `paired`, numbers 2k and 2k + 1 are the real and imaginary part of slot k."""

    slots: int
    paired: bool

    def positions(self, count: int) -> int:
        """Slots that so many numbers take."""
        return -(-count // 2) if self.paired else count

    def ciphertexts(self, count: int) -> int:
        """Ciphertexts that so many numbers take."""
        return -(-self.positions(count) // self.slots)

    def pack(self, values: NDArray[np.float64]) -> NDArray[Any]:
        """(count,) -> (ciphertexts, slots), zero where no number lies."""
        size = 2 * self.slots if self.paired else self.slots
        padded = np.zeros(self.ciphertexts(len(values)) * size)
        padded[: len(values)] = values
        return (padded.view(np.complex128) if self.paired else padded).reshape(-1, self.slots)

    def unpack(self, slots: NDArray[np.complex128], count: int) -> NDArray[np.float64]:
        """(ciphertexts, slots) -> (count,); the inverse of `pack`."""
        flat = np.ascontiguousarray(slots, np.complex128).ravel()
        return (flat.view(np.float64) if self.paired else flat.real)[:count].copy()
