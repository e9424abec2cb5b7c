"""A private label: whatever depends on timestep and label only is a table, which the one-hot label selects from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: What is left of a table, beside its largest entry, when a part of it counts as nothing: below what CKKS keeps.
NEGLIGIBLE = 1e-7


@dataclass(frozen=True)
class Split:
    """table[s, c] = bias[s] + fixed[c] + sum_r factors[r, s] * tables[r, c].

    `bias` is (1 or steps, entries), `fixed` (classes, entries), `factors` (rank, steps) and `tables` (rank, classes,
    entries).
    """

    bias: Array
    fixed: Array
    factors: Array
    tables: Array


def split(table: Array) -> Split:
    """A table (1 or steps, classes, entries) as few tables that are the same at every step, times a number a step.

    An additive table, T(t) + L[y], has no factors: the label's part is then one matrix. Any other one takes as many
    terms as it has singular values that count: for smooth time embeddings, few.
    """
    bias = table.mean(axis=1)
    rest = table - bias[:, None]
    fixed = rest.mean(axis=0)
    rest = rest - fixed
    size = max(float(np.abs(table).max()), 1e-300)
    if np.abs(rest).max() <= NEGLIGIBLE * size:
        return Split(bias, fixed, np.zeros((0, len(table))), np.zeros((0, *fixed.shape)))
    flat = rest.reshape(len(table), -1)
    left, values, right = np.linalg.svd(flat, full_matrices=False)
    rank = int(np.count_nonzero(values > NEGLIGIBLE * size))
    peaks = np.abs(right[:rank]).max(axis=1, keepdims=True)  # tables of size one lose least when they are encoded
    factors = (left[:, :rank] * values[:rank]).T * peaks
    return Split(bias, fixed, factors, (right[:rank] / peaks).reshape(rank, *fixed.shape))
