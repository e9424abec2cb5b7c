"""Matrices times packed vectors: generalised diagonals, and their split into baby steps and giant steps.

A matrix becomes, for each pair of ciphertexts, vectors over positions: out[f] = sum_d diagonal_d[f] * in[f + d].
All-zero diagonals do not exist. An output of a small period may be computed in several partial sums that are *folded*
together by a few rotations (the hybrid method of Gazelle), so that free positions carry useful weights. Products are
counted before any vector is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hefw.core import replicas
from hefw.core.errors import LoweringError
from hefw.core.factors import Factors, factored
from hefw.core.layout import Layout
from hefw.core.linear import Group, Term, Transform
from hefw.core.sparse import SparseMatrix
from hefw.core.turning import chain_keys, folded_at_once, nearest, paired


@dataclass(frozen=True)
class LinearCost:
    """Relative costs at the level of a transform: a rotation, a product with a vector, a new key, a product with a
    constant, one in a matrix of numbers (None: as with a vector), and a ciphertext that such a matrix reads or writes.
    If `chained`, rotations are made of each other; others of the same ciphertext do not take the `shared` part of one.
    """

    rotate: float
    mul_plain: float
    new_key: float = 0.0
    mul_constant: float | None = None
    mul_number: float | None = None
    chained: bool = False
    number_ct: float = 0.0
    shared: float = 0.0

    def products(self, vectors: int, constants: int) -> float:
        """Of so many products."""
        constant = self.mul_constant
        return self.mul_plain * (vectors + (constants if constant is None else 0)) + (constant or 0.0) * constants

    def matrix(self, numbers: int, ciphertexts: int) -> float:
        """Of a matrix of numbers (`Transform.numeric`) that reads and writes so many ciphertexts."""
        if self.mul_number is None:
            return self.products(0, numbers)
        return self.mul_number * numbers + self.number_ct * ciphertexts


#: Baby-step counts tried: all up to the first number, then multiples of the second.
FINE_SPLITS = 40
COARSE_SPLIT = 8
#: Relative difference up to which two costs may be one, added up in another order.
TIE = 1e-9
#: Channels, and no more, that baby steps go through besides a picture's columns.
MOST_TIMES = 9

#: (output ciphertext, input number, shift in positions) -> vector over positions
Diagonals = dict[tuple[int, int, int], NDArray[np.float64]]
Matrices = Sequence[tuple[SparseMatrix, Layout]]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Products:
    """The distinct diagonals of a transform, in order: which output, input number and shift, (products,) each.

    `constant` tells those that are one number at all positions. Entry k of the matrices is `values[k]` at position
    `places[k]` of diagonal `of[k]`; positions repeat after `span`.
    """

    outputs: Indices
    numbers: Indices
    shifts: Indices
    constant: NDArray[np.bool_]
    of: Indices
    places: Indices
    values: NDArray[np.float64]
    span: int

    def vectors(self, width: int) -> NDArray[np.float64]:
        """The diagonals over all positions: (products, width)."""
        return np.tile(self.spans, width // self.span)

    @property
    def spans(self) -> NDArray[np.float64]:
        """The diagonals over the positions after which they repeat: (products, span)."""
        found = np.zeros((len(self.shifts), self.span))
        found[self.of, self.places] = self.values
        return found


@dataclass(frozen=True, eq=False)
class Method:
    """How a transform is evaluated, and what that takes: the products before folds by so many positions, and the part
    of each one's shift that is a baby step. `rotations` are executed at every evaluation, by the keys of `steps` (in
    slots).

    With `factors`, inputs are masked after their baby steps, which are those of `factors.shifts`, and a matrix of
    numbers is left to multiply; it writes so many `sums`. `shared` rotations are of ciphertexts that are taken apart
    for others, too."""

    products: Products
    folds: tuple[int, ...]
    baby: Indices  # (products,)
    cost: float
    rotations: int
    steps: frozenset[int]
    chained: bool = False
    factors: Factors | None = None
    sums: int = 0
    radix: int | None = None
    shared: int = 0

    @property
    def scalar(self) -> bool:
        """Whether it is a matrix of numbers times ciphertexts, and nothing else."""
        return not self.rotations and not self.vectors

    @property
    def constants(self) -> int:
        """Products with one number for all slots."""
        if self.factors is not None:
            return len(self.factors.values) + len(self.factors.of) - self.vectors
        return int(np.count_nonzero(self.products.constant))

    @property
    def vectors(self) -> int:
        """Products with an encoded vector."""
        return len(self.products.constant) - self.constants if self.factors is None else self.factors.vectors

    @property
    def encodings(self) -> int:
        """Vectors that are encoded; several products may have one in common."""
        return self.vectors if self.factors is None else self.factors.encodings

    def evaluation(self, cost: LinearCost) -> float:
        """What an evaluation costs."""
        turned = cost.rotate * self.rotations - cost.shared * self.shared
        if self.factors is not None:
            masked = len(self.factors.of)
            return turned + _factors_cost(self.factors, cost) + cost.matrix(0, masked + self.sums)
        if self.scalar:
            found = self.products
            read = len(np.unique(found.numbers)) + len(np.unique(found.outputs))
            return turned + cost.matrix(self.constants, read)
        return turned + cost.products(self.vectors, self.constants)


def _factors_cost(factors: Factors, cost: LinearCost) -> float:
    """Masks, and numbers."""
    return cost.products(len(factors.of), 0) + cost.matrix(len(factors.values), 0)


def inputs_of(matrices: Matrices) -> list[tuple[int, int]]:
    """The (source, ciphertext) of each input number: all ciphertexts of the first source, then of the next."""
    return [(source, ct) for source, (_, layout) in enumerate(matrices) for ct in range(layout.ciphertexts)]


def diagonals(matrices: Matrices, out: Layout, folds: int = 0) -> Diagonals:
    """The diagonals of several matrices that add into one output.

    After `folds` rotations by period, 2 * period, ... have been added, position f holds the sum of 2**folds partial
    sums at f, f + period, ...; each entry is put into exactly one of them, so that the shifts stay below the period.
    """
    found = products(matrices, out, folds)
    names = zip(found.outputs.tolist(), found.numbers.tolist(), found.shifts.tolist(), strict=True)
    return dict(zip(names, found.vectors(out.width), strict=True))


def products(matrices: Matrices, out: Layout, folds: int = 0) -> Products:
    """The products of `diagonals`, without their vectors: what counting them takes."""
    width = out.cycle
    if not out.stride and out.period << folds > width:
        raise LoweringError(f"{folds} folds of a period of {out.period} exceed {width} positions")
    for matrix, layout in matrices:
        if matrix.shape != (out.features, layout.features):
            raise LoweringError(f"a matrix of {matrix.shape} does not map {layout.features} to {out.features} features")
    if _fills(matrices, out):
        return _replicated(matrices, out, folds)
    out_ct, places = out.home[0], out.copies
    # From there on outputs and inputs repeat.
    span = max([out.period << folds, *(layout.period for _, layout in matrices)])
    inputs = len(inputs_of(matrices))
    found: list[tuple[Indices, Indices, NDArray[np.float64]]] = []
    first = 0
    for matrix, layout in matrices:
        in_ct, _ = layout.home
        row, column, values = matrix.row, matrix.column, matrix.values
        nonzero = values != 0
        # An entry is computed at every copy of its output feature, from whichever copy of its input suits.
        row, column, values = (np.repeat(a[nonzero], places.shape[1]) for a in (row, column, values))
        out_place = places[row[:: places.shape[1]]].reshape(-1)
        turn = layout.period if layout.blocks == 1 else width
        base = _popular((layout.copies[column] - out_place[:, None]) % turn)
        partial = (base // out.period) % (1 << folds)
        pair = (out_ct[row] * inputs + first + in_ct[column]) * width
        for start in range(0, span // out.period, 1 << folds):
            copy = start + partial
            shift = (base - copy * out.period) % turn
            found.append((pair + shift, out_place + copy * out.period, values))
        first += layout.ciphertexts
    return _ordered(found, inputs, width, span)


def _fills(matrices: Matrices, out: Layout) -> bool:
    """Whether layouts are made for weights that fill a ciphertext."""
    return out.ciphertexts == 1 and any(layout.cell > 1 or layout.stride for layout in (out, *(m[1] for m in matrices)))


def _replicated(matrices: Matrices, out: Layout, folds: int) -> Products:
    """The same with weights in all replicas of inputs and output."""
    width, spots = out.width, replicas.spots(out, folds)
    found: list[tuple[Indices, Indices, NDArray[np.float64]]] = []
    first = 0
    for matrix, layout in matrices:
        for number, shift, place, values in replicas.entries(matrix, layout, out, spots):
            found.append(((first + number) * width + shift % width, place, values))
        first += layout.ciphertexts
    return _ordered(found, first, width, width)


def _ordered(
    found: Sequence[tuple[Indices, Indices, NDArray[np.float64]]], inputs: int, width: int, span: int
) -> Products:
    """Weights, given as their keys, (output * inputs + number) * width + shift, their places, and their values."""
    keys, where, entries = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begins = np.diff(ordered, prepend=-1) != 0
    starts = np.flatnonzero(begins)
    names, of = ordered[starts], np.empty(len(keys), dtype=np.int64)
    of[order] = np.cumsum(begins) - 1
    constant = np.zeros(len(names), dtype=bool)
    if len(names):
        sorted_entries = entries[order]
        same = np.minimum.reduceat(sorted_entries, starts) == np.maximum.reduceat(sorted_entries, starts)
        constant = same & (np.diff(starts, append=len(keys)) == span)
    pairs = names // width
    return Products(pairs // inputs, pairs % inputs, names % width, constant, of, where, entries, span)


def _popular(candidates: Indices) -> Indices:
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
    matrices: Matrices,
    out: Layout,
    cost: LinearCost,
    keys: Iterable[int] = (),
    most_folds: int | None = None,
) -> Transform:
    """The cheapest baby-step giant-step evaluation of the sum of `matrices` times their sources, by counted cost.

    In one stage: nothing is masked beforehand.
    """
    return build(matrices, out, cheapest(matrices, out, replace(cost, mul_number=None), keys, most_folds)).transform


def cheapest(
    matrices: Matrices,
    out: Layout,
    cost: LinearCost,
    keys: Iterable[int] = (),
    most_folds: int | None = None,
) -> Method:
    """The method of least counted cost; nothing of the size of the weights is made.

    Tries every number of folds (up to `most_folds`) and every split of the shifts; `keys` are rotations (in slots)
    whose keys exist already.
    """
    existing = np.array(sorted({step // out.batch for step in keys}), dtype=np.int64)
    best: Method | None = None
    for folds in _folds(matrices, out):
        if folds and most_folds is not None and folds > most_folds:
            break
        found = products(matrices, out, folds)
        if len(np.unique(found.outputs)) < out.ciphertexts:
            break
        ways: list[Factors | None] = [None]
        if out.blocks > 1 and cost.mul_number is not None and not found.constant.all():
            ways.append(factored(found.outputs, found.numbers, found.shifts, found.spans))
        for factors in ways:
            method = _best_split(found, folds, out, cost, existing, factors)
            if best is None or method.cost < best.cost:
                best = method
    if best is None:
        raise LoweringError("a ciphertext of the output receives no nonzero weight: there is nothing to evaluate")
    return best


def _folds(matrices: Matrices, out: Layout) -> Iterable[int]:
    """Numbers of folds that are worth counting."""
    if out.stride:
        return range(out.window.bit_length() - 1, out.window.bit_length())
    most = (out.width // out.period).bit_length() - 1
    if out.ciphertexts == 1 and any(layout.stride for _, layout in matrices):
        return range(most, most + 1)  # every row has something else
    longest = max(layout.period for _, layout in matrices)
    # The inputs must have entries for so many partial sums.
    useful = [k for k in range(most + 1) if not k or out.period << k <= longest]
    return useful[-1:] if _fills(matrices, out) else useful


def _best_split(
    found: Products, folds: int, out: Layout, cost: LinearCost, known: Indices, factors: Factors | None
) -> Method:
    """The cheapest split of the shifts into baby and giant steps."""
    width = out.cycle
    doubled = tuple((out.stride or out.period) << k for k in range(folds))
    turns = paired(doubled) if cost.chained and cost.shared else doubled
    constants = int(np.count_nonzero(found.constant))
    scalar = constants == len(found.shifts) and not folds and not found.shifts.any()
    folded = (len(turns) - len(folded_at_once(turns))) * out.ciphertexts  # of a ciphertext that is taken apart anyway
    fixed = cost.rotate * len(turns) * out.ciphertexts - cost.shared * folded
    if factors is not None:
        fixed += _factors_cost(factors, cost) + cost.matrix(0, len(factors.of))
    elif scalar:
        fixed += cost.matrix(constants, len(np.unique(found.numbers)) + out.ciphertexts)
    else:
        fixed += cost.products(len(found.shifts) - constants, constants)
    # Products of one input and shift share a baby step, of one output and shift a giant step.
    read = np.unique(found.numbers * width + found.shifts)
    read_by, read_shift = read // width, read % width
    made = np.unique(found.outputs * width + found.shifts)
    made_by, made_shift = made // width, made % width
    shifts = found.shifts if factors is None else factors.shifts
    best: Method | None = None
    existing = set(known.tolist())
    for split in _splits(found.shifts, width, out):
        baby = split.baby(read_shift)
        giant = made_shift - split.baby(made_shift)
        babies = np.unique((read_by * width + baby % width)[baby != 0])
        giants = np.unique((made_by * width + giant % width)[giant % width != 0])
        sums = 0 if factors is None else len(np.unique(made_by * width + giant % width))
        rest = fixed + cost.rotate * len(giants) + (cost.matrix(0, sums) if sums else 0.0)
        # Most splits cannot win, whatever keys they take: each input that is turned is taken apart at least once.
        least = (cost.rotate - cost.shared) * len(babies) + cost.shared * len(np.unique(babies // width))
        if best is not None and rest + least > best.cost * (1 + TIE):
            continue
        giant_steps = _links(giants, width) if cost.chained else set((giants % width).tolist())
        for radix in _radices(babies, width, cost):
            turned, apart, baby_steps = _turned_by(babies, width, radix, cost)
            steps = baby_steps | giant_steps | set(turns)
            new = len(steps - existing)
            total = rest + cost.rotate * turned - cost.shared * (turned - apart) + cost.new_key * new
            if best is None or total < best.cost:
                best = Method(
                    found,
                    turns,
                    split.baby(shifts),
                    total,
                    rotations=turned + len(giants) + len(turns) * out.ciphertexts,
                    steps=frozenset(step * out.batch for step in steps),
                    chained=cost.chained,
                    factors=factors,
                    sums=sums,
                    radix=None if radix is None else radix * out.batch,
                    shared=turned - apart + folded,
                )
    assert best is not None  # there is a product for each output
    return best


def _radices(babies: Indices, width: int, cost: LinearCost) -> Iterator[int | None]:
    """Ways to make baby steps of each other that are worth counting: `Transform.radix`, in positions."""
    yield None
    if cost.chained and cost.shared and len(babies):
        steps = babies % width
        largest = int(np.minimum(steps, width - steps).max())
        yield from (0, *(2 << k for k in range(largest.bit_length())))


def _turned_by(babies: Indices, width: int, radix: int | None, cost: LinearCost) -> tuple[int, int, set[int]]:
    """Rotations of inputs, ciphertexts that are taken apart for them, and the steps whose keys that takes.

    `babies` are number * width + step each.
    """
    if radix is None:
        return len(babies), len(babies), _links(babies, width) if cost.chained else set((babies % width).tolist())
    steps = babies % width
    near = nearest(steps, radix, width)
    by = (steps - near) % width
    made = np.unique((babies - steps + near)[near != 0])  # of the input itself
    apart = np.unique((babies - steps + near)[by != 0])
    whole = np.unique(babies - steps)
    count = len(made) + int(np.count_nonzero(by))
    return count, len(np.union1d(whole, apart)), {*(made % width).tolist(), *by[by != 0].tolist()}


def _links(turned: Indices, width: int) -> set[int]:
    """Rotations that are made of each other: of so many inputs or outputs, `turned` are number * width + step each."""
    numbers = np.flatnonzero(np.diff(turned // width, prepend=-1))
    kinds = {tuple(some.tolist()) for some in np.split(turned % width, numbers[1:])} if len(turned) else set()
    return {by for steps in kinds for by in chain_keys(steps, width)}


@dataclass(frozen=True)
class Split:
    """Baby steps are a shift's remainder by `modulus`, from -`offset` on.

    With `outer`, they are also its multiples of that below `outer` * `times`: of a picture's columns and some channels,
    say, while giant steps are its rows and the other channels.
    """

    modulus: int
    offset: int
    outer: int = 0
    times: int = 1

    def baby(self, shifts: Indices) -> Indices:
        """That part of each shift."""
        inner: Indices = (shifts + self.offset) % self.modulus - self.offset
        if not self.outer:
            return inner
        return inner + (shifts + self.outer // 2) // self.outer % self.times * self.outer


def _splits(shifts: Indices, width: int, out: Layout) -> Iterator[Split]:
    """Those worth counting for products of these shifts."""
    largest = int(np.minimum(shifts, width - shifts).max()) + 1
    fine, coarse = (FINE_SPLITS, COARSE_SPLIT) if out.cell == 1 else (out.cell, out.cell)
    for modulus in [m for m in range(1, largest + 1) if m <= fine or m % coarse == 0 or m == largest]:
        for offset in {0, modulus // 2}:
            yield Split(modulus, offset)
    if out.cell > 1:
        for modulus in (1 << k for k in range(out.cell.bit_length() - 1)):
            for times in range(2, MOST_TIMES):
                yield Split(modulus, modulus // 2, out.cell, times)


@dataclass(frozen=True, eq=False)
class Stages:
    """Transforms that follow each other: of all inputs, and, where they are masked before, of masked ones."""

    transform: Transform
    masks: Transform | None = None


def build(matrices: Matrices, out: Layout, method: Method) -> Stages:
    """The transforms that evaluate by a method, with their weights."""
    if method.factors is not None:
        return _masked(matrices, out, method, method.factors)
    numbers = inputs_of(matrices)
    found, width = method.products, out.cycle
    babies: list[set[int]] = [set() for _ in numbers]
    groups: list[dict[int, list[Term]]] = [{} for _ in range(out.ciphertexts)]
    baby = method.baby
    giants = (found.shifts - baby) % width
    steps = baby % width * out.batch
    for index, (ct, number, giant, step) in enumerate(
        zip(found.outputs.tolist(), found.numbers.tolist(), giants.tolist(), steps.tolist(), strict=True)
    ):
        babies[number].add(step)
        groups[ct].setdefault(giant, []).append(Term(number, step, index))
    source_of = np.array([source for source, _ in numbers])
    sources = source_of[found.numbers].tolist()
    return Stages(
        Transform(
            babies=tuple(tuple(sorted(steps)) for steps in babies),
            outputs=_outputs(groups, out.batch),
            folds=tuple(fold * out.batch for fold in method.folds),
            weights=_turned(found.vectors(width), giants),
            weight_sources=tuple(sources),
            batch=out.batch,
            chained=method.chained,
            radix=method.radix,
        )
    )


def _outputs(groups: Sequence[dict[int, list[Term]]], batch: int) -> tuple[tuple[Group, ...], ...]:
    """The terms of each output by their giant step, given in positions."""
    return tuple(
        tuple(Group(giant * batch, tuple(terms)) for giant, terms in sorted(by_giant.items())) for by_giant in groups
    )


def _turned(vectors: NDArray[np.float64], giants: Indices) -> NDArray[np.float64]:
    """rotate(inner, g)[f] = inner[f + g]: a weight is shifted back so that it meets its position there."""
    width = vectors.shape[1]
    turned = (np.arange(width) - giants[:, None]) % width
    return np.take_along_axis(vectors, turned, axis=1)


def _masked(matrices: Matrices, out: Layout, method: Method, factors: Factors) -> Stages:
    """Masks of rotated inputs, a ciphertext each, and numbers."""
    width, numbers = out.cycle, inputs_of(matrices)
    source_of = np.array([source for source, _ in numbers])
    giants = (factors.shifts - method.baby) % width
    steps = (method.baby % width * out.batch).tolist()
    # A mask that is turned back by as much is the same one.
    kinds, of = np.unique(np.stack([factors.of, giants % factors.masks.shape[1]], axis=1), axis=0, return_inverse=True)
    turned = _turned(factors.masks[kinds[:, 0]], kinds[:, 1])
    patterns, same = np.unique(turned, axis=0, return_inverse=True)
    of = same.reshape(-1)[of.reshape(-1)].tolist()
    babies: list[set[int]] = [set() for _ in numbers]
    for number, step in zip(factors.numbers.tolist(), steps, strict=True):
        babies[number].add(step)
    masks = Transform(
        babies=tuple(tuple(sorted(some)) for some in babies),
        outputs=tuple(
            (Group(0, (Term(number, step, mask),)),)
            for number, step, mask in zip(factors.numbers.tolist(), steps, of, strict=True)
        ),
        folds=(),
        weights=np.tile(patterns, width // patterns.shape[1]),
        weight_sources=(0,) * len(patterns),
        batch=out.batch,
        chained=method.chained,
        radix=method.radix,
    )
    groups: list[dict[int, list[Term]]] = [{} for _ in range(out.ciphertexts)]
    for index, (ct, read) in enumerate(zip(factors.outputs.tolist(), factors.reads.tolist(), strict=True)):
        groups[ct].setdefault(int(giants[read]), []).append(Term(read, 0, index))
    transform = Transform(
        babies=((0,),) * len(factors.of),
        outputs=_outputs(groups, out.batch),
        folds=(),
        weights=factors.values[:, None],
        weight_sources=tuple(source_of[factors.numbers[factors.reads]].tolist()),
        batch=out.slots,
        chained=method.chained,
    )
    return Stages(transform, masks)
