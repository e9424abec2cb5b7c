"""The server's side on SEAL: no secret key, no decryptor."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from typing import Any

import _sealapi_cpp as seal
from numpy.typing import NDArray

from hefw.backends.rns.evaluator import RnsEvaluator, two_parts
from hefw.backends.rns.native import Native
from hefw.backends.seal import galois_element, opaque
from hefw.backends.tenseal.context import Context, PublicFile, dump, padded_length
from hefw.backends.tenseal.keys import KeyLoaded
from hefw.backends.tenseal.native import WRONG, SealNative, native
from hefw.backends.tenseal.plaintexts import Plaintexts
from hefw.backends.tenseal.residues import Residues
from hefw.core.backend import Capabilities, Ciphertext, Plaintext
from hefw.core.params import Resolved


class TensealEvaluator(RnsEvaluator):
    """SEAL's evaluator. hefw keeps the scales and writes them into SEAL's objects, whose own checks compare exactly."""

    def __init__(self, params: Resolved, capabilities: Capabilities, loops: bool = True) -> None:
        self._context = Context(params)
        self._plaintexts = Plaintexts(self._context)
        self._residues = Residues(self._context, self._plaintexts, loops)
        super().__init__(params, capabilities, self._residues)
        self._evaluator = seal.Evaluator(self._context.seal)
        self._keys: dict[str, KeyLoaded] = {}  # by name; those that `Native` takes are not kept
        self._whole: dict[str, Any] = {}  # SEAL's own, where its calls have to be used
        self._native: SealNative | None = None
        self._tried = not loops
        self._trying = threading.Lock()
        self._file = PublicFile()

    def _load_key(self, name: str, payload: bytes) -> None:
        self._whole.pop(name, None)
        self._keys[name] = KeyLoaded(self._context, name, payload, self.keys[name], self._file)

    def _own(self, name: str) -> Any:
        """A key for SEAL's own calls."""
        if name not in self._whole:
            self._whole[name] = self._keys[name].whole()
        return self._whole[name]

    def _load(self, payload: bytes, level: int, scale: float) -> Any:
        return self._context.ciphertext(payload, level, scale)

    def _dump(self, ciphertext: Ciphertext) -> bytes:
        primes = self.params.primes[: ciphertext.level + 1]
        padded = padded_length(primes, self.params.params.ring_dimension, ciphertext.size)
        return dump(_scaled(ciphertext).save, padded)

    def _encode(self, values: NDArray[Any] | float, level: int, scale: float) -> Any:
        return self._context.encode(values, level, scale)

    def dump_plaintext(self, a: Plaintext) -> bytes:
        """Its residues: read back without a copy. Where SEAL keeps them out of reach, what it saves."""
        return self._plaintexts.dump(a.handle, a.level, a.scale)

    def load_plaintext(self, data: bytes | memoryview, level: int, scale: float) -> Plaintext:
        """Of either form, checked."""
        return Plaintext(self._plaintexts.load(data, level, scale), level, scale)

    def _add(self, a: Ciphertext, b: Ciphertext) -> Any:
        out = seal.Ciphertext()
        with opaque():
            self._evaluator.add(_scaled(a), _scaled(b, a.scale), out)
        return out

    def _add_into(self, a: Ciphertext, b: Ciphertext) -> Any:
        with opaque():
            self._evaluator.add_inplace(_scaled(a), _scaled(b, a.scale))
        return a.handle

    def _sub(self, a: Ciphertext, b: Ciphertext) -> Any:
        out = seal.Ciphertext()
        with opaque():
            self._evaluator.sub(_scaled(a), _scaled(b, a.scale), out)
        return out

    def _negate(self, a: Ciphertext) -> Any:
        out = seal.Ciphertext()
        self._evaluator.negate(_scaled(a), out)
        return out

    def _add_plain(self, a: Ciphertext, b: Plaintext) -> Any:
        out, addend = seal.Ciphertext(), self._plaintexts.object(b.handle)
        addend.scale = a.scale
        self._evaluator.add_plain(_scaled(a), addend, out)
        return out

    def _add_plain_into(self, a: Ciphertext, b: Plaintext) -> Any:
        addend = self._plaintexts.object(b.handle)
        addend.scale = a.scale
        self._evaluator.add_plain_inplace(_scaled(a), addend)
        return a.handle

    def _mul_plain(self, a: Ciphertext, b: Plaintext) -> Any:
        out = seal.Ciphertext()
        with opaque():
            self._evaluator.multiply_plain(_scaled(a), self._plaintexts.object(b.handle), out)
        return out

    def _multiply_accumulate(self, pairs: Sequence[tuple[Ciphertext, Plaintext]]) -> Any:
        several = len(pairs) > 1  # SEAL's own call is faster for one product
        native = self._faster(pairs[0][0]) if several and two_parts(pairs) else None
        if native is not None:
            return native.sums([pairs])[0]
        evaluator, library = self._evaluator, self._plaintexts.object
        first, weight = pairs[0]
        total = seal.Ciphertext()
        product = seal.Ciphertext()  # reused: an allocation a product costs as much as its addition
        with opaque():
            evaluator.multiply_plain(_scaled(first), library(weight.handle), total)
            for a, b in pairs[1:]:
                evaluator.multiply_plain(_scaled(a), library(b.handle), product)
                product.scale = total.scale
                evaluator.add_inplace(total, product)
        return total

    def _mul(self, a: Ciphertext, b: Ciphertext) -> Any:
        out = seal.Ciphertext()
        self._evaluator.multiply(_scaled(a), _scaled(b), out)
        return out

    def _square(self, a: Ciphertext) -> Any:
        native = self._faster(a)
        if native is not None:
            return native.square(a)
        out = seal.Ciphertext()
        self._evaluator.square(_scaled(a), out)
        return out

    def _relinearise(self, a: Ciphertext) -> Any:
        native = self._faster(a, "relinearisation")
        if native is not None:
            return native.relinearise(a)
        out = seal.Ciphertext()
        self._evaluator.relinearize(_scaled(a), self._own("relinearisation"), out)
        return out

    def _rescale(self, a: Ciphertext) -> Any:
        native = self._faster(a) if a.size == 2 else None
        if native is not None:
            return native.rescale(a)
        out = seal.Ciphertext()
        self._evaluator.rescale_to_next(_scaled(a), out)
        return out

    def _drop_level(self, a: Ciphertext, level: int) -> Any:
        out = seal.Ciphertext()
        self._evaluator.mod_switch_to(_scaled(a), self._context.level_ids[level], out)
        return out

    def _drop_plain_level(self, a: Plaintext, level: int) -> Any:
        return self._plaintexts.dropped(a.handle, level)

    def _rotate(self, a: Ciphertext, step: int) -> Any:
        return self._turned(a, f"rotation/{step}")

    def _conjugate(self, a: Ciphertext) -> Any:
        return self._turned(a, "conjugation")

    def _turned(self, a: Ciphertext, name: str) -> Any:
        native = self._faster(a, name)
        if native is not None:
            return native.rotate_many(a, [name])[0]
        out = seal.Ciphertext()
        element = galois_element(name, self.params.params.ring_dimension)
        self._evaluator.apply_galois(_scaled(a), element, self._own(name), out)
        return out

    def _faster(self, example: Ciphertext, *keys: str) -> Native | None:
        """The compiled ways, where they exist; found out by the first ciphertext, which also has them take the keys."""
        if example.size == 2 and (self._keys or not self._tried):
            with self._trying:
                if not self._tried:
                    self._native = native(self._context, self._residues, self._plaintexts, example)
                    self._tried = True
                if self._native is not None and self._keys:
                    self._hand_over(example)
        found = self._native
        if found is None or not all(found.has(name) for name in keys):
            return None
        found.switching.threads = self.threads
        return found

    def _hand_over(self, example: Ciphertext) -> None:
        """Give SEAL's keys to the compiled ways; none of them if one does not work there."""
        assert self._native is not None
        taken = []
        for name, key in self._keys.items():
            if not self._native.take(name, key, example):
                warnings.warn(WRONG, RuntimeWarning, stacklevel=2)
                self._native = None
                return
            taken.append(name)
        for name in taken:
            del self._keys[name]

    @property
    def threads_used(self) -> int:
        """All, where compiled loops are used: they let go of Python's lock."""
        return 1 if self._native is None else self.threads


def _scaled(a: Ciphertext, scale: float | None = None) -> Any:
    """SEAL's object, of the scale that hefw keeps, or of another one."""
    a.handle.scale = a.scale if scale is None else scale
    return a.handle
