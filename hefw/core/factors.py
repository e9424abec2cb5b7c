"""Weights as numbers times masks: where all weights of a shift are numbers times few patterns of zeros and ones.

With a channel a ciphertext, a convolution's weight is one number wherever its tap lies inside the picture, and zero
where it does not. So an input is rotated, multiplied by a mask for each shift, once for all outputs, and what is left
is a matrix of numbers. Masks of a short period are precise at a small scale (`Layout.blocks`), numbers at any.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Array = NDArray[np.float64]

#: Least scale of masks and of numbers, in bits.
LEAST_BITS = 4
#: Largest scale of numbers, in bits: more would not be seen, and they are integers that float64 adds up.
MOST_NUMBER_BITS = 18
#: Mean square rounding of an encoded vector in N = 16384, beside that of a constant: as many coefficients.
VECTOR_OVER_CONSTANT = 2.0**14


@dataclass(frozen=True, eq=False)
class Factors:
    """`masks` (masks, positions) of zeros and ones, each met by inputs rotated by a shift: (masked,) inputs and masks.

    Entry k of the matrix of numbers is values[k], of output `outputs[k]`; it reads the masked input `reads[k]`.
    """

    masks: Array
    numbers: Indices  # (masked,) input number
    shifts: Indices  # (masked,)
    of: Indices  # (masked,) mask
    outputs: Indices
    reads: Indices
    values: Array

    @property
    def vectors(self) -> int:
        """Products with masks that are not one everywhere."""
        return int(np.count_nonzero(~self.full[self.of]))

    @property
    def encodings(self) -> int:
        """Masks that are not one everywhere."""
        return int(np.count_nonzero(~self.full))

    @property
    def full(self) -> NDArray[np.bool_]:
        """Masks that are: (masks,)."""
        return np.asarray(self.masks.all(axis=1))


def factored(outputs: Indices, numbers: Indices, shifts: Indices, vectors: Array) -> Factors:
    """The factors of the products of an output, an input and a shift (products,) with vectors (products, positions).

    Positions of a shift at which all its vectors agree have one mask.
    """
    masks: dict[bytes, int] = {}
    patterns: list[Array] = []
    found: list[tuple[Indices, Indices, Indices, Indices, Array]] = []
    for shift in np.unique(shifts):
        some = np.flatnonzero(shifts == shift)
        columns, at = np.unique(vectors[some], axis=1, return_inverse=True)
        for column, values in enumerate(columns.T):
            filled = values != 0
            if not filled.any():
                continue
            pattern = (at.reshape(-1) == column).astype(np.float64)
            mask = masks.setdefault(pattern.tobytes(), len(masks))
            if mask == len(patterns):
                patterns.append(pattern)
            mine = some[filled]
            found.append((numbers[mine], shifts[mine], np.full(len(mine), mask), outputs[mine], values[filled]))
    number, turn, of, output, entries = (np.concatenate(parts) for parts in zip(*found, strict=True))
    masked, reads = np.unique(np.stack([number, turn, of], axis=1), axis=0, return_inverse=True)
    return Factors(np.stack(patterns), masked[:, 0], masked[:, 1], masked[:, 2], output, reads.reshape(-1), entries)


@dataclass(frozen=True)
class MaskedRounding:
    """What of the weights that reach one entry is rounded: so many numbers, and masks times these numbers.

    `masks` is the sum of the numbers' squares, each times the part of its mask that does not repeat.
    """

    numbers: float = 0.0
    masks: float = 0.0

    def __add__(self, other: MaskedRounding) -> MaskedRounding:
        return MaskedRounding(self.numbers + other.numbers, self.masks + other.masks)

    def error(self, weight_scale: float, mask_scale: float, encode: float, constant: float) -> float:
        """Its standard deviation, where an encoded vector or constant is rounded by so much at scale 1."""
        number_scale = weight_scale / mask_scale
        numbers = math.sqrt(self.numbers) * constant / number_scale
        return math.hypot(numbers, math.sqrt(self.masks) * encode / mask_scale)

    def mask_bits(self, weight_bits: float) -> int:
        """The masks' share of the bits of the weights' scale: `error` is least, or numbers have enough bits."""
        found = weight_bits / 2
        if self.masks and self.numbers:
            found += math.log2(self.masks / self.numbers * VECTOR_OVER_CONSTANT) / 4
        least = max(LEAST_BITS, math.ceil(weight_bits - MOST_NUMBER_BITS))
        return max(least, min(math.floor(weight_bits) - LEAST_BITS, round(found)))
