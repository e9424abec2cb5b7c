"""Whole linear transforms on residues, written down once as tapes: nothing in between is a ciphertext.

Baby steps come first, then sums of products, each turned by its giant step and added to the next one. Results are those
of `Evaluator.linear_transform`'s default bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence

from hefw.backends.rns.places import Chain, Plan, Sum, at_once
from hefw.backends.rns.tape import Shape, Tape


class Written:
    """A plan's tape at a level, whose keys are rotations by slots.

    Its places are those of the plan, then its outputs, then sums that are turned.
    """

    def __init__(self, plan: Plan, shape: Shape) -> None:
        self.outputs = plan.outputs
        self.source = plan.source
        self.rotations = plan.rotations
        self.turned = max((len(chain.sums) for chain in plan.chains if not chain.still), default=0)
        self.sums: list[Sum] = []  # in the order of the tape
        self._outs = len(plan.source)
        self._between = self._outs + plan.outputs
        self.tape = Tape(shape, self._between + self.turned)
        for turn in plan.turns:
            steps, places = zip(*turn.links, strict=True)
            self.tape.turn(turn.source, places, steps)
        still = [chain.sums[0] for chain in plan.chains if chain.still]
        self._add_up(still, [self._outs + each.output for each in still])
        begun = {each.output for each in still}
        for chain in plan.chains:
            if not chain.still:
                self._turn(chain, chain.output in begun)
                begun.add(chain.output)
        for output in range(plan.outputs):
            for steps in plan.folds:
                self.tape.add_turned(self._outs + output, steps)

    def _turn(self, chain: Chain, begun: bool) -> None:
        places = [*range(self._between, self._between + len(chain.sums)), self._outs + chain.output]
        self._add_up(chain.sums, places)
        for k, each in enumerate(chain.sums):
            self.tape.turn(places[k], [places[k + 1]], [each.by], more=begun or k + 1 < len(chain.sums))

    def _add_up(self, sums: Sequence[Sum], places: Sequence[int]) -> None:
        self.sums += sums
        waiting = iter(places)
        for some in at_once(sums):
            self.tape.sum([([place for place, _ in each.terms], next(waiting)) for each in some])
