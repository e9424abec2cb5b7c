"""Real vectors encoded with half of the rounding error, where nobody reads imaginary parts.

An encoded vector is a polynomial with whole coefficients c_0, ..., c_{N-1}. Real parts of slots depend on c_0 and on
the differences c_i - c_{N-i} only. Of a real vector c_{N-i} = -c_i, so that rounding to the nearest integer errs by the
same amount twice. With t = 1/4 or -1/4 added to both, round(c_i + t) - round(-c_i + t) is the difference 2 c_i rounded
by itself: round(c + 1/4) + round(c - 1/4) = round(2 c), Hermite's identity. A polynomial of such t is purely imaginary
in the slots. So a library's own encoder does it, given the vector and those imaginary parts.

The imaginary parts of a plaintext are then wrong by sqrt(N / 8) instead of not at all. They meet the real parts of a
result only times other imaginary parts, which are noise: that is second order. Signs of t differ from vector to vector,
since imaginary parts that agree would add up in a sum of products.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

QUARTER = 0.25
SEED = 0  # signs are no secret


class RealRounding:
    """Of vectors of N / 2 = `slots`. Slot j is the value at a root's power g^j, for g = 3 if `alternating`, else 5."""

    def __init__(self, slots: int, *, alternating: bool) -> None:
        n = 2 * slots
        half = np.random.default_rng(SEED).choice((-QUARTER, QUARTER), slots - 1)
        quarters = np.concatenate([[0.0], half, [0.0], half[::-1]])
        # The value at the odd power 2 k + 1 of the root exp(i pi / N), for every k.
        values = np.fft.ifft(quarters * np.exp(1j * np.pi * np.arange(n) / n)) * n
        generator, power, places = 3 if alternating else 5, 1, np.empty(slots, np.int64)
        for j in range(slots):
            places[j], power = power // 2, power * generator % (2 * n)
        self._imaginary = values[places].imag

    def prepare(self, values: NDArray[np.float64], scale: float) -> NDArray[np.complex128]:
        """What an encoder is given for real (slots,) values at a scale: the same for the same values."""
        mixed = zlib.crc32(values.tobytes())
        # Rotated slots are those of another polynomial with the same coefficients, in another order and with signs.
        return values + (1j / scale) * np.roll(self._imaginary, mixed)
