"""The server's side on SEAL: no secret key, no decryptor."""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import _sealapi_cpp as seal
from numpy.typing import NDArray

from hefw.backends.seal import galois_element, opaque
from hefw.backends.tenseal.context import Context, PublicFile, dump, padded_length
from hefw.backends.tenseal.keys import KeyLoaded
from hefw.backends.tenseal.matrices import Matrices
from hefw.backends.tenseal.native import WRONG, Native, native
from hefw.backends.tenseal.places import Plan
from hefw.backends.tenseal.plaintexts import Plaintexts
from hefw.backends.tenseal.reading import Reading
from hefw.backends.tenseal.residues import Residues
from hefw.backends.tenseal.switching import Fill, Words
from hefw.backends.tenseal.tape import Shape
from hefw.backends.tenseal.transforms import Written
from hefw.core.backend import MOST_PRODUCTS, Capabilities, Ciphertext, Evaluator, Kept, Plaintext
from hefw.core.linear import Group, Transform
from hefw.core.params import Resolved
from hefw.core.turning import folded_at_once

#: Memory for rotations of one transform that is kept for the next one, in bytes; of larger ones it is SEAL's.
MOST_HELD = 1 << 26


class TensealEvaluator(Evaluator):
    """SEAL's evaluator. hefw keeps the scales and writes them into SEAL's objects, whose own checks compare exactly."""

    def __init__(self, params: Resolved, capabilities: Capabilities) -> None:
        super().__init__(params, capabilities)
        self._context = Context(params)
        self._evaluator = seal.Evaluator(self._context.seal)
        self._keys: dict[str, KeyLoaded] = {}  # by name; those that `Native` takes are not kept
        self._whole: dict[str, Any] = {}  # SEAL's own, where its calls have to be used
        self._native: Native | None = None
        self._tried = False
        self._trying = threading.Lock()
        self._file = PublicFile()
        self._residues = Residues(self._context)
        self._plaintexts = Plaintexts(self._context)
        self._matrices = Matrices(self, self._residues)
        self._plans: WeakKeyDictionary[Transform, Plan] = WeakKeyDictionary()
        self._written: WeakKeyDictionary[Plan, dict[Shape, Written]] = WeakKeyDictionary()
        #: Addresses and scales by the tape and what it reads, of weights that stay.
        self._read: WeakKeyDictionary[Kept, dict[tuple[Any, ...], tuple[Words, dict[int, float]]]] = WeakKeyDictionary()

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
        return dump(ciphertext.handle.save, padded_length(primes, self.params.params.ring_dimension, ciphertext.size))

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
        a.handle.scale = b.handle.scale = a.scale
        with opaque():
            self._evaluator.add(a.handle, b.handle, out)
        return out

    def _add_into(self, a: Ciphertext, b: Ciphertext) -> Any:
        a.handle.scale = b.handle.scale = a.scale
        with opaque():
            self._evaluator.add_inplace(a.handle, b.handle)
        return a.handle

    def _sub(self, a: Ciphertext, b: Ciphertext) -> Any:
        out = seal.Ciphertext()
        a.handle.scale = b.handle.scale = a.scale
        with opaque():
            self._evaluator.sub(a.handle, b.handle, out)
        return out

    def _negate(self, a: Ciphertext) -> Any:
        out = seal.Ciphertext()
        self._evaluator.negate(a.handle, out)
        return out

    def _add_plain(self, a: Ciphertext, b: Plaintext) -> Any:
        out, addend = seal.Ciphertext(), self._plaintexts.object(b.handle)
        a.handle.scale = addend.scale = a.scale
        self._evaluator.add_plain(a.handle, addend, out)
        return out

    def _add_plain_into(self, a: Ciphertext, b: Plaintext) -> Any:
        addend = self._plaintexts.object(b.handle)
        a.handle.scale = addend.scale = a.scale
        self._evaluator.add_plain_inplace(a.handle, addend)
        return a.handle

    def _mul_plain(self, a: Ciphertext, b: Plaintext) -> Any:
        out = seal.Ciphertext()
        with opaque():
            self._evaluator.multiply_plain(a.handle, self._plaintexts.object(b.handle), out)
        return out

    def _multiply_accumulate(self, pairs: Sequence[tuple[Ciphertext, Plaintext]]) -> Any:
        native = self._faster(pairs[0][0]) if len(pairs) > 1 else None  # SEAL's own call is faster for one product
        if native is not None:
            return native.sums([[(a.handle, b.handle) for a, b in pairs]])[0]
        evaluator, library = self._evaluator, self._plaintexts.object
        first, weight = pairs[0]
        total = seal.Ciphertext()
        product = seal.Ciphertext()  # reused: an allocation a product costs as much as its addition
        with opaque():
            evaluator.multiply_plain(first.handle, library(weight.handle), total)
            for a, b in pairs[1:]:
                evaluator.multiply_plain(a.handle, library(b.handle), product)
                product.scale = total.scale
                evaluator.add_inplace(total, product)
        return total

    def _mul(self, a: Ciphertext, b: Ciphertext) -> Any:
        out = seal.Ciphertext()
        self._evaluator.multiply(a.handle, b.handle, out)
        return out

    def _square(self, a: Ciphertext) -> Any:
        native = self._faster(a)
        if native is not None:
            return native.square(a.handle)
        out = seal.Ciphertext()
        self._evaluator.square(a.handle, out)
        return out

    def sums_of_groups(
        self, rotated: Sequence[Mapping[int, Ciphertext]], groups: Sequence[Group], weights: Sequence[Plaintext]
    ) -> Iterator[Ciphertext]:
        """As the default; several groups in one pass over the ciphertexts that they read."""
        waiting = list(groups)
        while waiting:
            count, products = 1, len(waiting[0].terms)
            while count < len(waiting) and products + len(waiting[count].terms) <= MOST_PRODUCTS:
                products += len(waiting[count].terms)
                count += 1
            some, waiting = waiting[:count], waiting[count:]
            term = some[0].terms[0]
            native = self._faster(rotated[term.source][term.baby]) if products <= MOST_PRODUCTS else None
            if native is None:
                yield from super().sums_of_groups(rotated, some, weights)
                continue
            read = [[(rotated[t.source][t.baby], weights[t.weight]) for t in group.terms] for group in some]
            scales = [self._sum_scale(pairs) for pairs in read]
            sums = native.sums([[(a.handle, b.handle) for a, b in pairs] for pairs in read])
            for handle, scale, pairs in zip(sums, scales, read, strict=True):
                yield Ciphertext(handle, pairs[0][0].level, scale)

    def _relinearise(self, a: Ciphertext) -> Any:
        native = self._faster(a, "relinearisation")
        if native is not None:
            return native.relinearise(a.handle)
        out = seal.Ciphertext()
        self._evaluator.relinearize(a.handle, self._own("relinearisation"), out)
        return out

    def _rescale(self, a: Ciphertext) -> Any:
        native = self._faster(a) if a.size == 2 else None
        if native is not None:
            return native.rescale(a.handle)
        out = seal.Ciphertext()
        self._evaluator.rescale_to_next(a.handle, out)
        return out

    def _drop_level(self, a: Ciphertext, level: int) -> Any:
        out = seal.Ciphertext()
        self._evaluator.mod_switch_to(a.handle, self._context.level_ids[level], out)
        return out

    def _drop_plain_level(self, a: Plaintext, level: int) -> Any:
        return self._plaintexts.dropped(a.handle, level)

    def _rotate(self, a: Ciphertext, step: int) -> Any:
        return self._turned(a, f"rotation/{step}")

    def rotate_many(self, a: Ciphertext, steps: Sequence[int]) -> list[Ciphertext]:
        """`rotate` for several steps, hoisted."""
        wanted = [step % self.params.slots for step in steps]
        names = [f"rotation/{step}" for step in wanted if step]
        native = self._faster(a, *names) if len(names) > 1 else None
        if native is None:
            return super().rotate_many(a, steps)
        self._two_parts("rotate", a)
        self.require_keys(names, a.level)
        self.counts["rotate"] += len(names)
        turned = iter(native.rotate_many(a.handle, names))
        return [Ciphertext(next(turned), a.level, a.scale) if step else a for step in wanted]

    def fold(self, total: Ciphertext, folds: Sequence[int]) -> Ciphertext:
        """As the default: hoisted, and each group of steps is divided together."""
        groups = [[f"rotation/{step % self.params.slots}" for step in steps] for steps in folded_at_once(folds)]
        names = list(itertools.chain.from_iterable(groups))
        native = self._faster(total, *names) if names else None
        if native is None:
            return super().fold(total, folds)
        self._two_parts("rotate", total)
        self.require_keys(names, total.level)
        self.counts["rotate"] += len(names)
        self.counts["add"] += len(names)
        return Ciphertext(native.fold(total.handle, groups), total.level, total.scale)

    def _conjugate(self, a: Ciphertext) -> Any:
        return self._turned(a, "conjugation")

    def _turned(self, a: Ciphertext, name: str) -> Any:
        native = self._faster(a, name)
        if native is not None:
            return native.rotate_many(a.handle, [name])[0]
        out = seal.Ciphertext()
        element = galois_element(name, self.params.params.ring_dimension)
        self._evaluator.apply_galois(a.handle, element, self._own(name), out)
        return out

    def _faster(self, example: Ciphertext, *keys: str) -> Native | None:
        """The compiled ways, where they exist; found out by the first ciphertext, which also has them take the keys."""
        handle = example.handle
        handle.scale = example.scale
        if example.size == 2 and (self._keys or not self._tried):
            with self._trying:
                if not self._tried:
                    self._native = native(self._context, self._residues, self._plaintexts, handle)
                    self._tried = True
                if self._native is not None and self._keys:
                    self._hand_over(handle)
        found = self._native
        if found is None or not all(found.has(name) for name in keys):
            return None
        return found.shared_by(self.threads)

    def _hand_over(self, example: Any) -> None:
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

    def linear_transform(
        self, inputs: Sequence[Ciphertext], transform: Transform, weights: Sequence[Plaintext]
    ) -> list[Ciphertext]:
        """As the default does it; on residues without ciphertexts in between, where they are reached."""
        found = self._matrices.transformed(inputs, transform, weights)
        if found is None:
            found = self._transformed(inputs, transform, weights)
        return super().linear_transform(inputs, transform, weights) if found is None else found

    def _transformed(
        self, inputs: Sequence[Ciphertext], transform: Transform, weights: Sequence[Plaintext]
    ) -> list[Ciphertext] | None:
        plan = self._plan(transform)
        names = [f"rotation/{step % self.params.slots}" for step in plan.steps]
        level = inputs[0].level
        alike = all(ct.level == level and ct.size == 2 for ct in inputs)
        held = 16 * (level + 1) * self.params.params.ring_dimension * plan.rotations
        native = self._faster(inputs[0], *names) if alike and plan.suits and held <= MOST_HELD else None
        if native is None:
            return None
        self.require_keys(names, level)
        written = self._tape(plan, native.shape(level))
        fill: Fill | None = None
        if isinstance(weights, Kept):
            known, given = self._read.setdefault(weights, {}), (written, *(ct.scale for ct in inputs))
            if given not in known:
                known[given] = self._reading(written, inputs, weights).all()
            addresses, scales = known[given]
        else:
            reading = self._reading(written, inputs, weights)
            addresses, scales, fill = reading.addresses, reading.scales, reading.fill
        handles = native.transform(written, [ct.handle for ct in inputs], addresses, fill)
        self.counts.update(plan.counts)
        found = []
        for output, handle in enumerate(handles):
            handle.scale = scales[output]
            found.append(Ciphertext(handle, level, scales[output]))
        return found

    def _reading(self, written: Written, inputs: Sequence[Ciphertext], weights: Sequence[Plaintext]) -> Reading:
        return Reading(written, inputs, weights, self._plaintexts.address, self._common_scale)

    def _tape(self, plan: Plan, shape: Shape) -> Written:
        made = self._written.setdefault(plan, {})
        if shape not in made:
            made[shape] = Written(plan, shape)
        return made[shape]

    def _plan(self, transform: Transform) -> Plan:
        if transform not in self._plans:
            self._plans[transform] = Plan(transform)
        return self._plans[transform]

    @property
    def threads_used(self) -> int:
        """All, where compiled loops are used: they let go of Python's lock."""
        return 1 if self._native is None else self.threads
