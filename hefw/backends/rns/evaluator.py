"""Evaluators whose libraries keep residues where loops reach them."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from hefw.backends.rns.matrices import Matrices
from hefw.backends.rns.memory import Memory
from hefw.backends.rns.native import Native
from hefw.backends.rns.places import Plan
from hefw.backends.rns.reading import Reading
from hefw.backends.rns.switching import Fill
from hefw.backends.rns.tape import Rows, Shape
from hefw.backends.rns.transforms import Written
from hefw.core.backend import MOST_PRODUCTS, Capabilities, Ciphertext, Evaluator, Kept, Plaintext, Products
from hefw.core.linear import Group, Transform
from hefw.core.params import Resolved
from hefw.core.turning import folded_at_once

#: Memory for rotations of one transform that is kept for the next one, in bytes; of larger ones it is the library's.
MOST_HELD = 1 << 26


class RnsEvaluator(Evaluator):
    """Has what works on several ciphertexts done by compiled loops, where `_faster` says that they can."""

    def __init__(self, params: Resolved, capabilities: Capabilities, memory: Memory) -> None:
        super().__init__(params, capabilities)
        self._memory = memory
        self._matrices = Matrices(self, memory)
        self._plans: WeakKeyDictionary[Transform, Plan] = WeakKeyDictionary()
        self._written: WeakKeyDictionary[Plan, dict[Shape, Written]] = WeakKeyDictionary()
        #: Rows and scales by the tape and what it reads, of weights that stay.
        self._read: WeakKeyDictionary[Kept, dict[tuple[Any, ...], tuple[Rows, dict[int, float]]]] = WeakKeyDictionary()

    @abstractmethod
    def _faster(self, example: Ciphertext, *keys: str) -> Native | None:
        """The compiled ways for ciphertexts like this one, by these keys; None where the library's own are taken."""

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
            for handle, scale, pairs in zip(native.sums(read), scales, read, strict=True):
                yield Ciphertext(handle, pairs[0][0].level, scale)

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
        turned = iter(native.rotate_many(a, names))
        return [Ciphertext(next(turned), a.level, a.scale) if step else a for step in wanted]

    def square(self, a: Ciphertext, *, relinearise: bool = True) -> Ciphertext:
        """a * a; the level stays, the scale is squared."""
        native = self._faster(a, "relinearisation") if relinearise and a.size == 2 else None
        if native is None:
            return super().square(a, relinearise=relinearise)
        scale = self._product("square", a, a)
        self.require_keys(["relinearisation"])
        self.counts["mul"] += 1
        self.counts["relinearise"] += 1
        return Ciphertext(native.squared(a), a.level, scale)

    def fold(self, total: Ciphertext, folds: Sequence[int], *, given_up: bool = False) -> Ciphertext:
        """As the default: hoisted, and each group of steps is divided together."""
        groups = [[f"rotation/{step % self.params.slots}" for step in steps] for steps in folded_at_once(folds)]
        names = list(itertools.chain.from_iterable(groups))
        native = self._faster(total, *names) if names else None
        if native is None:
            return super().fold(total, folds, given_up=given_up)
        self._two_parts("rotate", total)
        self.require_keys(names, total.level)
        self.counts["rotate"] += len(names)
        self.counts["add"] += len(names)
        return Ciphertext(native.fold(total, groups, given_up=given_up), total.level, total.scale)

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
            rows, scales = known[given]
        else:
            reading = self._reading(written, inputs, weights)
            rows, scales, fill = reading.rows, reading.scales, reading.fill
        handles = native.transform(written, inputs, rows, fill)
        self.counts.update(plan.counts)
        return [Ciphertext(handle, level, scales[output]) for output, handle in enumerate(handles)]

    def _reading(self, written: Written, inputs: Sequence[Ciphertext], weights: Sequence[Plaintext]) -> Reading:
        return Reading(written, inputs, weights, self._memory, self._common_scale)

    def _tape(self, plan: Plan, shape: Shape) -> Written:
        made = self._written.setdefault(plan, {})
        if shape not in made:
            made[shape] = Written(plan, shape)
        return made[shape]

    def _plan(self, transform: Transform) -> Plan:
        if transform not in self._plans:
            self._plans[transform] = Plan(transform)
        return self._plans[transform]


def two_parts(pairs: Products) -> bool:
    """Whether all ciphertexts have two parts, which is what loops add up."""
    return all(ct.size == 2 for ct, _ in pairs)
