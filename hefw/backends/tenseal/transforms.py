"""Whole linear transforms on arrays of residues: nothing between what they read and what they give is a ciphertext.

The order is that of `Evaluator.linear_transform`'s default, so that results are the same bit by bit; memory in between
is used again. Several threads take a rotation each while there are as many, and share what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hefw.backends.seal import transparent
from hefw.backends.tenseal.loops import address
from hefw.backends.tenseal.places import Pass, Plan, Turn, Wave
from hefw.backends.tenseal.switching import Key, Switching, Words

#: Addresses of the weights of a pass, valid until those of the next one are asked for.
Weights = Callable[[Pass], Sequence[int]]


@dataclass(frozen=True)
class Giant:
    """A giant step: what is turned, by how much, and what it is written or added to."""

    given: Words
    by: int
    out: Words
    more: bool


class Execution:
    """One run of a plan on inputs and outputs (2, level + 1, N)."""

    def __init__(
        self,
        switching: Switching,
        key: Callable[[int], Key],
        plan: Plan,
        inputs: Sequence[Words],
        weights: Weights,
        outs: Sequence[Words],
    ) -> None:
        self._switching = switching
        self._key = key
        self._plan = plan
        self._weights = weights
        self._outs = outs
        self._begun: set[int] = set()
        self._free: list[Words] = []
        self._made = 0
        self._shape = inputs[0].shape
        turned = switching.room.array("turned", plan.rotations, *self._shape)
        self._at = [*inputs, *turned]
        self._addresses = np.array([address(array) for array in self._at], np.uint64)

    def run(self) -> None:
        """Write the outputs. EncodingError if a sum hides nothing."""
        for turns in self._plan.rounds:
            self._switching.dealt(turns, self._turn)
        for wave in self._plan.waves(self._switching.threads):
            self._add_up(wave)
        for out in self._outs:
            for steps in self._plan.folds:
                self._switching.add_rotations([self._key(step) for step in steps], out)

    def _turn(self, turn: Turn) -> None:
        """Baby steps made of one ciphertext."""
        keys, outs = [self._key(step) for step, _ in turn.links], [self._at[place] for _, place in turn.links]
        self._switching.rotations(self._at[turn.source], keys, outs)

    def _add_up(self, wave: Wave) -> None:
        chains = wave.chains
        if chains[0].still:
            list(self._sums(wave.passes, (self._outs[chain.output] for chain in chains)))
            self._begun.update(chain.output for chain in chains)
            return
        most, sums = max(len(chain.sums) for chain in chains), self._sums(wave.passes, self._blanks())
        held: list[Words | None] = [None] * len(chains)
        for k in range(most + 1):
            apart: list[Giant] = []
            after: list[Giant] = []
            for n, chain in enumerate(chains):
                if k > len(chain.sums):
                    continue
                given, last = held[n], k == len(chain.sums)
                held[n] = out = self._outs[chain.output] if last else next(sums)
                if given is None:
                    continue
                more = not last or chain.output in self._begun
                giant = Giant(given, chain.sums[k - 1].by, out, more)
                (after if any(out is other.out for other in apart) else apart).append(giant)
                if last:
                    self._begun.add(chain.output)
            self._switching.dealt(apart, self._giant)
            for giant in after:
                self._giant(giant)
            self._free += [giant.given for giant in (*apart, *after)]

    def _giant(self, giant: Giant) -> None:
        self._switching.rotations(giant.given, [self._key(giant.by)], [giant.out], giant.more)

    def _sums(self, passes: Iterable[Pass], into: Iterator[Words]) -> Iterator[Words]:
        """Each sum of products, in turn."""
        for each in passes:
            outs = [next(into) for _ in range(len(each.starts) - 1)]
            weights = np.array(self._weights(each), np.uint64)
            cts, to = self._addresses[each.places], np.array([address(out) for out in outs], np.uint64)
            self._switching.sums(cts, weights, each.starts, to, self._shape[1])
            check_hidden(outs)
            yield from outs

    def _blanks(self) -> Iterator[Words]:
        """Arrays for sums, used again when these were turned."""
        while True:
            if not self._free:
                self._made += 1
                self._free.append(self._switching.room.array(f"sum {self._made}", *self._shape))
            yield self._free.pop()


def check_hidden(sums: Iterable[Words]) -> None:
    """EncodingError if one of some (2, level + 1, N) hides nothing."""
    if not all(each[1, 0, 0] or each[1].any() for each in sums):  # the whole is read where one number is 0
        raise transparent()
