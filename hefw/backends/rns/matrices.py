"""Matrices of numbers times ciphertexts by `wide`, and the giant steps of what comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np

from hefw.backends.rns import wide
from hefw.backends.rns.memory import Memory
from hefw.core.backend import Ciphertext, Evaluator, Plaintext, check_scale
from hefw.core.linear import Transform

#: Products from which on a matrix is multiplied with residues.
MANY_PRODUCTS = 256


class Matrices:
    """Those that one evaluator was given, as integers."""

    def __init__(self, evaluator: Evaluator, memory: Memory) -> None:
        self._evaluator = evaluator
        self._memory = memory
        self._made: WeakKeyDictionary[Transform, tuple[Mapping[int, float], wide.Matrix | None]] = WeakKeyDictionary()

    def transformed(
        self, inputs: Sequence[Ciphertext], transform: Transform, weights: Sequence[Plaintext]
    ) -> list[Ciphertext] | None:
        """`Evaluator.linear_transform`; None where it is no such matrix, or one that does not suit."""
        if not transform.numeric or transform.products < MANY_PRODUCTS:
            return None
        level, primes = inputs[0].level, self._evaluator.params.primes[: inputs[0].level + 1]
        if not all(map(wide.suits, primes)) or not self._memory.usable(inputs[0]):
            return None
        examples = {source: k for k, source in enumerate(transform.weight_sources)}
        scales = {source: weights[k].scale for source, k in examples.items()}
        matrix = self._matrix(transform, scales)
        if matrix is None:
            return None
        first = transform.outputs[0][0].terms[0]
        scale = inputs[first.source].scale * scales[transform.weight_sources[first.weight]]
        check_scale(self._evaluator.params, level, scale)
        sums = [self._memory.blank(level) for _ in range(matrix.outputs)]
        given, written = (
            np.stack([self._memory.rows(handle) for handle in some]) for some in ([ct.handle for ct in inputs], sums)
        )
        size = self._evaluator.params.params.ring_dimension
        wide.multiply(matrix, given, written, primes, size, self._evaluator.threads)
        self._evaluator.counts["encode"] += transform.products - len(scales)
        self._evaluator.counts["mul_plain"] += transform.products
        self._evaluator.counts["add"] += transform.products - len(sums)
        found = iter([Ciphertext(handle, level, scale) for handle in sums])
        return [
            self._turned(transform, k, {id(group): next(found) for group in groups})
            for k, groups in enumerate(transform.outputs)
        ]

    def _turned(self, transform: Transform, output: int, sums: dict[int, Ciphertext]) -> Ciphertext:
        """The sums of one output's groups (by their id), turned and added."""
        return self._evaluator.joined(transform.strands(output), lambda groups: [sums.pop(id(g)) for g in groups])

    def _matrix(self, transform: Transform, scales: Mapping[int, float]) -> wide.Matrix | None:
        """The integers, a row a group, at the scale of each source; None if they are too large."""
        found = self._made.get(transform)
        if found is None or found[0] != scales:
            found = self._made[transform] = (scales, _integers(transform, scales))
        return found[1]


def _integers(transform: Transform, scales: Mapping[int, float]) -> wide.Matrix | None:
    groups = [group for groups in transform.outputs for group in groups]
    places = [(row, term.source, term.weight) for row, group in enumerate(groups) for term in group.terms]
    row, column, weight = np.array(places).T
    source = np.array(transform.weight_sources)[weight]
    values = transform.weights[weight, 0] * np.array([scales[k] for k in source])
    # A source of a smaller scale has larger weights, which are rounded like the others: to multiples of a power of 2.
    shifts = np.zeros(len(transform.babies), dtype=np.int64)
    least = min(scales.values())
    for k, scale in scales.items():
        mine = source == k
        together = np.bincount(row[mine], np.abs(values[mine])).max()  # on one output
        over = math.ceil(math.log2(max(1.0, 1.01 * together / wide.MOST_WEIGHT)))
        shifts[column[mine]] = min(over, math.floor(math.log2(scale / least)))
    values = np.ldexp(values, -shifts[column])
    if (np.abs(values) >= wide.MOST_WEIGHT).any():
        return None
    # Libraries refuse a product with zero, which hides nothing.
    rounded = np.where(np.rint(values) == 0, np.copysign(1, values), np.rint(values)).astype(np.int64)
    matrix = np.zeros((len(groups), len(transform.babies)), dtype=np.int64)
    np.add.at(matrix, (row, column), rounded)
    if not matrix.any(axis=1).all():
        return None  # such a result hides nothing
    try:
        return wide.Matrix(matrix, shifts)
    except OverflowError:
        return None
