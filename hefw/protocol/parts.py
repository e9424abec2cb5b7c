"""A tensor in two parts on the wire: ciphertexts of the selected entries, and the others in plaintext.

Plaintext entries travel as 32-bit floats, or, where they come from a decryption, as 8-bit multiples of a unit: an exact
CKKS decryption would tell of the secret key (Li and Micciancio 2021).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.core.errors import EnvelopeError
from hefw.core.ledger import Form

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Levels on either side of zero that a rounded entry may have: 8 bits.
LEVELS = 127
#: Significant bits of the unit itself, which is the largest shown entry in disguise.
UNIT_BITS = 3
#: Entries below count as zero: their unit would be no float.
SMALLEST = 2.0**-500


@dataclass(frozen=True, eq=False)
class Part:
    """One tensor: `mask` (entries,) is True where an entry is encrypted; `values` (entries,) are 0 there.

    `unit` is what rounded values are multiples of, or 0 for floats.
    """

    mask: Mask
    values: Array
    ciphertexts: tuple[bytes, ...] = ()
    unit: float = 0.0

    def pack(self) -> dict[str, Any]:
        """As plain data for a message. An entry is sent where it is shown; the mask only if something is shown."""
        shown = self.values[~self.mask]
        kind = np.rint(shown / self.unit).astype("<i1") if self.unit else shown.astype("<f4")
        return {
            "entries": len(self.mask),
            "mask": b"" if self.mask.all() else np.packbits(self.mask).tobytes(),
            "values": kind.tobytes(),
            "unit": self.unit,
            "ciphertexts": list(self.ciphertexts),
        }

    @staticmethod
    def unpack(data: object, entries: int) -> Part:
        """Of a message; EnvelopeError if it is not one, or not of so many entries."""
        if not isinstance(data, Mapping):
            raise EnvelopeError(f"a tensor's parts must be a map, not {type(data).__name__}")
        mask, values, unit = data.get("mask"), data.get("values"), data.get("unit")
        items = data.get("ciphertexts")
        if (
            not isinstance(mask, bytes)
            or not isinstance(values, bytes)
            or not isinstance(unit, float)
            or not (unit == 0 or (math.isfinite(unit) and unit > 0))
            or not isinstance(items, list)
            or not all(isinstance(item, bytes) for item in items)
        ):
            raise EnvelopeError("a tensor's parts must have a mask, values, a unit and ciphertexts")
        if data.get("entries") != entries or len(mask) not in (0, -(-entries // 8)):
            raise EnvelopeError(f"a tensor of {str(data.get('entries'))[:20]} entries came; {entries} are expected")
        selected = np.unpackbits(np.frombuffer(mask, np.uint8), count=entries).astype(bool) if mask else None
        if selected is None:
            selected = np.ones(entries, dtype=np.bool_)
        elif selected.all():
            raise EnvelopeError("a mask came that shows no entry")
        size, count = (1 if unit else 4), int((~selected).sum())
        if len(values) != size * count:
            raise EnvelopeError(f"{len(values)} bytes of plaintext came for {count} entries that the mask shows")
        with np.errstate(over="ignore"):  # refused below
            given = np.frombuffer(values, "<i1" if unit else "<f4").astype(np.float64) * (unit or 1.0)
        if not np.isfinite(given).all():
            raise EnvelopeError("plaintext entries that are not finite")
        full = np.zeros(entries)
        full[~selected] = given
        return Part(selected, full, tuple(items), unit)

    def contents(self, name: str) -> Iterator[tuple[str, Form, int, int]]:
        """What a party that is sent this sees: (item, form, entries, bytes). Nothing that it is sent is left out."""
        shown = int((~self.mask).sum())
        if self.ciphertexts:
            yield name, "ciphertext", len(self.mask) - shown, sum(map(len, self.ciphertexts))
        if shown:
            yield name, "plaintext", shown, shown * (1 if self.unit else 4)
            yield f"selection of {name}", "derived", len(self.mask), -(-len(self.mask) // 8)
            if self.unit:
                yield f"unit of {name}", "derived", 1, 8


def rounded(values: Array, mask: Mask) -> tuple[Array, float]:
    """The shown entries as multiples of a unit, 0 where the mask is True, and the unit.

    The unit has few bits itself; entries are off by half of it at most, 0.4 % of the largest of them.
    """
    shown = np.where(mask, 0.0, values)
    largest = float(np.abs(shown).max(initial=0.0))
    if largest < SMALLEST:
        return np.zeros_like(shown), 1.0
    mantissa, exponent = math.frexp(largest / LEVELS)
    unit = math.ldexp(math.ceil(mantissa * 2**UNIT_BITS), exponent - UNIT_BITS)
    return np.rint(shown / unit) * unit, unit
