"""Bootstrapping: its parameters, what it takes and gives, and the keys of the sparse encapsulation.

Sparse-secret encapsulation (Bossuat et al. 2022, eprint 2022/024): the modulus is raised under a sparse secret, which
two keys lead to and back from; everything else is under the uniform ternary one.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hefw.backends.openfhe import cache, keymap
from hefw.backends.openfhe.library import openfhe
from hefw.core.backend import Bootstrapping
from hefw.core.params import Resolved

if TYPE_CHECKING:
    from hefw.backends.openfhe.context import Context

FIRST_BITS, SCALING_BITS = 60, 59  # a large scale is three orders more precise than one of 45 bits
LEVEL_BUDGET = 3  # of CoeffsToSlots and of SlotsToCoeffs
LEAST_SLOTS = 8
#: OpenFHE's check does not look at the sparse secret: 32 nonzero entries under a modulus of two primes. These are the
#: ring dimensions for which the paper has it at 128 bits, and larger.
SECURE_RING_DIMENSIONS = (65536, 131072)
SMALLEST_INSECURE_RING = 2048
MOST_SPECIAL_PRIMES = 8
LEVEL_IN = 1  # one prime is dropped when the message is scaled down before the modulus is raised
MAGNITUDE_BITS = 2
#: Standard deviation of one real number, measured at ring dimension 65536 with values up to 3.5: 7e-6 for 512 slots,
#: 1.3e-5 for 8192, 2.7e-5 for 32768. Smaller rings have less.
LEAST_ERROR, ERROR_BY_ROOT_OF_SLOTS = 7e-6, 1.5e-7

#: Of each chain and number of slots, the level budget that OpenFHE is set up for, and whether its matrices are encoded.
_prepared: dict[tuple[tuple[int, ...], int], tuple[tuple[int, int], bool]] = {}


def depth(budget: tuple[int, int]) -> int:
    """Levels that bootstrapping takes."""
    return int(openfhe.CryptoContext.GetBootstrapDepth(list(budget), openfhe.SPARSE_ENCAPSULATED))


@lru_cache(maxsize=64)
def promised(params: Resolved) -> Bootstrapping:
    """What bootstrapping takes and gives under these parameters."""
    asked = params.params
    assert asked.bootstrap is not None
    bits = asked.modulus_bits[1]
    return Bootstrapping(
        level_in=LEVEL_IN,
        level_out=params.max_level - depth(asked.bootstrap),
        scale=math.ldexp(1.0, bits - MAGNITUDE_BITS),
        magnitude=math.ldexp(1.0, MAGNITUDE_BITS),
        error=max(LEAST_ERROR, ERROR_BY_ROOT_OF_SLOTS * math.sqrt(params.slots)) * 2.0 ** (SCALING_BITS - bits),
        rotations=rotations(asked.ring_dimension, params.slots, asked.bootstrap),
    )


@lru_cache(maxsize=64)
def rotations(ring_dimension: int, slots: int, budget: tuple[int, int]) -> tuple[int, ...]:
    """The steps whose keys bootstrapping uses, from the keys that OpenFHE makes under the smallest modulus there is."""
    asked = openfhe.CCParamsCKKSRNS()
    asked.SetRingDim(ring_dimension)
    asked.SetMultiplicativeDepth(1)
    asked.SetFirstModSize(30)
    asked.SetScalingModSize(29)
    asked.SetScalingTechnique(openfhe.FIXEDMANUAL)
    asked.SetNumLargeDigits(1)
    asked.SetBatchSize(slots)
    asked.SetSecurityLevel(openfhe.HEStd_NotSet)
    shallow = openfhe.GenCryptoContext(asked)
    for feature in (openfhe.PKE, openfhe.KEYSWITCH, openfhe.LEVELEDSHE, openfhe.ADVANCEDSHE, openfhe.FHE):
        shallow.Enable(feature)
    shallow.EvalBootstrapSetup(list(budget), [0, 0], slots, 0, False)
    secret = shallow.KeyGen().secretKey  # of nothing: thrown away
    try:
        shallow.EvalBootstrapKeyGen(secret, slots)
        made = set(shallow.GetExistingEvalAutomorphismKeyIndices(secret.GetKeyTag()))
    finally:
        cache.forget(secret.GetKeyTag())
    steps, power = [], 1
    for step in range(ring_dimension // 2):
        if power in made:
            steps.append(step)
        power = power * 5 % (2 * ring_dimension)
    return tuple(steps)


def prepare(context: Context, *, matrices: bool) -> None:
    """Set OpenFHE up for bootstrapping; with `matrices`, encode those of CoeffsToSlots and SlotsToCoeffs too."""
    params = context.params
    budget, key = params.params.bootstrap, (params.primes, params.slots)
    assert budget is not None
    if _prepared.get(key) in ((budget, True), (budget, matrices)):
        return
    context.openfhe.EvalBootstrapSetup(list(budget), [0, 0], params.slots, 0, matrices)
    _prepared[key] = (budget, matrices)


def give_back(made: Any, primes: tuple[int, ...], slots: int) -> None:
    """Drop what `prepare` encoded: gigabytes at large rings."""
    if _prepared.pop((primes, slots), None) is not None:
        made.ClearBootstrapPrecom()


def special_index(ring_dimension: int) -> int:
    """The first of the two even numbers under which OpenFHE keeps the keys of the sparse encapsulation."""
    return 2 * ring_dimension - 4


def special_keys(context: Context, secret: Any) -> bytes:
    """The two keys of the sparse encapsulation as a serialised map.

    OpenFHE makes them only along with all rotation keys, gigabytes at once, save those that are there already: so it
    is told that they are there, by null pointers, which are then cut out.
    """
    prepare(context, matrices=False)
    order = 2 * context.ring_dimension
    powers = sorted({pow(5, step, order) for step in promised(context.params).rotations})
    conjugation = order - 1
    told = openfhe.DeserializeEvalKeyMapString(keymap.of_nulls([*powers, conjugation]), openfhe.BINARY)
    tag = secret.GetKeyTag()
    with cache.LOCK:
        try:
            cache.insert(tag, told)
            context.openfhe.EvalBootstrapKeyGen(secret, context.slots)
            keys = openfhe.Serialize(context.openfhe.GetEvalAutomorphismKeyMap(tag), openfhe.BINARY)
        finally:
            cache.forget(tag)
    return keymap.cut(keys, before=len(powers), keys=2, after=1)
