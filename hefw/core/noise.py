"""How much noise each CKKS operation adds: used by the planner's forecast and by the simulator.

All figures are standard deviations of the real part of one slot, before division by the scale, from the variance of the
coefficients under uniform ternary secrets and errors of standard deviation 3.2 (HE standard; Cheon et al. 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ERROR_STD = 3.2
TERNARY_VARIANCE = 2 / 3


@dataclass(frozen=True)
class NoiseModel:
    """Noise at one ring dimension. `ring_dimension` is N."""

    ring_dimension: int

    @property
    def _slot(self) -> float:
        # A slot is a sum of N coefficients times roots of unity; half of the variance is in the real part.
        return math.sqrt(self.ring_dimension / 2)

    @property
    def _rounding(self) -> float:
        # rounding c0 + c1 s to integers: c1's error is multiplied by the secret
        return math.sqrt((1 + TERNARY_VARIANCE * self.ring_dimension) / 12)

    @property
    def encode(self) -> float:
        """Rounding of an encoded vector to integer coefficients."""
        return self._slot / math.sqrt(12)

    @property
    def fresh(self) -> float:
        """A fresh symmetric encryption, its encoding included."""
        return math.hypot(ERROR_STD * self._slot, self.encode)

    @property
    def rescale(self) -> float:
        """Rounding of a ciphertext after a rescale."""
        return self._rounding * self._slot

    def key_switch(self, primes: int, largest_over_special: float = 1.0) -> float:
        """One rotation, conjugation or relinearisation at `primes` primes; the ratio is largest prime / special prime."""
        digits = math.sqrt(primes * self.ring_dimension / 12) * ERROR_STD * largest_over_special
        return math.hypot(digits, self._rounding) * self._slot
