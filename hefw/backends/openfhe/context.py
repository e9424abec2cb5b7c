"""What both sides share: OpenFHE's context, its primes, encoding, and bytes in and out."""

from __future__ import annotations

import math
import struct
import weakref
from dataclasses import replace
from functools import cached_property
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.backends.openfhe import bootstrap, cache, keymap
from hefw.backends.openfhe.chain import encrypt_sample, make, scaling_bits
from hefw.backends.openfhe.library import openfhe, reason
from hefw.backends.openfhe.memory import Number
from hefw.backends.openfhe.residues import Structure, split
from hefw.backends.packing import Residues, pack, unpack
from hefw.core.errors import EncodingError, EnvelopeError, ParameterError
from hefw.core.params import Resolved

#: What a constant's integer must stay below for OpenFHE to multiply residues by it.
LARGEST_INTEGER = 2**63
_PARTS = struct.Struct(">B")
_INDEX = struct.Struct(">I")

_contexts: weakref.WeakValueDictionary[Resolved, Context] = weakref.WeakValueDictionary()


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
        self.sample = encrypt_sample(self.openfhe)
        self.tag = self.sample.GetKeyTag()  # of all ciphertexts, save while keys are looked for under another
        if found != (*params.primes, *params.special_primes):
            raise ParameterError(f"OpenFHE has other primes than {params.primes} here; both parties need its version")
        self._ciphertexts: dict[int, tuple[Structure, Any]] = {}
        self._blanks: dict[tuple[int, int], Any] = {}
        self._centres: dict[int, Any] = {}
        weakref.finalize(self, bootstrap.give_back, self.openfhe, params.primes, params.slots).atexit = False

    # -- plaintexts --------------------------------------------------------------------------------------------------

    def encode(self, values: NDArray[Any] | float, level: int, scale: float) -> Any:
        """An OpenFHE plaintext of (slots,) values, or the Number that stands for one constant."""
        if isinstance(values, float):
            return Number(round(values * scale))
        try:
            return self._plaintext(values * (scale / self.nominal), level)
        except RuntimeError as error:
            if "too small" in str(error):  # nothing of it would be left after rounding to integers
                return self._plaintext(np.zeros(self.slots), level)
            raise EncodingError(f"values at scale {scale:g} cannot be encoded by OpenFHE: {reason(error)}") from None

    def _plaintext(self, values: NDArray[Any], level: int) -> Any:
        return self.openfhe.MakeCKKSPackedPlaintext(values, 1, self.params.max_level - level, None, self.slots)

    def split(self, serialised: bytes) -> tuple[Structure, list[Residues]]:
        """A serialised object of these parameters, and its residues."""
        return split(serialised, self.ring_dimension, (*self.params.primes, *self.params.special_primes))

    # -- ciphertexts -------------------------------------------------------------------------------------------------

    def dump(self, ciphertext: Any, level: int, parts: int) -> bytes:
        """The number of parts and their residues; as long as the level and the parts say, whatever it holds."""
        structure, blocks = self.split(openfhe.Serialize(ciphertext, openfhe.BINARY))
        expected = self.params.primes[: level + 1] * parts
        if structure.primes != expected:
            raise EnvelopeError(f"OpenFHE serialised {len(structure.primes)} residues where {len(expected)} belong")
        return _PARTS.pack(parts) + pack(blocks, expected)

    def load(self, payload: bytes, level: int) -> Any:
        """A ciphertext of two parts from its residues."""
        if not payload or payload[0] != 2:
            parts = payload[0] if payload else 0
            raise EnvelopeError(f"a ciphertext of {parts} parts was sent; relinearise it before, 2 parts are taken")
        expected = self.params.primes[: level + 1] * 2
        blocks = unpack(f"ciphertext of level {level}", memoryview(payload)[1:], expected, self.ring_dimension)
        structure, empty = self._ciphertext(level)
        return self._read(structure.fill(blocks), empty)

    @staticmethod
    def _read(serialised: bytes, empty: Any) -> Any:
        """What OpenFHE reads, in a ciphertext that it made itself: those that it reads are ten times slower to use."""
        read = openfhe.DeserializeCiphertextString(serialised, openfhe.BINARY)
        ciphertext = empty.CloneEmpty()
        ciphertext.SetElementsMove(read.GetElementsMutable())
        return ciphertext

    def _ciphertext(self, level: int) -> tuple[Structure, Any]:
        if level not in self._ciphertexts:
            below = self.params.max_level - level
            sample = self.openfhe.LevelReduce(self.sample, None, below) if below else self.sample
            structure, _ = self.split(openfhe.Serialize(sample, openfhe.BINARY))
            self._ciphertexts[level] = structure, sample.CloneEmpty()
        return self._ciphertexts[level]

    def blank(self, level: int, parts: int) -> Any:
        """A ciphertext with room for residues, which are some."""
        if (level, parts) not in self._blanks:
            structure, empty = self._ciphertext(level)
            made = self._read(structure.fill([np.zeros(self.ring_dimension, np.uint64)] * 2 * (level + 1)), empty)
            self._blanks[level, parts] = made if parts == 2 else self.openfhe.EvalMultNoRelin(made, made)
        return self._blanks[level, parts].Clone()

    def centre(self, level: int) -> Any:
        """What is to be added to a ciphertext after a key switch, so that its error has no mean; None for one prime P.

        OpenFHE's division by k special primes leaves, in each coefficient, the sum of k errors that are uniform in
        [0, 1) instead of centred. Their mean k / 2 times the sum of all powers of X would come out of the secret's
        multiples as an error that depends on the key alone, and is large in the few slots near the root 1. For an odd
        k, a half of it stays.
        """
        mean = len(self.params.special_primes) // 2
        if mean == 0:
            return None
        if level not in self._centres:
            n = self.ring_dimension
            exponents = np.array([pow(5, slot, 2 * n) for slot in range(n // 2)])
            every_power = 2 / (1 - np.exp(1j * np.pi * exponents / n))  # the sum of X^0 .. X^(N - 1) in the slots
            below = self.params.max_level - level
            plaintext = self.openfhe.MakeCKKSPackedPlaintext(mean / self.nominal * every_power, 1, below, None, n // 2)
            structure, empty = self._ciphertext(level)
            zeros = [np.zeros(n, np.uint64)] * len(structure.primes)
            blank = self._read(structure.fill(zeros), empty)
            _, blocks = self.split(openfhe.Serialize(self.openfhe.EvalAdd(blank, plaintext), openfhe.BINARY))
            first = blocks[: level + 1]
            self._centres[level] = self._read(structure.fill([*first, *first]), empty)
        return self._centres[level]

    # -- keys --------------------------------------------------------------------------------------------------------

    def automorphism(self, name: str) -> int:
        """The power of X that stands for 'conjugation' or 'rotation/STEP'."""
        kind, _, step = name.partition("/")
        return 2 * self.ring_dimension - 1 if kind == "conjugation" else pow(5, int(step), 2 * self.ring_dimension)

    def dump_key(self, serialised: bytes, index: int, level: int) -> bytes:
        """Which automorphism it is for (0: relinearisation), and the residues of a serialised key or map of keys.

        Of a key that serves ciphertexts up to a level only, what they do not meet is left out.
        """
        special = self.params.params.bootstrap is not None and index == bootstrap.special_index(self.ring_dimension)
        known = self._special_keys.primes if special else (*self.params.primes, *self.params.special_primes)
        structure, blocks = split(serialised, self.ring_dimension, known)
        met = self._met(len(blocks), level)
        return _INDEX.pack(index) + pack(compress(blocks, met), list(compress(structure.primes, met)))

    def _met(self, blocks: int, level: int) -> list[bool]:
        """Which residues of keys take part in key switches at a level: those of its digits, its primes and P.

        A key has two parts, each with a polynomial a digit, each with residues modulo all primes.
        """
        if level == self.params.max_level:
            return [True] * blocks
        count, special = len(self.params.primes), len(self.params.special_primes)
        digits = self._digits
        used = -(-(level + 1) // -(-count // digits))
        places = [tower <= level or tower >= count for tower in range(count + special)]
        one = [met and digit < used for digit in range(digits) for met in places]
        return one * (blocks // len(one))

    @cached_property
    def _digits(self) -> int:
        structure, _ = self._keys
        return len(structure.primes) // (2 * (len(self.params.primes) + len(self.params.special_primes)))

    def _key_residues(
        self, name: str, payload: bytes, index: int, primes: tuple[int, ...], level: int
    ) -> list[Residues | None]:
        """The residues of `dump_key`, None where they were left out; EnvelopeError if they are of another key."""
        if len(payload) < _INDEX.size or _INDEX.unpack_from(payload) != (index,):
            raise EnvelopeError(f"the bytes sent as {name!r} hold another key")
        met = self._met(len(primes), level)
        expected = list(compress(primes, met))
        found = iter(unpack(f"{name} key", memoryview(payload)[_INDEX.size :], expected, self.ring_dimension))
        return [next(found) if there else None for there in met]

    def load_relinearisation(self, payload: bytes, tag: str) -> Any:
        """An OpenFHE key from its residues."""
        structure, _ = self._keys
        blocks = self._key_residues("relinearisation", payload, 0, structure.primes, self.params.max_level)
        key = openfhe.DeserializeEvalKeyString(structure.fill(blocks), openfhe.BINARY)
        key.SetKeyTag(tag)
        return key

    def load_automorphism(self, name: str, payload: bytes, level: int) -> Any:
        """A map with one OpenFHE key, which serves ciphertexts up to a level, from its residues."""
        _, structure = self._keys
        index = self.automorphism(name)
        blocks = self._key_residues(name, payload, index, structure.primes, level)
        first, *rest = structure.gaps
        structure = replace(structure, gaps=(keymap.with_index(first, index), *rest))
        return openfhe.DeserializeEvalKeyMapString(structure.fill(blocks), openfhe.BINARY)

    def load_bootstrap(self, payload: bytes) -> Any:
        """A map with the two keys of the sparse encapsulation from their residues."""
        if self.params.params.bootstrap is None:
            raise EnvelopeError("a key for bootstrapping was sent, which these parameters have not")
        structure = self._special_keys
        index = bootstrap.special_index(self.ring_dimension)
        blocks = self._key_residues("bootstrap", payload, index, structure.primes, self.params.max_level)
        return openfhe.DeserializeEvalKeyMapString(structure.fill(blocks), openfhe.BINARY)

    @cached_property
    def _special_keys(self) -> Structure:
        # Their modulus is one of their own: primes that the parameters do not name.
        structure, _ = split(bootstrap.special_keys(self, self.openfhe.KeyGen().secretKey), self.ring_dimension)
        return structure

    @cached_property
    def _keys(self) -> tuple[Structure, Structure]:
        """How one key, and a map with one key, are serialised: learned from a secret that is thrown away at once."""
        made = self.openfhe.KeyGen().secretKey
        one = openfhe.Serialize(self.openfhe.KeySwitchGen(made, made), openfhe.BINARY)
        single, _ = self.split(one)
        try:
            keys = self.openfhe.EvalAutomorphismKeyGen(made, [self.automorphism("rotation/1")])
        finally:
            cache.forget(made.GetKeyTag())
        several, _ = self.split(openfhe.Serialize(keys, openfhe.BINARY))
        return single, several
