"""Operations by `switching` on what SEAL holds: where its memory is found and numba is there."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import _sealapi_cpp as seal
import numpy as np

from hefw.backends.seal import RELINEARISATION, key_element
from hefw.backends.tenseal import loops
from hefw.backends.tenseal.abi import KEY_WORDS
from hefw.backends.tenseal.context import Context
from hefw.backends.tenseal.keys import KeyLoaded
from hefw.backends.tenseal.plaintexts import EXAMPLE_SCALE, Plaintexts
from hefw.backends.tenseal.residues import Residues
from hefw.backends.tenseal.switching import Fill, Key, Switching, Words, addresses, suits
from hefw.backends.tenseal.tape import Shape, Tape
from hefw.backends.tenseal.transforms import Written
from hefw.backends.tenseal.trial import switches

WORSE = "hefw goes on with SEAL's own calls, which are slower and less precise"
MISSING = (
    f"compiled loops cannot be used ({{}}): {WORSE}; hefw backends install tenseal adds numba, which compiles them"
)
HIDDEN = f"this build of TenSEAL keeps the residues of plaintexts where hefw does not find them: {WORSE}"
WRONG = f"compiled loops do not give what SEAL gives: {WORSE}"


class Native:
    """Faster ways of one evaluator, with the keys that it was given."""

    def __init__(self, context: Context, residues: Residues, switching: Switching, plaintexts: Plaintexts) -> None:
        self._context = context
        self._evaluator = seal.Evaluator(context.seal)
        self._residues = residues
        self._switching = switching
        self._plaintexts = plaintexts
        self._keys: dict[str, Key] = {}
        self._used: WeakKeyDictionary[Tape, Words] = WeakKeyDictionary()
        self._tried: set[str] = set()

    def take(self, name: str, key: KeyLoaded, example: Any) -> bool:
        """A key; whether it does with a ciphertext what SEAL does with it, or what it must where SEAL cannot use it."""
        element = key_element(name, self._context.params.params.ring_dimension)
        relinearises = element == RELINEARISATION
        self._used.clear()
        digits = [self._residues.view(digit.data()) for digit in key.digits]
        self._keys[name] = self._switching.key(digits, key.form.rows, 1 if relinearises else element)
        kind = name.partition("/")[0]
        if kind in self._tried:
            return True
        self._tried.add(kind)
        example = self._tame(example, min(key.level, int(example.coeff_modulus_size()) - 1))
        if not key.for_seal:
            return switches(self._switching, self._context.params, self._residues.view(example))
        whole = key.whole()
        self._switching.centred = False
        try:
            return self._relinearises(whole, example) if relinearises else self._turns(name, whole, element, example)
        finally:
            self._switching.centred = True

    def shared_by(self, threads: int) -> Native:
        """Itself, by so many threads."""
        self._switching.threads = threads
        return self

    def has(self, name: str) -> bool:
        """Whether a key was taken."""
        return name in self._keys

    def _relinearises(self, key: Any, example: Any) -> bool:
        square, wanted = seal.Ciphertext(), seal.Ciphertext()
        self._evaluator.square(example, square)
        self._evaluator.relinearize(square, key, wanted)
        return self._same(self.relinearise(square), wanted)

    def _turns(self, name: str, key: Any, element: int, example: Any) -> bool:
        """Of a ciphertext whose second part is one number: SEAL turns that before it takes it apart, hefw after."""
        given, wanted = self._blank(example), seal.Ciphertext()
        self._residues.view(given)[...] = self._residues.view(example)
        self._residues.view(given)[1] = self._residues.view(example)[1, :, :1]
        self._evaluator.apply_galois(given, element, key, wanted)
        return self._same(self.rotate_many(given, [name])[0], wanted)

    def agrees(self, example: Any) -> bool:
        """Whether SEAL's sums of products and rescales are found of a ciphertext."""
        evaluator, level = self._evaluator, int(example.coeff_modulus_size()) - 1
        example = self._tame(example, level)
        slots = self._context.params.slots
        weights = [self._context.encode(np.arange(slots) / slots - k, level, EXAMPLE_SCALE) for k in range(3)]
        wanted = []
        for weight in weights:
            wanted.append(seal.Ciphertext())
            evaluator.multiply_plain(example, weight, wanted[-1])
        for product in wanted[1:]:
            evaluator.add_inplace(wanted[0], product)
        (found,) = self.sums([[(example, weight) for weight in weights]])
        evaluator.square(example, wanted[2])
        if not self._same(found, wanted[0]) or not self._same(self.square(example), wanted[2]):
            return False
        if level:
            evaluator.rescale_to_next(wanted[0], wanted[1])
            return self._same(self.rescale(found), wanted[1])
        return True

    def _tame(self, a: Any, level: int) -> Any:
        """A copy at a scale that leaves room for products."""
        out = seal.Ciphertext()
        self._evaluator.mod_switch_to(a, self._context.level_ids[level], out)
        out.scale = 1.0
        return out

    def _same(self, a: Any, b: Any) -> bool:
        return np.array_equal(self._residues.view(a), self._residues.view(b))

    def rotate_many(self, a: Any, names: Sequence[str]) -> list[Any]:
        """A ciphertext turned by each of several keys."""
        outs = [self._blank(a) for _ in names]
        keys, views = [self._keys[name] for name in names], [self._residues.view(out) for out in outs]
        self._switching.rotations(self._residues.view(a), keys, views)
        return outs

    def fold(self, a: Any, names: Sequence[Sequence[str]]) -> Any:
        """A ciphertext plus itself turned by each of several keys, and that again by each of others, and so on."""
        out = self._blank(a)
        view = self._residues.view(out)
        view[...] = self._residues.view(a)
        for some in names:
            self._switching.add_rotations([self._keys[name] for name in some], view)
        return out

    def relinearise(self, a: Any) -> Any:
        """Two parts of three."""
        out = self._blank(a)
        self._switching.relinearise(self._residues.view(a), self._keys["relinearisation"], self._residues.view(out))
        return out

    def square(self, a: Any) -> Any:
        """Three parts of two."""
        out = self._residues.blank(int(a.coeff_modulus_size()) - 1, 3)
        out.scale = a.scale * a.scale
        self._switching.square(self._residues.view(a), self._residues.view(out))
        return out

    def rescale(self, a: Any) -> Any:
        """One level less; of two parts."""
        level = int(a.coeff_modulus_size()) - 2
        out = self._residues.blank(level)
        out.scale = a.scale / self._context.params.primes[level + 1]
        self._switching.rescale(self._residues.view(a), self._residues.view(out))
        return out

    def sums(self, products: Sequence[Sequence[tuple[Any, Any]]]) -> list[Any]:
        """Sums of products of ciphertexts of two parts with plaintexts, all at one level."""
        first, weight = products[0][0]
        outs = [self._blank(first) for _ in products]
        for out in outs:
            out.scale = first.scale * weight.scale
        at, plain = self._residues.address, self._plaintexts.address
        self._switching.sums(
            np.array([at(ct) for some in products for ct, _ in some], np.uint64),
            np.array([plain(pt) for some in products for _, pt in some], np.uint64),
            np.cumsum([0, *map(len, products)]),
            np.array([at(out) for out in outs], np.uint64),
            int(first.coeff_modulus_size()),
        )
        return outs

    def transform(self, written: Written, inputs: Sequence[Any], weights: Words, fill: Fill | None) -> list[Any]:
        """A linear transform of ciphertexts of two parts at one level; `weights` are addresses of plaintexts, written
        by `fill` if that is not None (`Switching.execute`)."""
        switching, tape = self._switching, written.tape
        outs = [self._blank(inputs[0]) for _ in range(written.outputs)]
        shape, at = self._residues.view(inputs[0]).shape, self._residues.address
        turned = switching.room.array("turned", written.rotations, *shape)
        between = switching.room.array("sums", written.turned, *shape)
        given, written_to = (np.array([at(ct) for ct in some], np.uint64) for some in (inputs, outs))
        places = np.concatenate([given, addresses(turned), written_to, addresses(between)])
        switching.execute(tape, places, self._words(tape), weights, fill)
        return outs

    def _words(self, tape: Tape) -> Words:
        """Of the keys that a transform's tape uses."""
        found = self._used.get(tape)
        if found is None:
            slots = self._context.params.slots
            keys = [self._keys[f"rotation/{step % slots}"] for step in tape.keys]
            found = self._used[tape] = np.array([key.words for key in keys], np.uint64).reshape(-1, KEY_WORDS)
        return found

    def shape(self, level: int) -> Shape:
        """Of tapes at a level."""
        return self._switching.shape(level)

    def _blank(self, like: Any) -> Any:
        out = self._residues.blank(int(like.coeff_modulus_size()) - 1)
        out.scale = like.scale
        return out


def native(context: Context, residues: Residues, plaintexts: Plaintexts, example: Any) -> Native | None:
    """What works with this build of SEAL, tried with a ciphertext of two parts; None, with a warning, if it does not.

    Products, sums and rescales must be SEAL's own, bit by bit; `Native.take` tries keys.
    """
    reason = loops.missing()
    if reason is not None:
        warnings.warn(MISSING.format(reason), RuntimeWarning, stacklevel=2)
        return None
    if not residues.usable(example) or not suits(context.params):
        return None
    if plaintexts.place is None:
        warnings.warn(HIDDEN, RuntimeWarning, stacklevel=2)
        return None
    found = Native(context, residues, Switching(context.params), plaintexts)
    if found.agrees(example):
        return found
    warnings.warn(WRONG, RuntimeWarning, stacklevel=2)
    return None
