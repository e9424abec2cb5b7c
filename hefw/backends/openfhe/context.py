"""What both sides share: OpenFHE's context, its primes, encoding, and bytes in and out."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from hefw.backends.openfhe import cache
from hefw.backends.openfhe.library import openfhe
from hefw.backends.openfhe.residues import Residues, Structure, pack, split, unpack
from hefw.core.errors import EncodingError, EnvelopeError, ParameterError
from hefw.core.params import CkksParams, Resolved

LARGEST_SCALING_BITS = 59  # OpenFHE takes primes on both sides of 2^bits, and none above 2^60
SPECIAL_BITS = 60
MARGIN_BITS = 4  # by which the special primes exceed a digit
FEATURES = (openfhe.PKE, openfhe.KEYSWITCH, openfhe.LEVELEDSHE, openfhe.ADVANCEDSHE)
#: What a constant's integer must stay below for OpenFHE to multiply residues by it.
LARGEST_INTEGER = 2**63
_PARTS = struct.Struct(">B")
_INDEX = struct.Struct(">I")
_MAP_SIZE = 8  # OpenFHE's number of keys in a map, then each key's index
_MAP_INDEX = 4

_contexts: WeakValueDictionary[Resolved, Context] = WeakValueDictionary()


def context(params: Resolved) -> Context:
    """The context of these parameters: one for all in this process, as long as somebody uses it."""
    found = _contexts.get(params)
    if found is None:
        found = _contexts[params] = Context(params)
    return found


class Context:
    """An OpenFHE context, and the structure of what it serialises.

    hefw keeps scales exactly and OpenFHE only knows one, `nominal`: a value v at scale s is given to OpenFHE as
    v * s / nominal, and every ciphertext is said to have that one scale (degree 1).
    """

    def __init__(self, params: Resolved) -> None:
        self.params = params
        self.ring_dimension = params.params.ring_dimension
        self.slots = params.slots
        self.openfhe, found = make(params.params)
        self.nominal = math.ldexp(1.0, scaling_bits(params.params))
        # Zeros under a key that is thrown away at once: only the bytes around its residues are of use.
        self._sample = encrypt_sample(self.openfhe)
        if found != (*params.primes, *params.special_primes):
            raise ParameterError(f"OpenFHE has other primes than {params.primes} here; both parties need its version")
        self._ciphertexts: dict[int, tuple[Structure, Any]] = {}

    # -- plaintexts --------------------------------------------------------------------------------------------------

    def encode(self, values: NDArray[Any] | float, level: int, scale: float) -> Any:
        """An OpenFHE plaintext of (slots,) values, or the integer that stands for one constant."""
        if isinstance(values, float):
            return round(values * scale)
        try:
            return self._plaintext(values * (scale / self.nominal), level)
        except RuntimeError as error:
            if "too small" in str(error):  # nothing of it would be left after rounding to integers
                return self._plaintext(np.zeros(self.slots), level)
            raise EncodingError(f"values at scale {scale:g} cannot be encoded by OpenFHE: {reason(error)}") from None

    def _plaintext(self, values: NDArray[Any], level: int) -> Any:
        return self.openfhe.MakeCKKSPackedPlaintext(values, 1, self.params.max_level - level, None, self.slots)

    # -- ciphertexts -------------------------------------------------------------------------------------------------

    def dump(self, ciphertext: Any, level: int, parts: int) -> bytes:
        """The number of parts and their residues; as long as the level and the parts say, whatever it holds."""
        structure, blocks = split(openfhe.Serialize(ciphertext, openfhe.BINARY), self.ring_dimension)
        expected = self.params.primes[: level + 1] * parts
        if structure.primes != expected:
            raise EnvelopeError(f"OpenFHE serialised {len(structure.primes)} residues where {len(expected)} belong")
        return _PARTS.pack(parts) + pack(blocks, expected)

    def load(self, payload: bytes, level: int, tag: str) -> Any:
        """A ciphertext of two parts from its residues, with the tag of who loads it."""
        if not payload or payload[0] != 2:
            parts = payload[0] if payload else 0
            raise EnvelopeError(f"a ciphertext of {parts} parts was sent; relinearise it before, 2 parts are taken")
        expected = self.params.primes[: level + 1] * 2
        blocks = unpack(f"ciphertext of level {level}", memoryview(payload)[1:], expected, self.ring_dimension)
        structure, empty = self._ciphertext(level)
        read = openfhe.DeserializeCiphertextString(structure.fill(blocks), openfhe.BINARY)
        # Into a ciphertext that OpenFHE made itself: one that it read compares whole contexts in every operation.
        ciphertext = empty.CloneEmpty()
        ciphertext.SetElementsMove(read.GetElementsMutable())
        ciphertext.SetKeyTag(tag)
        return ciphertext

    def _ciphertext(self, level: int) -> tuple[Structure, Any]:
        if level not in self._ciphertexts:
            below = self.params.max_level - level
            sample = self.openfhe.LevelReduce(self._sample, None, below) if below else self._sample
            structure, _ = split(openfhe.Serialize(sample, openfhe.BINARY), self.ring_dimension)
            self._ciphertexts[level] = structure, sample.CloneEmpty()
        return self._ciphertexts[level]

    # -- keys --------------------------------------------------------------------------------------------------------

    def automorphism(self, name: str) -> int:
        """The power of X that stands for 'conjugation' or 'rotation/STEP'."""
        kind, _, step = name.partition("/")
        return 2 * self.ring_dimension - 1 if kind == "conjugation" else pow(5, int(step), 2 * self.ring_dimension)

    def dump_key(self, serialised: bytes, index: int) -> bytes:
        """Which automorphism it is for (0: relinearisation), and the residues of a serialised key or map of keys."""
        structure, blocks = split(serialised, self.ring_dimension)
        return _INDEX.pack(index) + pack(blocks, structure.primes)

    def key_residues(self, name: str, payload: bytes, index: int, expected: tuple[int, ...]) -> list[Residues]:
        """The residues of `dump_key`; EnvelopeError if they are of another key."""
        if len(payload) < _INDEX.size or _INDEX.unpack_from(payload) != (index,):
            raise EnvelopeError(f"the bytes sent as {name!r} hold another key")
        return unpack(f"{name} key", memoryview(payload)[_INDEX.size :], expected, self.ring_dimension)

    def load_relinearisation(self, payload: bytes, tag: str) -> Any:
        """An OpenFHE key from its residues."""
        structure, _ = self._keys
        blocks = self.key_residues("relinearisation", payload, 0, structure.primes)
        key = openfhe.DeserializeEvalKeyString(structure.fill(blocks), openfhe.BINARY)
        key.SetKeyTag(tag)
        return key

    def load_automorphism(self, name: str, payload: bytes) -> Any:
        """A map with one OpenFHE key from its residues."""
        _, structure = self._keys
        index = self.automorphism(name)
        blocks = self.key_residues(name, payload, index, structure.primes)
        head, place = structure.gaps[0], len(empty_map()) + _MAP_SIZE
        head = head[:place] + index.to_bytes(_MAP_INDEX, "little") + head[place + _MAP_INDEX :]
        structure = replace(structure, gaps=(head, *structure.gaps[1:]))
        return openfhe.DeserializeEvalKeyMapString(structure.fill(blocks), openfhe.BINARY)

    @cached_property
    def _keys(self) -> tuple[Structure, Structure]:
        """How one key, and a map with one key, are serialised: learned from a secret that is thrown away at once."""
        made = self.openfhe.KeyGen().secretKey
        one = openfhe.Serialize(self.openfhe.KeySwitchGen(made, made), openfhe.BINARY)
        single, _ = split(one, self.ring_dimension)
        try:
            keys = self.openfhe.EvalAutomorphismKeyGen(made, [self.automorphism("rotation/1")])
        finally:
            cache.forget(made.GetKeyTag())
        several, _ = split(openfhe.Serialize(keys, openfhe.BINARY), self.ring_dimension)
        return single, several


def empty_map() -> bytes:
    """How a map of keys starts, up to the number of its keys."""
    start: bytes = openfhe.Serialize(openfhe.EvalKeyMap(), openfhe.BINARY)
    return start[:-_MAP_SIZE]


def scaling_bits(params: CkksParams) -> int:
    """Bits of the primes after the first, which are also OpenFHE's scale."""
    return params.modulus_bits[1] if len(params.modulus_bits) > 1 else min(params.modulus_bits[0], LARGEST_SCALING_BITS)


def towers(params: CkksParams, special: int) -> int:
    """Most primes of the chain in one digit of a key switch: with four bits to spare it must fit the special primes."""
    room = SPECIAL_BITS * special - MARGIN_BITS - params.modulus_bits[0]
    return min(room // scaling_bits(params) + 1, len(params.modulus_bits)) if room >= 0 else 0


def resolve(params: CkksParams, backend: str) -> Resolved:
    """OpenFHE's primes for these sizes; ParameterError if it takes other sizes, or finds them insecure."""
    _, found = make(params)
    count = len(params.modulus_bits)
    return Resolved(params, backend, found[:count], found[count:])


@lru_cache(maxsize=256)
def make(params: CkksParams) -> tuple[Any, tuple[int, ...]]:
    """OpenFHE's context and primes: of the chain, then special ones, in as few digits as they allow."""
    _check_sizes(params)
    count, special = len(params.modulus_bits), len(params.special_bits)
    for most in range(towers(params, special), 0, -1):
        digits = math.ceil(count / most)
        if math.ceil(count / digits) < most:
            continue  # another split into as many digits
        made = _generate(params, digits)
        found = primes(encrypt_sample(made), params.ring_dimension)
        if len(found) == count + special:
            return made, found
    counts = range(1, 2 * count + 2)
    possible = [k for k in counts if towers(params, k) and towers(params, k) > towers(params, k - 1)]
    raise ParameterError(
        f"OpenFHE has no key switch with {special} special primes for {count} primes of {params.modulus_bits[0]} and "
        f"{scaling_bits(params)} bits; ask for one of {possible} special primes, or for smaller primes"
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
    if any(bits != SPECIAL_BITS for bits in params.special_bits):
        raise ParameterError(
            f"OpenFHE's special primes have {SPECIAL_BITS} bits, not {list(params.special_bits)}; ask for that"
        )


def _generate(params: CkksParams, digits: int) -> Any:
    asked = openfhe.CCParamsCKKSRNS()
    asked.SetRingDim(params.ring_dimension)
    asked.SetMultiplicativeDepth(params.max_level)
    asked.SetFirstModSize(params.modulus_bits[0])
    asked.SetScalingModSize(scaling_bits(params))
    asked.SetScalingTechnique(openfhe.FIXEDMANUAL)
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


def primes(sample: Any, ring_dimension: int) -> tuple[int, ...]:
    """The primes of the chain and then the special ones, read from a ciphertext that is lifted to all of them."""
    lifted = sample.GetCryptoContext().KeySwitchExt(sample, True)
    structure, _ = split(openfhe.Serialize(lifted, openfhe.BINARY), ring_dimension)
    return structure.primes[: len(structure.primes) // 2]  # the same for each of both parts


def reason(error: RuntimeError) -> str:
    """OpenFHE's message without the place in its source."""
    return str(error).strip().rpartition("(): ")[2].rstrip(". ").splitlines()[0]
