"""Which modulus chains OpenFHE takes, and the contexts that it makes for them."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from hefw.backends.openfhe import bootstrap
from hefw.backends.openfhe.library import openfhe, reason
from hefw.backends.openfhe.memory import HIDDEN, layout
from hefw.backends.openfhe.residues import split
from hefw.backends.openfhe.sizes import MOST_SPECIAL, SPECIAL_BITS, own_calls
from hefw.backends.primes import chain
from hefw.backends.rns.loops import missing
from hefw.core.errors import ParameterError
from hefw.core.params import CkksParams, Resolved

LARGEST_SCALING_BITS = 59  # OpenFHE takes primes on both sides of 2^bits, and none above 2^60
MARGIN_BITS = 4  # by which the special primes must exceed a digit
FEATURES = (openfhe.PKE, openfhe.KEYSWITCH, openfhe.LEVELEDSHE, openfhe.ADVANCEDSHE)


def scaling_bits(params: CkksParams) -> int:
    """Bits of the primes after the first, which are also OpenFHE's scale."""
    return params.modulus_bits[1] if len(params.modulus_bits) > 1 else min(params.modulus_bits[0], LARGEST_SCALING_BITS)


def special_primes(params: CkksParams, digits: int) -> range:
    """How many special primes OpenFHE takes for so many digits of a key switch; empty if it cannot split so.

    They must exceed the largest digit by four bits, and a digit may have one bit more than its primes were asked for.
    """
    count = len(params.modulus_bits)
    most = math.ceil(count / digits)
    if most * (digits - 1) >= count:
        return range(0)
    bits = params.modulus_bits[0] + (most - 1) * scaling_bits(params) + MARGIN_BITS
    return range(math.ceil(bits / SPECIAL_BITS), math.ceil((bits + 1) / SPECIAL_BITS) + 1)


def resolve(params: CkksParams, backend: str) -> Resolved:
    """OpenFHE's primes for these sizes; ParameterError if it takes other sizes, or finds them insecure."""
    _, found = make(params)
    count = len(params.modulus_bits)
    return Resolved(params, backend, found[:count], found[count:])


@lru_cache(maxsize=256)
def make(params: CkksParams) -> tuple[Any, tuple[int, ...]]:
    """OpenFHE's context and primes: of the chain, then special ones, in as few digits as they allow."""
    _check_sizes(params)
    if not own_calls(params):
        return _for_loops(params)
    if params.bootstrap is not None:
        _check_bootstrap(params, params.bootstrap)
    count, special = len(params.modulus_bits), len(params.special_bits)
    possible = {digits: special_primes(params, digits) for digits in range(1, count + 1)}
    for digits in (digits for digits, numbers in possible.items() if special in numbers):
        made = _generate(params, digits)
        found = _all_primes(encrypt_sample(made), params.ring_dimension)
        if len(found) == count + special:
            return made, found
    raise ParameterError(
        f"OpenFHE has no key switch with {special} special primes for {count} primes of {params.modulus_bits[0]} and "
        f"{scaling_bits(params)} bits; ask for one of {sorted({n[0] for n in possible.values() if n})} special primes, "
        "or for smaller primes"
    )


def _check_sizes(params: CkksParams) -> None:
    first, *rest = params.modulus_bits
    if any(bits != rest[0] for bits in rest):
        raise ParameterError(
            f"OpenFHE has one size for all primes after the first, not {rest}; give them the same number of bits"
        )
    if rest and (rest[0] > LARGEST_SCALING_BITS or first < rest[0]):
        raise ParameterError(
            f"OpenFHE's primes after the first have at most {LARGEST_SCALING_BITS} bits, and no more than the first; "
            f"{rest[0]} bits were asked for, after a first of {first}"
        )


def _for_loops(params: CkksParams) -> tuple[Any, tuple[int, ...]]:
    """OpenFHE's context without a key switch of its own, its primes, and special ones that are hefw's choice."""
    given = list(params.special_bits)
    if params.bootstrap is not None:
        raise ParameterError(
            f"bootstrapping is by OpenFHE's own special primes of {SPECIAL_BITS} bits, not {given}; ask for that"
        )
    if len(given) > MOST_SPECIAL or min(given) < max(params.modulus_bits):
        raise ParameterError(
            f"special primes of {given} bits are not allowed: at most {MOST_SPECIAL}, each of as many bits as the "
            f"largest other one ({max(params.modulus_bits)}); or of {SPECIAL_BITS} bits, which are OpenFHE's own"
        )
    reason = HIDDEN if layout() is None else missing()
    if reason is not None:
        raise ParameterError(
            f"special primes of {given} bits need compiled loops, which cannot be used here ({reason}); ask for "
            f"{SPECIAL_BITS} bits, which are OpenFHE's own, or set the backend's option loops to false"
        )
    made = _generate(params, None)
    structure, _ = split(openfhe.Serialize(encrypt_sample(made), openfhe.BINARY), params.ring_dimension)
    found = structure.primes[: len(params.modulus_bits)]
    return made, (*found, *chain(params.ring_dimension, params.special_bits, found))


def _check_bootstrap(params: CkksParams, budget: tuple[int, int]) -> None:
    if not params.allow_insecure and params.ring_dimension not in bootstrap.SECURE_RING_DIMENSIONS:
        raise ParameterError(
            f"bootstrapping at ring dimension {params.ring_dimension} is not secure; allowed: "
            f"{', '.join(map(str, bootstrap.SECURE_RING_DIMENSIONS))}"
        )
    if max(budget) > math.log2(params.slots):
        raise ParameterError(
            f"a bootstrap level budget of {budget} is too much for {params.slots} slots; at most their logarithm, "
            f"{int(math.log2(params.slots))}, is allowed"
        )
    least = bootstrap.depth(budget) + bootstrap.LEVEL_IN
    if params.max_level < least or params.modulus_bits[0] <= scaling_bits(params):
        raise ParameterError(
            f"bootstrapping with level budget {budget} needs at least {least} levels and a first prime larger than "
            f"the others; {params.max_level} levels and primes of {params.modulus_bits[0]} and {scaling_bits(params)} "
            "bits were given; ask for bootstrap_params"
        )


def _generate(params: CkksParams, digits: int | None) -> Any:
    """Of a hybrid key switch of so many digits; None: of one that takes no special primes, and is not used."""
    asked = openfhe.CCParamsCKKSRNS()
    asked.SetRingDim(params.ring_dimension)
    asked.SetMultiplicativeDepth(params.max_level)
    asked.SetFirstModSize(params.modulus_bits[0])
    asked.SetScalingModSize(scaling_bits(params))
    asked.SetScalingTechnique(openfhe.FIXEDMANUAL)
    if digits is None:
        asked.SetKeySwitchTechnique(openfhe.BV)
    else:
        asked.SetNumLargeDigits(digits)
    asked.SetBatchSize(params.slots)
    asked.SetCKKSDataType(openfhe.COMPLEX)
    # Never SPARSE_TERNARY: OpenFHE's check judges it by the table for uniform secrets.
    secret = openfhe.UNIFORM_TERNARY if params.bootstrap is None else openfhe.SPARSE_ENCAPSULATED
    asked.SetSecretKeyDist(secret)
    asked.SetSecurityLevel(openfhe.HEStd_NotSet if params.allow_insecure else openfhe.HEStd_128_classic)
    try:
        made = openfhe.GenCryptoContext(asked)
    except RuntimeError as error:
        raise ParameterError(
            f"OpenFHE refuses primes of {list(params.modulus_bits)} + {list(params.special_bits)} bits at ring "
            f"dimension {params.ring_dimension}: {reason(error)}; use fewer or smaller primes"
        ) from None
    for feature in FEATURES if params.bootstrap is None else (*FEATURES, openfhe.FHE):
        made.Enable(feature)
    return made


def encrypt_sample(made: Any) -> Any:
    """A ciphertext of zeros at the top of the chain, under a key that nobody keeps."""
    return made.Encrypt(made.KeyGen().publicKey, made.MakeCKKSPackedPlaintext(np.zeros(made.GetBatchSize())))


def _all_primes(sample: Any, ring_dimension: int) -> tuple[int, ...]:
    """The primes of the chain and then the special ones, read from a ciphertext that is lifted to all of them."""
    lifted = sample.GetCryptoContext().KeySwitchExt(sample, True)
    structure, _ = split(openfhe.Serialize(lifted, openfhe.BINARY), ring_dimension)
    return structure.primes[: len(structure.primes) // 2]  # the same for each of both parts


def bootstrap_params(slots: int, levels: int, *, allow_insecure: bool) -> CkksParams:
    """The smallest parameters that leave `levels` after bootstrapping `slots` values; ParameterError if none do."""
    if slots < 1 or levels < 1:
        raise ParameterError(f"{slots} slots and {levels} levels must be at least 1")
    packed = max(bootstrap.LEAST_SLOTS, 1 << (slots - 1).bit_length())
    budget = (bootstrap.LEVEL_BUDGET, bootstrap.LEVEL_BUDGET)
    chain = (bootstrap.FIRST_BITS, *([bootstrap.SCALING_BITS] * (levels + bootstrap.depth(budget))))
    rings = (max(bootstrap.SMALLEST_INSECURE_RING, 2 * packed),) if allow_insecure else bootstrap.SECURE_RING_DIMENSIONS
    for ring_dimension in rings:
        for special in range(bootstrap.MOST_SPECIAL_PRIMES, 0, -1):  # the more there are, the fewer digits: faster
            try:
                asked = CkksParams(
                    ring_dimension,
                    chain,
                    (SPECIAL_BITS,) * special,
                    float(bootstrap.SCALING_BITS - bootstrap.MAGNITUDE_BITS),
                    allow_insecure,
                    packed_slots=None if 2 * packed == ring_dimension else packed,
                    bootstrap=budget,
                )
                make(asked)
            except ParameterError:
                continue
            return asked
    raise ParameterError(
        f"no ring dimension bootstraps {slots} slots with {levels} levels left at 128 bits; use fewer levels between "
        "bootstraps, or fewer slots"
    )
