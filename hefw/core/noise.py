"""How much noise each CKKS operation adds: used by the planner's forecast and by the simulator.

All figures are standard deviations of the real part of one slot, before division by the scale, from the variance of the
coefficients under uniform ternary secrets and errors of standard deviation 3.2 (HE standard; Cheon et al. 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
        """Rounding of an encoded real vector to integer coefficients: alike in pairs, so that none is imaginary."""
        return self._slot * math.sqrt(2 / 12)

    @property
    def encode_complex(self) -> float:
        """Rounding of an encoded complex vector, in the real part, and as much in the imaginary one."""
        return self._slot / math.sqrt(12)

    @property
    def encode_real(self) -> float:
        """Rounding of a real vector of which only real parts count (`hefw.core.rounding`)."""
        return self.encode / 2

    @property
    def encode_real_imaginary(self) -> float:
        """The imaginary part of the same: sums of two coefficients, which are 0 or off by one."""
        return self._slot / 2

    @property
    def encode_constant(self) -> float:
        """Rounding of one number for all slots: it has one coefficient."""
        return 1 / math.sqrt(12)

    @property
    def fresh(self) -> float:
        """A fresh symmetric encryption, its encoding included."""
        return math.hypot(ERROR_STD * self._slot, self.encode)

    @property
    def fresh_public(self) -> float:
        """A fresh encryption by public key: the key's error meets a ternary polynomial, as in a rescale."""
        return math.hypot(self.fresh, self.rescale)

    @property
    def rescale(self) -> float:
        """Rounding of a ciphertext after a rescale."""
        return self._rounding * self._slot

    def key_switch(self, primes: float, over_special: float = 1.0, *, centred: bool = False) -> float:
        """One rotation, conjugation or relinearisation of `primes` digits; the ratio is that of a digit to P.

        Of digits of several sizes, `primes` is the sum of the squares of their ratios, and the ratio 1. Digits are
        taken in [0, q), with a mean square of q^2 / 3, or `centred` in [-q / 2, q / 2], with a quarter of that.
        """
        digits = math.sqrt(primes * self.ring_dimension / (12 if centred else 3)) * ERROR_STD * over_special
        return math.hypot(digits, self._rounding) * self._slot

    def key_switch_bias(self) -> NDArray[np.float64]:
        """How the part of a key switch's noise that is the same for every ciphertext spreads over the slots: (N / 2,).

        There is none where digits are centred. Three quarters of the mean square (BIAS_SHARE) come from the digits'
        mean q / 2: a constant polynomial times the key's own errors. It depends on the key alone, so that it adds up
        over steps, and it is large in the few slots j whose root of unity, zeta^(3^j), is close to 1. The root mean
        square of the profile is 1.
        """
        n = self.ring_dimension
        exponents = np.array([pow(3, j, 2 * n) for j in range(n // 2)])
        return np.asarray(1 / (math.sqrt(n) * np.sin(np.pi * exponents / (2 * n))))


#: Share of the mean square of a key switch's noise that depends on the key alone.
BIAS_SHARE = 0.75
