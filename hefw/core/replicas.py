"""Products with weights that fill a ciphertext: where few images leave most of it free, one product does for many.

Where a layout repeats a tensor's features through all slots, its repetitions can be multiplied by different diagonals
at once; where it spreads them (`layout.spread`), each row holds other channels. In both, partial sums of one output
end up in different places and are folded together by a few rotations. A matrix from a spread layout to a repeating one
is summed over rows, which leaves every row with the sum; one from a repeating layout to a spread one is summed within
rows. So the two kinds of layouts take turns, and nothing is ever repacked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hefw.core.layout import Layout
from hefw.core.rows import distinct, gather, positions, starts
from hefw.core.sparse import SparseMatrix

Indices = NDArray[np.int64]
Array = NDArray[np.float64]
#: Of products, one a number each: input ciphertext, shift in positions, position there, weight.
Entries = tuple[Indices, Indices, Indices, Array]

NONE = -1


@dataclass(frozen=True, eq=False)
class Spots:
    """Where an output's values are summed, in the order of its features: spots start[f] to start[f + 1] are f's.

    `places` (spots, classes, copies) are positions. Every value that is read at a spot is the sum of one partial sum of
    each class; a class has several copies where they serve different readers. NONE where there are fewer of them.
    """

    places: Indices
    start: Indices


def spots(out: Layout, folds: int) -> Spots:
    """Those of an output of one ciphertext after so many folds."""
    held, classes = out.positions[0], 1 << folds
    if out.stride:
        before = np.concatenate([np.full(out.stride, NONE), held[: -out.stride]])
        first = np.flatnonzero((held >= 0) & (before != held))
        summed = _runs(held, first, out.stride) + classes - 1
        index = np.arange(-(-int(summed.max()) // classes) * classes)
        places = np.where(index < summed[:, None], first[:, None] + index * out.stride, NONE)
    else:
        first = np.flatnonzero(held[: out.period] >= 0)
        places = first[:, None] + np.arange(out.width // out.period) * out.period
    order = np.argsort(held[first], kind="stable")
    by_class = places[order].reshape(len(first), -1, classes).transpose(0, 2, 1)
    return Spots(by_class, starts(np.bincount(held[first], minlength=out.features)))


def _runs(held: Indices, first: Indices, stride: int) -> Indices:
    """How often each feature repeats after `first`, at every `stride`-th position."""
    lengths = np.ones_like(first)
    padded = np.append(held, np.full(stride, NONE))
    going = np.arange(len(first))
    while len(going):
        after = np.minimum(first[going] + lengths[going] * stride, len(held))
        going = going[padded[after] == held[first[going]]]
        lengths[going] += 1
    return lengths


def entries(matrix: SparseMatrix, layout: Layout, out: Layout, found: Spots) -> list[Entries]:
    """Where each entry of a matrix becomes a weight: in one class of each spot of its output, at few shifts in all."""
    row, column, values = matrix.row, matrix.column, matrix.values
    nonzero = values != 0
    row, column, values = row[nonzero], column[nonzero], values[nonzero]
    several = np.diff(found.start)[row]
    spot = gather(found.start, row)
    column, values = np.repeat(column, several), np.repeat(values, several)
    number = layout.home[0][column]
    # What shifts there are depends on how an input's copies lie, how a spot's places do, and how far they are apart.
    copies, every_place = _copies(layout), found.places.reshape(len(found.places), -1)
    away = copies[column, 0] - every_place[spot, 0]
    if not layout.stride:
        away %= layout.period
    lie = distinct(np.where(copies < 0, NONE, copies - copies[:, :1] + layout.period))
    like = distinct(np.where(every_place < 0, NONE, every_place - every_place[:, :1]))
    key = (lie.kind[column] * len(like.first) + like.kind[spot]) * layout.ciphertexts + number
    key = key * 4 * out.width + away
    _, first, kind = np.unique(key, return_index=True, return_inverse=True)
    weight = np.bincount(kind)
    shifts, classes = _candidates(layout, out, found, spot[first], column[first])
    chosen = _popular(shifts, weight, layout)
    every = np.arange(len(chosen))
    steps, of_class = shifts[every, chosen], classes[every, chosen]
    good = (chosen >= 0)[kind]
    places = found.places[spot[good], of_class[kind[good]]]
    made = [_weights(number[good], steps[kind[good], None], places, values[good])]
    if not good.all():
        made += _apart(layout, found, spot[~good], column[~good], values[~good])
    half = layout.cell // 2
    return [(n, (shift + half) % layout.period - half, place, value) for n, shift, place, value in made]


def _weights(number: Indices, shifts: Indices, places: Indices, values: Array) -> Entries:
    """An entry's weight at each of its places; `shifts` has one for all of them, or one for each."""
    here = places >= 0
    copies = here.sum(axis=1)
    shifts = np.broadcast_to(shifts, places.shape)[here]
    return np.repeat(number, copies), shifts, places[here], np.repeat(values, copies)


def _apart(layout: Layout, found: Spots, spot: Indices, column: Indices, values: Array) -> list[Entries]:
    """Entries that no single shift serves: each copy takes its own."""
    number, copies = layout.home[0][column], _copies(layout)[column]
    held = np.where(copies < 0, NONE, 0)
    first = found.places[spot, :, :1] - copies[:, None, :]
    shifts = np.where(held[:, None, :] < 0, NONE, -first % layout.period).reshape(len(spot), -1)
    kinds = distinct(shifts)
    chosen = _popular(shifts[kinds.first], np.bincount(kinds.kind), layout)[kinds.kind]
    places = found.places[spot, chosen // copies.shape[1]]
    made = []
    for copy in range(places.shape[1]):
        here = places[:, copy] >= 0
        shifts = np.where(held < 0, NONE, (copies - places[:, copy, None]) % layout.period)[here]
        kinds = distinct(shifts)
        chosen = _popular(shifts[kinds.first], np.bincount(kinds.kind), layout)[kinds.kind]
        steps = shifts[np.arange(len(shifts)), chosen]
        made.append((number[here], steps, places[here, copy], values[here]))
    return made


def _candidates(layout: Layout, out: Layout, found: Spots, spot: Indices, column: Indices) -> tuple[Indices, Indices]:
    """Shifts below the input's period that bring an entry's input to its spot, NONE where one does not; and the class
    of partial sums in which it then is: (entries, candidates) each."""
    held, period = layout.positions, layout.period
    copies = _copies(layout)[column]
    classes = found.places.shape[1]
    if layout.stride and not out.stride:
        # From each copy of the input: to the row of the output before it, or behind it.
        apart = copies - found.places[spot, 0, 0][:, None]
        rows = apart // out.period
        rows = np.concatenate([rows, rows + 1], axis=1)
        shift = (np.tile(apart, 2) - rows * out.period) % period
        kind = rows % classes
        shift = np.where(np.tile(copies, 2) < 0, NONE, shift)
    else:
        alike = not out.stride and out.period % period == 0
        kinds = np.arange(1 if alike else classes)
        apart = copies[:, None, :] - found.places[spot][:, kinds, :1]
        shift = np.where(copies[:, None, :] < 0, NONE, apart % period).reshape(len(spot), -1)
        kind = np.broadcast_to(np.repeat(kinds, copies.shape[1]), shift.shape)
    between = classes * (out.stride or out.period)
    if layout.stride or between % period:
        input_of = layout.home[0][column]
        for copy in range(1, found.places.shape[2]):
            place = found.places[spot[:, None], kind, copy]
            there = held[input_of[:, None], (place + shift) % period]
            shift = np.where((place < 0) | (there == column[:, None]), shift, NONE)
    return shift, kind


def _copies(layout: Layout) -> Indices:
    """Positions below the period that hold each feature, (features, copies); NONE where one has fewer."""
    if layout.ciphertexts > 1:
        return layout.home[1][:, None]
    held = layout.positions[0, : layout.period]
    order = np.argsort(held, kind="stable")[np.count_nonzero(held < 0) :]
    counts = np.bincount(held[order], minlength=layout.features)
    found = np.full((layout.features, int(counts.max())), NONE)
    found[held[order], positions(counts)] = order
    return found


def _popular(shifts: Indices, weight: Indices, layout: Layout) -> Indices:
    """The column of one shift of each row, such that few are distinct: the most common first, then the lowest.

    A row counts `weight` times. NONE for a row of NONE only.
    """
    half = layout.cell // 2  # a shift within a picture, back or forth, belongs to one between channels
    rows = np.where(shifts < 0, NONE, (shifts + half) % layout.period)
    chosen = np.full(len(rows), NONE)
    going = np.arange(len(rows))
    while len(going):
        left = rows[going]
        votes = np.bincount((left + 1).reshape(-1), np.repeat(weight[going], rows.shape[1]))
        votes[0] = 0
        if not votes.any():
            break
        best = votes.argmax() - 1
        has = left == best
        covered = has.any(axis=1)
        chosen[going[covered]] = has[covered].argmax(axis=1)
        going = going[~covered]
    return chosen
