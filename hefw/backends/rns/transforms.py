"""Whole linear transforms on residues, written down once as tapes: nothing in between is a ciphertext.

Baby steps come first, then sums of products, each turned by its giant step and added to the next one. Results are those
of `Evaluator.linear_transform`'s default bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence

from hefw.backends.rns import abi
from hefw.backends.rns.places import Chain, Plan, Sum, at_once
from hefw.backends.rns.tape import TRACKS, Shape, Tape


class Written:
    """A plan's tape at a level, whose keys are rotations by slots.

    Its places are those of the plan, then its outputs, then sums that are turned. Strands that do not need each other
    go side by side.
    """

    def __init__(self, plan: Plan, shape: Shape) -> None:
        self.outputs = plan.outputs
        self.source = plan.source
        self.rotations = plan.rotations
        chains = [chain for chain in plan.chains if not chain.still]
        pairs = [chains[k : k + TRACKS] for k in range(0, len(chains), TRACKS)]
        self.turned = max((sum(len(chain.sums) for chain in pair) for pair in pairs), default=0)
        self.sums: list[Sum] = []  # in the order of the tape
        self._outs = len(plan.source)
        self._between = self._outs + plan.outputs
        self._written: dict[int, int] = {}  # the last phase that writes an output, by output
        self.tape = Tape(shape, self._between + self.turned)
        self._turn_inputs(plan)
        still = [chain.sums[0] for chain in plan.chains if chain.still]
        self._add_up(still, [self._outs + each.output for each in still])
        self._written = {each.output: abi.NONE for each in still}
        for pair in pairs:
            self._turn_sums(pair)
        for output in range(plan.outputs):
            track, last = self.tape.shorter, self._written[output]
            for steps in plan.folds:
                last = self.tape.add_turned(self._outs + output, steps, track=track, needs=last)

    def _turn_inputs(self, plan: Plan) -> None:
        """Baby steps, each as soon as what it turns is there: on the track that has less to do, if possible what goes
        on from its own."""
        made = dict.fromkeys(range(plan.inputs), (abi.NONE, abi.NONE))  # track and phase, by place
        waiting = list(plan.turns)
        while waiting:
            track = self.tape.shorter
            there = [turn for turn in waiting if turn.source in made]
            turn = next((turn for turn in there if made[turn.source][0] == track), there[0])
            waiting.remove(turn)
            steps, places = zip(*turn.links, strict=True)
            last = self.tape.turn(turn.source, places, steps, track=track, needs=made[turn.source][1])
            made |= dict.fromkeys(places, (track, last))

    def _turn_sums(self, chains: Sequence[Chain]) -> None:
        """Giant steps of some outputs' strands, side by side."""
        begin, every = self._between, []
        for chain in chains:
            every.append([*range(begin, begin + len(chain.sums)), self._outs + chain.output])
            begin += len(chain.sums)
        self._add_up(
            [each for chain in chains for each in chain.sums], [place for places in every for place in places[:-1]]
        )
        for k in range(max(len(chain.sums) for chain in chains)):
            for track, (chain, places) in enumerate(zip(chains, every, strict=True)):
                if k < len(chain.sums):
                    self._turn_sum(chain, k, places, track)

    def _turn_sum(self, chain: Chain, k: int, places: Sequence[int], track: int) -> None:
        """One of a strand: added to the next, the last to the output."""
        by, outwards = chain.sums[k].by, k + 1 == len(chain.sums)
        more = not outwards or chain.output in self._written
        written = self._written.get(chain.output, abi.NONE) if outwards else abi.NONE
        last = self.tape.turn(places[k], [places[k + 1]], [by], more=more, track=track, written=written)
        if outwards:
            self._written[chain.output] = last

    def _add_up(self, sums: Sequence[Sum], places: Sequence[int]) -> None:
        self.sums += sums
        waiting = iter(places)
        for some in at_once(sums):
            self.tape.sum([([place for place, _ in each.terms], next(waiting)) for each in some])
