"""Operations by `rns` on what SEAL holds: where its memory is found and numba is there."""

from __future__ import annotations

import warnings
from typing import Any

import _sealapi_cpp as seal
import numpy as np

from hefw.backends.rns import loops
from hefw.backends.rns.native import Native
from hefw.backends.rns.switching import Switching, suits
from hefw.backends.rns.trial import switches
from hefw.backends.seal import RELINEARISATION, key_element
from hefw.backends.tenseal.context import Context
from hefw.backends.tenseal.keys import KeyLoaded
from hefw.backends.tenseal.plaintexts import EXAMPLE_SCALE, Plaintexts
from hefw.backends.tenseal.residues import Residues
from hefw.core.backend import Ciphertext, Plaintext

WORSE = "hefw goes on with SEAL's own calls, which are slower and less precise"
MISSING = (
    f"compiled loops cannot be used ({{}}): {WORSE}; hefw backends install tenseal adds numba, which compiles them"
)
HIDDEN = f"this build of TenSEAL keeps the residues of plaintexts where hefw does not find them: {WORSE}"
WRONG = f"compiled loops do not give what SEAL gives: {WORSE}"


class SealNative(Native):
    """Tried against SEAL's own calls, bit by bit where SEAL has such."""

    def __init__(self, context: Context, residues: Residues) -> None:
        super().__init__(context.params, residues, Switching(context.params))
        self._context = context
        self._residues = residues
        self._evaluator = seal.Evaluator(context.seal)
        self._tried: set[str] = set()

    def take(self, name: str, key: KeyLoaded, example: Ciphertext) -> bool:
        """A key; whether it does with a ciphertext what SEAL does with it, or what it must where SEAL cannot use it."""
        element = key_element(name, self.params.params.ring_dimension)
        relinearises = element == RELINEARISATION
        digits = [self._residues.view(digit.data()) for digit in key.digits]
        self.keep(name, self.switching.key(digits, key.form.rows, 1 if relinearises else element))
        kind = name.partition("/")[0]
        if kind in self._tried:
            return True
        self._tried.add(kind)
        example = self._tame(example, min(key.level, example.level))
        if not key.for_seal:
            return switches(self.switching, self.params, self._residues.view(example.handle))
        whole = key.whole()
        self.switching.centred = False
        try:
            return self._relinearises(whole, example) if relinearises else self._turns(name, whole, element, example)
        finally:
            self.switching.centred = True

    def _relinearises(self, key: Any, example: Ciphertext) -> bool:
        square, wanted = seal.Ciphertext(), seal.Ciphertext()
        self._evaluator.square(example.handle, square)
        self._evaluator.relinearize(square, key, wanted)
        return self._same(self.relinearise(Ciphertext(square, example.level, 1.0, size=3)), wanted)

    def _turns(self, name: str, key: Any, element: int, example: Ciphertext) -> bool:
        """Of a ciphertext whose second part is one number: SEAL turns that before it takes it apart, hefw after."""
        given, wanted = self._residues.blank(example.level), seal.Ciphertext()
        self._residues.view(given)[...] = self._residues.view(example.handle)
        self._residues.view(given)[1] = self._residues.view(example.handle)[1, :, :1]
        self._evaluator.apply_galois(given, element, key, wanted)
        return self._same(self.rotate_many(Ciphertext(given, example.level, 1.0), [name])[0], wanted)

    def agrees(self, example: Ciphertext) -> bool:
        """Whether SEAL's sums of products and rescales are found of a ciphertext."""
        evaluator, level, slots = self._evaluator, example.level, self.params.slots
        example = self._tame(example, level)
        weights = [
            Plaintext(self._context.encode(np.arange(slots) / slots - k, level, EXAMPLE_SCALE), level, EXAMPLE_SCALE)
            for k in range(3)
        ]
        wanted = []
        for weight in weights:
            wanted.append(seal.Ciphertext())
            evaluator.multiply_plain(example.handle, weight.handle, wanted[-1])
        for product in wanted[1:]:
            evaluator.add_inplace(wanted[0], product)
        (found,) = self.sums([[(example, weight) for weight in weights]])
        evaluator.square(example.handle, wanted[2])
        if not self._same(found, wanted[0]) or not self._same(self.square(example), wanted[2]):
            return False
        if level:
            evaluator.rescale_to_next(wanted[0], wanted[1])
            return self._same(self.rescale(Ciphertext(found, level, EXAMPLE_SCALE)), wanted[1])
        return True

    def _tame(self, a: Ciphertext, level: int) -> Ciphertext:
        """A copy at a scale that leaves room for products."""
        out = seal.Ciphertext()
        a.handle.scale = a.scale
        self._evaluator.mod_switch_to(a.handle, self._context.level_ids[level], out)
        out.scale = 1.0
        return Ciphertext(out, level, 1.0)

    def _same(self, a: Any, b: Any) -> bool:
        return np.array_equal(self._residues.view(a), self._residues.view(b))


def native(context: Context, residues: Residues, plaintexts: Plaintexts, example: Ciphertext) -> SealNative | None:
    """What works with this build of SEAL, tried with a ciphertext of two parts; None, with a warning, if it does not.

    Products, sums and rescales must be SEAL's own, bit by bit; `SealNative.take` tries keys.
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
    found = SealNative(context, residues)
    if found.agrees(example):
        return found
    warnings.warn(WRONG, RuntimeWarning, stacklevel=2)
    return None
