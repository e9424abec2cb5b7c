"""The simulator's evaluator: slot vectors with the noise that CKKS would add."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.backends.simulator import payload
from hefw.core.backend import Capabilities, Ciphertext, Evaluator, Plaintext, imaginary
from hefw.core.errors import ScaleError
from hefw.core.noise import BIAS_SHARE, NoiseModel
from hefw.core.params import Resolved

Slots = NDArray[np.complex128]


class SimulatorEvaluator(Evaluator):
    """Handles are (slots,) complex vectors: what a decryption would give."""

    def __init__(self, params: Resolved, capabilities: Capabilities) -> None:
        super().__init__(params, capabilities)
        self._noise = NoiseModel(params.params.ring_dimension)
        self._profile = self._noise.key_switch_bias()
        self._biases: dict[str, Slots] = {}
        self._ratio = max(params.primes) / min(params.special_primes)
        self._random = np.random.default_rng()
        self._unit = imaginary(params.slots, alternating=capabilities.alternating_imaginary)

    def _load_key(self, name: str, data: bytes) -> None:
        payload.check_key(data, name)

    def _load(self, data: bytes, level: int, scale: float) -> Slots:
        return payload.read(data, self.params.slots, level)

    def _dump(self, ciphertext: Ciphertext) -> bytes:
        return payload.write(ciphertext.handle, ciphertext.level)

    def _encode(self, values: NDArray[Any] | float, level: int, scale: float) -> Slots | float:
        if isinstance(values, float):
            return round(values * scale) / scale  # a constant has one coefficient
        if values.dtype.kind != "c":
            return self._rounded(values, self._noise.encode / scale, 0.0)
        return self._rounded(values, self._noise.encode_complex / scale, self._noise.encode_complex / scale)

    def _encode_real(self, values: NDArray[np.float64], level: int, scale: float) -> Slots:
        return self._rounded(values, self._noise.encode_real / scale, self._noise.encode_real_imaginary / scale)

    def _rounded(self, values: NDArray[Any], real: float, imaginary: float) -> Slots:
        period = len(values)  # of a vector that repeats fewer coefficients are rounded, and the noise repeats with it
        while period % 2 == 0 and np.array_equal(values[: period // 2], values[period // 2 : period]):
            period //= 2
        noise = np.sqrt(period / len(values)) * self._random.normal(size=(2, period))
        repeated = np.tile(real * noise[0] + 1j * imaginary * noise[1], len(values) // period)
        return np.asarray(values + repeated)

    def _add(self, a: Ciphertext, b: Ciphertext) -> Slots:
        return self._fits(a.handle + b.handle, a.level, a.scale)

    def _negate(self, a: Ciphertext) -> Slots:
        return -np.asarray(a.handle)

    def _add_plain(self, a: Ciphertext, b: Plaintext) -> Slots:
        return self._fits(a.handle + b.handle, a.level, a.scale)

    def _mul_plain(self, a: Ciphertext, b: Plaintext) -> Slots:
        return np.asarray(a.handle * b.handle)

    def _mul(self, a: Ciphertext, b: Ciphertext) -> Slots:
        return self._fits(a.handle * b.handle, a.level, a.scale * b.scale)

    def _mul_imaginary(self, a: Ciphertext) -> Slots:
        return np.asarray(a.handle * self._unit)  # a monomial: nothing is rounded

    def _divide(self, a: Ciphertext, by: float) -> Slots:
        return np.asarray(a.handle / by)  # handles are values, whatever the scale

    def _relinearise(self, a: Ciphertext) -> Slots:
        return self._switched(a.handle, a, "relinearisation")

    def _rescale(self, a: Ciphertext) -> Slots:
        scale = a.scale / self.params.primes[a.level]
        return self._noisy(self._fits(a.handle, a.level, a.scale), self._noise.rescale / scale)

    def _drop_level(self, a: Ciphertext, level: int) -> Slots:
        return self._fits(a.handle, level, a.scale)

    def _drop_plain_level(self, a: Plaintext, level: int) -> Slots | float:
        return a.handle  # type: ignore[no-any-return]

    def _rotate(self, a: Ciphertext, step: int) -> Slots:
        return self._switched(np.roll(a.handle, -step), a, f"rotation/{step}")

    def _conjugate(self, a: Ciphertext) -> Slots:
        return self._switched(np.conj(a.handle), a, "conjugation")

    def _switched(self, slots: Slots, a: Ciphertext, key: str) -> Slots:
        centred = self.capabilities.centred_digits
        std = self._noise.key_switch(a.level + 1, self._ratio, centred=centred) / a.scale
        if centred:
            return self._noisy(slots, std)
        if key not in self._biases:
            self._biases[key] = self._noisy(np.zeros(len(slots), np.complex128), 1.0) * self._profile
        bias = self._biases[key] * (std * math.sqrt(BIAS_SHARE))
        return self._noisy(slots + bias, std * math.sqrt(1 - BIAS_SHARE))

    def _noisy(self, slots: Slots, std: float) -> Slots:
        noise = self._random.normal(scale=std, size=(2, len(slots)))
        return np.asarray(slots + noise[0] + 1j * noise[1])

    def _fits(self, slots: Slots, level: int, scale: float) -> Slots:
        """A real library would wrap around silently; here it is an error that names the size."""
        peak = float(np.abs(slots).max())
        if not math.isfinite(peak) or (
            peak and math.log2(peak) + math.log2(scale) > self.params.log_modulus(level) - 1
        ):
            raise ScaleError(
                f"a value of {peak:g} at scale 2^{math.log2(scale):.1f} overflows the modulus of "
                f"2^{self.params.log_modulus(level):.1f} at level {level}: rescale earlier, or bound the values"
            )
        return np.asarray(slots)
