"""Matrices times packed vectors: generalised diagonals, and their split into baby steps and giant steps.

A matrix becomes, for each pair of ciphertexts, vectors over positions: out[f] = sum_d diagonal_d[f] * in[f + d].
All-zero diagonals do not exist. An output of a small period may be computed in several partial sums that are *folded*
together by a few rotations (the hybrid method of Gazelle), so that free positions carry useful weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hefw.core.errors import LoweringError
from hefw.core.layout import Layout
from hefw.core.sparse import SparseMatrix


@dataclass(frozen=True)
class Term:
    """One product: input ciphertext `source`, rotated by `baby` slots, times weight number `weight`."""

    source: int
    baby: int
    weight: int


@dataclass(frozen=True)
class Group:
    """Products that share one giant step, in slots."""

    giant: int
    terms: tuple[Term, ...]


@dataclass(frozen=True, eq=False)
class Transform:
    """A linear map in slot space: `babies[i]` are the rotations of input i; `folds` are added to each output."""

    babies: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[Group, ...], ...]
    folds: tuple[int, ...]
    weights: NDArray[np.float64] = field(repr=False)  # (weights, positions), before repetition over the batch
    weight_sources: tuple[int, ...]  # the source matrix (not ciphertext) each weight came from
    batch: int

    @property
    def rotations(self) -> list[int]:
        """All rotations executed, in slots, with repetition; 0 is free and left out."""
        babies = [step for steps in self.babies for step in steps]
        giants = [group.giant for groups in self.outputs for group in groups]
        return [step for step in babies + giants + list(self.folds) * len(self.outputs) if step]

    @property
    def products(self) -> int:
        """Multiplications with a plaintext."""
        return sum(len(group.terms) for groups in self.outputs for group in groups)

    def weight(self, index: int) -> NDArray[np.float64] | float:
        """Weight number `index` over all slots, or as one constant where all slots agree (cheaper and more precise)."""
        row = self.weights[index]
        return float(row[0]) if (row == row[0]).all() else np.repeat(row, self.batch)


@dataclass(frozen=True)
class LinearCost:
    """Relative costs of a rotation and a product with a plaintext, at the level of a transform, and of a new key."""

    rotate: float
    mul_plain: float
    new_key: float = 0.0


#: Baby-step counts tried: all up to the first number, then multiples of the second.
FINE_SPLITS = 40
COARSE_SPLIT = 8

#: (output ciphertext, input number, shift in positions) -> vector over positions
Diagonals = dict[tuple[int, int, int], NDArray[np.float64]]


def inputs_of(matrices: Sequence[tuple[SparseMatrix, Layout]]) -> list[tuple[int, int]]:
    """The (source, ciphertext) of each input number: all ciphertexts of the first source, then of the next."""
    return [(source, ct) for source, (_, layout) in enumerate(matrices) for ct in range(layout.ciphertexts)]


def diagonals(matrices: Sequence[tuple[SparseMatrix, Layout]], out: Layout, folds: int = 0) -> Diagonals:
    """The diagonals of several matrices that add into one output.

    After `folds` rotations by period, 2 * period, ... have been added, position f holds the sum of 2**folds partial
    sums at f, f + period, ...; each entry is put into exactly one of them, so that the shifts stay below the period.
    """
    width = out.width
    if out.period << folds > width:
        raise LoweringError(f"{folds} folds of a period of {out.period} exceed {width} positions")
    out_ct, places = out.home[0], out.copies
    found: Diagonals = {}
    first = 0
    for matrix, layout in matrices:
        if matrix.shape != (out.features, layout.features):
            raise LoweringError(f"a matrix of {matrix.shape} does not map {layout.features} to {out.features} features")
        in_ct, _ = layout.home
        # An entry is computed at every copy of its output feature, from whichever copy of its input suits.
        row, column, values = (np.repeat(a, places.shape[1]) for a in (matrix.row, matrix.column, matrix.values))
        out_place = places[matrix.row].reshape(-1)
        base = _popular((layout.copies[column] - out_place[:, None]) % layout.period)
        partial = (base // out.period) % (1 << folds)
        for start in range(0, width // out.period, 1 << folds):
            copy = start + partial
            place = out_place + copy * out.period
            shift = (base - copy * out.period) % layout.period
            shape = (out.ciphertexts, first + layout.ciphertexts, layout.period)
            keys, which = np.unique(
                np.ravel_multi_index((out_ct[row], first + in_ct[column], shift), shape),
                return_inverse=True,
            )
            table = np.zeros((len(keys), width))
            np.add.at(table, (which, place), values)
            for name, vector in zip(
                zip(*(k.tolist() for k in np.unravel_index(keys, shape)), strict=True), table, strict=True
            ):
                found[name] = found[name] + vector if name in found else vector
        first += layout.ciphertexts
    return {name: vector for name, vector in found.items() if vector.any()}


def _popular(candidates: NDArray[np.int64]) -> NDArray[np.int64]:
    """One of each row's shifts (entries, copies), such that few are distinct: the most common first, greedily."""
    if candidates.shape[1] == 1:
        return candidates[:, 0]
    chosen = np.full(len(candidates), -1, dtype=np.int64)
    open_rows = np.arange(len(candidates))
    while len(open_rows):
        shift = np.bincount(candidates[open_rows].reshape(-1)).argmax()
        covered = (candidates[open_rows] == shift).any(axis=1)
        chosen[open_rows[covered]] = shift
        open_rows = open_rows[~covered]
    return chosen


def transform(
    matrices: Sequence[tuple[SparseMatrix, Layout]],
    out: Layout,
    cost: LinearCost,
    keys: Iterable[int] = (),
    most_folds: int | None = None,
) -> Transform:
    """The cheapest baby-step giant-step evaluation of the sum of `matrices` times their sources, by counted cost.

    Tries every number of folds (up to `most_folds`) and every split of the shifts; `keys` are rotations (in slots)
    whose keys exist already.
    """
    existing = {step // out.batch for step in keys}
    best: tuple[float, Diagonals, int, int, int] | None = None
    for folds in range((out.width // out.period).bit_length()):
        span = out.period << folds
        useful = any(
            layout.period >= span for _, layout in matrices
        )  # the inputs have entries for so many partial sums
        if folds and (not useful or (most_folds is not None and folds > most_folds)):
            break
        found = diagonals(matrices, out, folds)
        if len({ct for ct, _, _ in found}) < out.ciphertexts:
            break
        split = _best_split(found, [out.period << k for k in range(folds)], out, cost, existing)
        if split is not None and (best is None or split[0] < best[0]):
            best = (split[0], found, folds, split[1], split[2])
    if best is None:
        raise LoweringError("a ciphertext of the output receives no nonzero weight: there is nothing to evaluate")
    _, found, folds, modulus, offset = best
    return _assemble(matrices, found, folds, modulus, offset, out)


def _best_split(
    found: Diagonals, folds: list[int], out: Layout, cost: LinearCost, existing: set[int]
) -> tuple[float, int, int] | None:
    """(cost, modulus of the baby steps, offset) of the cheapest split of the shifts."""
    if not found:
        return None
    outputs, numbers, shifts = np.array(list(found)).T
    width, known = out.width, np.array(sorted(existing), dtype=np.int64)
    fixed = cost.rotate * len(folds) * out.ciphertexts + cost.mul_plain * len(found)
    best: tuple[float, int, int] | None = None
    largest = int(shifts.max()) + 1
    for modulus in [m for m in range(1, largest + 1) if m <= FINE_SPLITS or m % COARSE_SPLIT == 0 or m == largest]:
        for offset in {0, modulus // 2}:
            baby = (shifts + offset) % modulus - offset
            giant = shifts - baby
            babies = np.unique((numbers * width + baby % width)[baby != 0])
            giants = np.unique((outputs * width + giant % width)[giant % width != 0])
            steps = np.unique(np.concatenate([babies % width, giants % width, folds]))
            new = len(steps) - int(np.isin(steps, known).sum())
            total = fixed + cost.rotate * (len(babies) + len(giants)) + cost.new_key * new
            if best is None or total < best[0]:
                best = (total, modulus, offset)
    return best


def _assemble(
    matrices: Sequence[tuple[SparseMatrix, Layout]],
    found: Diagonals,
    folds: int,
    modulus: int,
    offset: int,
    out: Layout,
) -> Transform:
    numbers = inputs_of(matrices)
    babies: list[set[int]] = [set() for _ in numbers]
    groups: list[dict[int, list[Term]]] = [{} for _ in range(out.ciphertexts)]
    weights: list[NDArray[np.float64]] = []
    sources: list[int] = []
    for (ct, number, shift), vector in sorted(found.items(), key=lambda item: item[0]):
        baby = (shift + offset) % modulus - offset
        giant = (shift - baby) % out.width
        step = baby % out.width * out.batch
        babies[number].add(step)
        # rotate(inner, g)[f] = inner[f + g]: the weight is shifted back so that it meets its position there.
        groups[ct].setdefault(giant, []).append(Term(number, step, len(weights)))
        weights.append(np.roll(vector, giant))
        sources.append(numbers[number][0])
    return Transform(
        babies=tuple(tuple(sorted(steps)) for steps in babies),
        outputs=tuple(
            tuple(Group(giant * out.batch, tuple(terms)) for giant, terms in sorted(by_giant.items()))
            for by_giant in groups
        ),
        folds=tuple((out.period << k) * out.batch for k in range(folds)),
        weights=np.stack(weights),
        weight_sources=tuple(sources),
        batch=out.batch,
    )
