"""CKKS parameters: ring dimension, modulus chain, special primes, scale, and their security."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import msgpack

from hefw.core.errors import ParameterError

#: Largest log2(QP) for uniform ternary secrets, by classical security in bits: the HE standard's table up to
#: N = 32768, and above it what OpenFHE's own check accepts.
SECURITY_TABLE: dict[int, dict[int, int]] = {
    128: {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881, 65536: 1747, 131072: 3523},
    192: {1024: 19, 2048: 37, 4096: 75, 8192: 152, 16384: 305, 32768: 611},
    256: {1024: 14, 2048: 29, 4096: 58, 8192: 118, 16384: 237, 32768: 476},
}
MINIMUM_SECURITY = 128
MAXIMUM_PRIME_BITS = 60
MINIMUM_PRIME_BITS = 20
RING_DIMENSIONS = tuple(2**k for k in range(10, 18))


@dataclass(frozen=True)
class CkksParams:
    """What a user or the planner asks for. A backend resolves it to its actual primes.

    Level l of a ciphertext has the first l + 1 primes of the chain; a rescale drops the last of them, so that level is
    the number of rescales that remain. `special_bits` are the key-switching primes P.
    """

    ring_dimension: int
    modulus_bits: tuple[int, ...]
    special_bits: tuple[int, ...]
    scale_bits: float
    allow_insecure: bool = False
    #: Slots in use, where a library packs fewer values than N / 2 (they then repeat); None for all N / 2.
    packed_slots: int | None = None
    #: Levels of CoeffsToSlots and SlotsToCoeffs where the server bootstraps; the secret is then sparse-encapsulated.
    bootstrap: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.ring_dimension not in RING_DIMENSIONS:
            raise ParameterError(
                f"ring dimension {self.ring_dimension} is not allowed; choose a power of two from "
                f"{RING_DIMENSIONS[0]} to {RING_DIMENSIONS[-1]}"
            )
        if not self.modulus_bits or not self.special_bits:
            raise ParameterError("the modulus chain and the special primes must each have at least one prime")
        for bits in (*self.modulus_bits, *self.special_bits):
            if not MINIMUM_PRIME_BITS <= bits <= MAXIMUM_PRIME_BITS:
                raise ParameterError(
                    f"a prime of {bits} bits is not allowed; choose {MINIMUM_PRIME_BITS} to {MAXIMUM_PRIME_BITS} bits"
                )
        packed = self.packed_slots
        if packed is not None and (packed < 1 or packed & (packed - 1) or packed > self.ring_dimension // 2):
            raise ParameterError(
                f"packed_slots {packed} is not allowed; choose none, or a power of two up to {self.ring_dimension // 2}"
            )
        if self.bootstrap is not None and not (len(self.bootstrap) == 2 and all(1 <= b <= 8 for b in self.bootstrap)):
            raise ParameterError(f"bootstrap {self.bootstrap} is not allowed; give none, or two numbers from 1 to 8")
        if not 1 <= self.scale_bits < sum(self.modulus_bits):
            raise ParameterError(f"scale of 2^{self.scale_bits:g} does not fit a modulus of 2^{sum(self.modulus_bits)}")
        if self.security_bits < MINIMUM_SECURITY and not self.allow_insecure:
            raise ParameterError(
                f"log2(QP) = {self.log_qp} at ring dimension {self.ring_dimension} is below {MINIMUM_SECURITY}-bit "
                f"security (at most {max_log_qp(self.ring_dimension)}); use a larger ring dimension or fewer primes, "
                "or set allow_insecure: true for experiments"
            )

    @property
    def slots(self) -> int:
        """Complex numbers in one ciphertext: N / 2, or fewer where they are packed sparsely."""
        return self.packed_slots or self.ring_dimension // 2

    @property
    def max_level(self) -> int:
        """Rescales that a fresh ciphertext at the top of the chain can take."""
        return len(self.modulus_bits) - 1

    @property
    def log_qp(self) -> int:
        """Bits of the whole modulus, special primes included: what security is judged by."""
        return sum(self.modulus_bits) + sum(self.special_bits)

    @property
    def security_bits(self) -> int:
        """256, 192 or 128 by the table, or 0 if below 128 bits (INSECURE)."""
        return security_bits(self.ring_dimension, self.log_qp)

    @property
    def insecure(self) -> bool:
        """True if every output must say INSECURE."""
        return self.security_bits < MINIMUM_SECURITY

    def to_dict(self) -> dict[str, object]:
        """JSON-able form; `from_dict` is its inverse."""
        return {
            "ring_dimension": self.ring_dimension,
            "modulus_bits": list(self.modulus_bits),
            "special_bits": list(self.special_bits),
            "scale_bits": self.scale_bits,
            "allow_insecure": self.allow_insecure,
            "packed_slots": self.packed_slots,
            "bootstrap": None if self.bootstrap is None else list(self.bootstrap),
        }

    @staticmethod
    def from_dict(data: dict[str, object]) -> CkksParams:
        """Parameters from untrusted plain data; ParameterError if anything is missing or of another type."""
        try:
            return CkksParams(
                ring_dimension=_integer(data["ring_dimension"]),
                modulus_bits=tuple(_integer(b) for b in _sequence(data["modulus_bits"])),
                special_bits=tuple(_integer(b) for b in _sequence(data["special_bits"])),
                scale_bits=_number(data["scale_bits"]),
                allow_insecure=bool(data["allow_insecure"]),
                packed_slots=None if data.get("packed_slots") is None else _integer(data["packed_slots"]),
                bootstrap=None if data.get("bootstrap") is None else _pair(data["bootstrap"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ParameterError(f"parameters cannot be read: {error!r}") from None


@dataclass(frozen=True)
class Resolved:
    """Parameters with a backend's actual primes: what scales are computed from and keys are made for."""

    params: CkksParams
    backend: str
    primes: tuple[int, ...]  # of the chain, first to last; level l uses primes[: l + 1]
    special_primes: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.primes) != len(self.params.modulus_bits):
            raise ParameterError(
                f"{self.backend} resolved {len(self.primes)} primes for {len(self.params.modulus_bits)}"
            )

    @property
    def slots(self) -> int:
        return self.params.slots

    @property
    def max_level(self) -> int:
        return self.params.max_level

    @property
    def digest(self) -> bytes:
        """16 bytes that identify backend, ring dimension, packing and primes; part of every envelope."""
        asked = self.params
        fields = [self.backend, asked.ring_dimension, list(self.primes), list(self.special_primes)]
        fields += [asked.packed_slots, None if asked.bootstrap is None else list(asked.bootstrap)]
        return hashlib.sha256(msgpack.packb(fields)).digest()[:16]

    def log_modulus(self, level: int) -> float:
        """log2 of the ciphertext modulus at a level."""
        return sum(math.log2(q) for q in self.primes[: level + 1])


def max_log_qp(ring_dimension: int, security: int = MINIMUM_SECURITY) -> int:
    """Largest secure log2(QP), in bits. ParameterError if the table has no such ring dimension."""
    try:
        return SECURITY_TABLE[security][ring_dimension]
    except KeyError:
        raise ParameterError(f"no security table for {security} bits at ring dimension {ring_dimension}") from None


def security_bits(ring_dimension: int, log_qp: int) -> int:
    """The highest security in the table (256, 192, 128) that log2(QP) still has, or 0."""
    for bits in sorted(SECURITY_TABLE, reverse=True):
        if log_qp <= SECURITY_TABLE[bits].get(ring_dimension, -1):
            return bits
    return 0


def choose(
    depth: int, scale_bits: int, slots: int, *, special_bits: int = 60, allow_insecure: bool = False
) -> CkksParams:
    """The smallest ring dimension at 128 bits for a plain chain: one prime of `scale_bits` a level.

    Parameters
    ----------
    depth : rescales wanted, at least 0.
    scale_bits : precision of the scale and of each rescaling prime, in bits (20 to 60).
    slots : slots wanted, at least 1.

    Use `hefw.core.plan` for a program: it places rescales by cost and needs fewer primes.
    """
    if depth < 0 or slots < 1:
        raise ParameterError(f"depth {depth} and slots {slots} must be at least 0 and 1")
    first = min(MAXIMUM_PRIME_BITS, scale_bits + 12)
    bits = (first, *([scale_bits] * depth))
    for ring_dimension in RING_DIMENSIONS:
        if ring_dimension // 2 < slots:
            continue
        if sum(bits) + special_bits <= max_log_qp(ring_dimension) or allow_insecure:
            return CkksParams(ring_dimension, bits, (special_bits,), float(scale_bits), allow_insecure)
    raise ParameterError(
        f"depth {depth} at scale 2^{scale_bits} with {slots} slots needs log2(QP) = {sum(bits) + special_bits}; at "
        f"most {max_log_qp(RING_DIMENSIONS[-1])} is secure. Lower the depth or the scale, or refresh on the way."
    )


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is not an integer")
    return value


def _pair(value: object) -> tuple[int, int]:
    first, second = (_integer(item) for item in _sequence(value))
    return first, second


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError(f"{value!r} is not a finite number")
    return float(value)


def _sequence(value: object) -> list[object]:
    if not isinstance(value, (list, tuple)) or len(value) > 64:
        raise TypeError(f"{value!r} is not a list of at most 64 numbers")
    return list(value)
