"""What loops do to ciphertexts, as a tape of phases (`compiling.run`): written once, run many times.

A phase is in pieces that do not need each other, and says which phases it needs: the one before it on its *track*, and
sometimes another. Tracks have memory of their own, so that threads find work on one where there is none left on the
other. What a phase reads and writes is told by places: of ciphertexts first, then of memory that is written over.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hefw.backends.rns import abi

Order = NDArray[np.int64]
#: Addresses of residues (N,), by part and prime.
Rows = NDArray[np.uint64]

#: Rotations of one ciphertext that go side by side: what is between their phases stays in the cache.
AT_ONCE = 2
#: Parts of a row of products with a key: each row is dealt out in as many pieces.
SPLIT = 4
#: What goes side by side: two strands of rotations.
TRACKS = 2
#: Places of memory that is written over, after those of ciphertexts, by each track: a copy, a total, products.
COPY, TOTAL, PRODUCT = range(3)
EACH = PRODUCT + AT_ONCE
_COLUMNS = {
    "source": abi.SOURCE,
    "given": abi.GIVEN,
    "out": abi.OUT,
    "kept": abi.KEPT,
    "part": abi.PART,
    "added": abi.ADDED,
    "key": abi.KEY,
    "many": abi.MANY,
    "more": abi.MORE,
    "first": abi.FIRST,
    "last": abi.LAST,
}


@dataclass(frozen=True)
class Shape:
    """Of what a tape works on: primes that stay, those that are divided by, digits of a key switch, and N."""

    left: int
    dropped: int
    digits: int
    size: int

    @property
    def taken(self) -> int:
        """All primes of a product with a key."""
        return self.left + self.dropped

    def table(self, some: Sequence[Rows] | Rows) -> Rows:
        """Rows of some ciphertexts as a tape finds them by their places: (places, abi.MOST_PARTS, taken)."""
        found = np.zeros((len(some), abi.MOST_PARTS, self.taken), np.uint64)
        for one, rows in zip(found, some, strict=True):
            one[: rows.shape[0], : rows.shape[1]] = rows
        return found


@dataclass(frozen=True)
class Section:
    """Phases that need the weights of some products, beside what was made before: from the first to the last."""

    phases: tuple[int, int]
    products: tuple[int, int]


class Tape:
    """Phases on so many ciphertexts (parts, primes, N). `keys` are those that it uses, in turn.

    What is done in one place is done in the order in which it is said on one track. Between tracks it is where `needs`
    says so: the number of a phase that was returned before. A sum needs all that was said.
    """

    def __init__(self, shape: Shape, places: int) -> None:
        self.shape = shape
        self.keys: list[int] = []
        self.tracks = 1
        self._kept = places
        self._meanwhile: tuple[int, Rows] = 0, np.empty(0, np.uint64)
        self._phases: list[list[int]] = []
        self._last = [abi.NONE] * TRACKS
        self._length = [0] * TRACKS  # phases
        self._cuts: list[tuple[int, int]] = []  # phases that add up, and their first products
        self._terms: list[int] = []
        self._starts = [0]
        self._outs: list[int] = []

    # -- what is done --------------------------------------------------------------------------------------------

    @property
    def shorter(self) -> int:
        """The track with fewer phases."""
        return self._length.index(min(self._length))

    def turn(
        self,
        source: int,
        outs: Sequence[int],
        keys: Sequence[int],
        *,
        part: int = 1,
        added: int = 1,
        more: bool = False,
        track: int = 0,
        needs: int = abi.NONE,
        written: int = abi.NONE,
    ) -> int:
        """Switch a part of a ciphertext by each of some keys, add its first parts, and turn: to places in a row.

        With `more` that is added to what is there, which `written` is the last phase to write. `needs` is that of what
        is turned. The last phase of it all.
        """
        self._apart(source, part, track, needs)
        shape, product = self.shape, self._place(PRODUCT, track)
        last = abi.NONE
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            many, key = len(some), self._used(some)
            pieces = many * shape.taken * min(SPLIT, max(1, shape.size // abi.BLOCK))
            self._add(abi.PRODUCTS, pieces, track, source=source, part=part, kept=product, key=key, many=many)
            self._divide(product, many, track)
            last = self._add(
                abi.TURNED,
                2 * many * shape.left,
                track,
                written,
                source=product,
                given=source,
                added=added,
                out=outs[start],
                key=key,
                many=many,
                more=int(more),
            )
        return last

    def add_turned(self, place: int, keys: Sequence[int], *, track: int = 0, needs: int = abi.NONE) -> int:
        """Add what is at a place, turned by each of some keys, to it: with one division for all. The last phase."""
        shape = self.shape
        copy, total, product = (self._place(which, track) for which in (COPY, TOTAL, PRODUCT))
        self._add(abi.BEGUN, shape.taken, track, needs, source=copy, given=total, out=place)
        self._apart(copy, 1, track)
        for key in keys:
            use, pieces = self._used([key]), shape.taken
            self._add(abi.ADDED_UP, pieces, track, source=copy, part=1, given=total, out=place, kept=product, key=use)
        self._divide(total, 1, track)
        return self._add(abi.FOLDED, 2 * shape.left, track, source=total, out=place)

    def sum(self, sums: Iterable[tuple[Sequence[int], int]]) -> None:
        """Sums of products of what is at some places with weights, each written to a place: in one pass."""
        first = len(self._outs)
        for terms, out in sums:
            self._terms += terms
            self._starts.append(len(self._terms))
            self._outs.append(out)
        self._cuts.append((len(self._phases), self._starts[first]))
        shape = self.shape
        blocks = shape.left * shape.size // min(abi.BLOCK, shape.size)
        last = self._add(abi.SUMMED, blocks, 0, self._last[1], first=first, last=len(self._outs))
        self._last = [last] * TRACKS

    def divide(self, source: int, out: int) -> None:
        """Divide a ciphertext by its last prime."""
        self._divide(source, 1, 0)
        self._add(abi.RESCALED, 2 * self.shape.left, 0, source=source, out=out)

    def square(self, source: int, out: int) -> None:
        """Write the three parts of a square."""
        self._add(abi.SQUARED, self.shape.left, 0, source=source, out=out)

    # -- what comes of it ----------------------------------------------------------------------------------------

    @cached_property
    def _arrays(self) -> tuple[Order, ...]:
        return tuple(np.array(some, np.int64) for some in (self._phases, self._terms, self._starts, self._outs))

    @cached_property
    def addresses(self) -> tuple[int, ...]:
        """When all is said: of phases, of the places that all products read, of where each sum of them begins, and of
        the places where sums go."""
        return tuple(array.ctypes.data for array in self._arrays)

    def kept(self, room: int) -> Rows:
        """Rows of ciphertexts modulo all primes that are kept meanwhile, in memory from an address on."""
        at, found = self._meanwhile  # of whichever thread was here last
        if at != room:
            taken, count = self.shape.taken, self.tracks * EACH
            begins = np.arange(count * 2 * taken, dtype=np.uint64) * np.uint64(8 * self.shape.size) + np.uint64(room)
            found = self.shape.table(begins.reshape(count, 2, taken))
            self._meanwhile = room, found
        return found

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """Its parts in turn, each with the weights of one pass over what sums read."""
        cuts = [(0, 0), *self._cuts[1:], (len(self._phases), len(self._terms))]
        return tuple(
            Section((phase, end), (product, last)) for (phase, product), (end, last) in itertools.pairwise(cuts)
        )

    @cached_property
    def whole(self) -> Section:
        """All of it."""
        return Section((0, len(self._phases)), (0, len(self._terms)))

    @property
    def sums(self) -> int:
        """How many there are."""
        return len(self._outs)

    def _place(self, which: int, track: int) -> int:
        """Of memory of a track."""
        return self._kept + track * EACH + which

    def _apart(self, source: int, part: int, track: int, needs: int = abi.NONE) -> None:
        shape = self.shape
        self._add(abi.STRAIGHT, shape.left, track, needs, source=source, part=part)
        self._add(abi.MIXED, shape.digits, track)
        self._add(abi.APART, shape.digits * shape.taken, track)

    def _divide(self, source: int, many: int, track: int) -> None:
        self._add(abi.TOPS, 2 * many * self.shape.dropped, track, source=source, many=many)
        if self.shape.dropped > 1:
            self._add(abi.MIXED_TOPS, 2 * many, track)

    def _used(self, keys: Sequence[int]) -> int:
        self.keys += keys
        return len(self.keys) - len(keys)

    def _add(self, kind: int, pieces: int, track: int, also: int = abi.NONE, **columns: int) -> int:
        phase, number = [0] * abi.PHASE, len(self._phases)
        phase[abi.KIND], phase[abi.PIECES], phase[abi.MANY] = kind, pieces, 1
        phase[abi.TRACK], phase[abi.NEEDS], phase[abi.ALSO] = track, self._last[track], also
        for name, value in columns.items():
            phase[_COLUMNS[name]] = value
        self._phases.append(phase)
        self._last[track] = number
        self._length[track] += 1
        self.tracks = max(self.tracks, track + 1)
        return number
