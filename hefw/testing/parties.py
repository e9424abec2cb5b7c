"""Both sides of one backend, and values to work on: what every check of a backend is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.core.backend import Backend, Capabilities, Ciphertext, Evaluator, KeyHolder, KeyManifest
from hefw.core.params import CkksParams, Resolved

Values = NDArray[Any]
SMALL_RING = 2048


@dataclass(frozen=True)
class Precision:
    """What a backend promises.

    `worst` is the largest error of one operation, in any slot, on values up to 1. `noise` bounds the root mean square
    of an operation's noise, as a multiple of what `hefw.core.noise.NoiseModel` says: planning trusts that model.
    `program_db` is the PSNR of a small program against its plaintext twin (data range 2).
    """

    worst: float = 1e-3
    noise: float = 3.0
    program_db: float = 90.0


@dataclass
class Parties:
    """A key holder and an evaluator with its keys, at small parameters.

    `x` and `y` are uniform in [-1, 1], one number a slot. `top` is the highest level, `scale` that of a fresh
    ciphertext, `small` one for plaintexts whose product with it leaves room.
    """

    backend: Backend
    params: Resolved
    manifest: KeyManifest
    holder: KeyHolder
    evaluator: Evaluator
    precision: Precision
    x: Values
    y: Values

    @property
    def slots(self) -> int:
        return self.params.slots

    @property
    def top(self) -> int:
        return self.params.max_level

    @property
    def scale(self) -> float:
        return float(2.0**self.params.params.scale_bits)

    @property
    def small(self) -> float:
        return self.scale / 32

    def send(self, values: Values, level: int | None = None, scale: float | None = None) -> bytes:
        """A fresh encryption as the key holder sends it; at the top level and the usual scale if not said."""
        level, scale = self.top if level is None else level, self.scale if scale is None else scale
        return self.holder.encrypt_bytes(values, level, scale)

    def encrypt(self, values: Values, level: int | None = None, scale: float | None = None) -> Ciphertext:
        """The same, as the evaluator has it."""
        return self.evaluator.load(self.send(values, level, scale))

    def error(self, found: Ciphertext, expected: Values | float) -> float:
        """The largest error in any slot."""
        return float(np.abs(self.holder.decrypt(found) - expected).max())

    def check(self, found: Ciphertext, expected: Values | float, level: int, scale: float) -> None:
        """Value, level and scale, locally and over the wire."""
        assert found.level == level, f"level {found.level} instead of {level}"
        assert abs(found.scale / scale - 1) < 1e-12, f"scale {found.scale:g} instead of {scale:g}"
        error = self.error(found, expected)
        assert error < self.precision.worst, f"the result is wrong by {error:.2g}"
        if found.size == 2:
            error = float(np.abs(self.holder.decrypt_bytes(self.evaluator.dump(found)) - expected).max())
            assert error < self.precision.worst, f"the result is wrong by {error:.2g} after dump"


def make_parties(backend: Backend, params: CkksParams, precision: Precision) -> Parties:
    """Keys for the rotations 1, 5, half of the slots and all but one."""
    resolved = backend.resolve(params)
    slots, top = resolved.slots, resolved.max_level
    assert top >= 3, f"the conformance kit needs params with at least 3 levels; these have {top}"
    manifest = KeyManifest(
        dict.fromkeys((1, 5, slots // 2, slots - 1), top), conjugation=backend.capabilities.conjugation
    )
    holder = backend.keygen(resolved, manifest)
    evaluator = backend.evaluator(resolved)
    evaluator.load_keys(dict(holder.evaluation_keys()))
    x, y = np.random.default_rng(0).uniform(-1, 1, (2, slots))
    return Parties(backend, resolved, manifest, holder, evaluator, precision, x, y)


def small_params(capabilities: Capabilities) -> CkksParams:
    """Four primes on a ring that is small and insecure: for single operations."""
    special = (capabilities.largest_special_bits,)
    return CkksParams(small_ring(capabilities), (40, 30, 30, 30), special, 30.0, allow_insecure=True)


def program_params(capabilities: Capabilities) -> CkksParams:
    """Six primes on a ring that is small and insecure: for a small program."""
    first = capabilities.largest_special_bits
    return CkksParams(small_ring(capabilities), (first, 50, 50, 50, 50, 50), (first,), 40.0, allow_insecure=True)


def small_ring(capabilities: Capabilities) -> int:
    """The ring dimension of the tests: small, where the backend has a small one, and insecure."""
    offered = sorted(capabilities.ring_dimensions)
    return next((n for n in offered if n >= SMALL_RING), offered[-1])
