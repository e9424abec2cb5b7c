"""Rotations of one ciphertext by several steps, some made of others: by fewer keys, and with less work.

Libraries take a ciphertext apart before they turn it. Where that can be shared (hoisting), all rotations made of one
ciphertext cost less than as many made of each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

#: A strand of so many links, with more than this share of all, is cut in two.
SHORTEST_CUT, EVEN = 4, 2 / 3


@dataclass(frozen=True)
class Link:
    """A rotation to `step` slots that is made of the one to `before`, by a rotation `by` what is between."""

    step: int
    before: int
    by: int


Links = tuple[Link, ...]
Step = TypeVar("Step", int, NDArray[np.int64])


def chain(steps: Iterable[int], slots: int) -> tuple[Links, ...]:
    """Rotations made of each other, in strands that begin at 0 and do not need each other: (strands, links).

    Steps at even distances take the key of the distance alone, to each side. Where nearly all are on one side, that is
    cut in two: noise adds up along a strand. All are modulo `slots`, and 0 is left out.
    """
    return tuple(_outwards(strand, slots) for strand in _strands(steps, slots))


def chain_keys(steps: Iterable[int], slots: int) -> set[int]:
    """The rotations that a `chain` is made by, counted many times over: no link is made."""
    return {
        (step - before) % slots
        for strand in _strands(steps, slots)
        for before, step in zip([0, *strand], strand, strict=False)
    }


def _strands(steps: Iterable[int], slots: int) -> list[list[int]]:
    near = {step % slots for step in steps} - {0}
    strands = [
        sorted(step for step in near if step <= slots // 2),
        sorted((step - slots for step in near if step > slots // 2), reverse=True),
    ]
    longest = max(strands, key=len)
    if len(longest) >= SHORTEST_CUT and len(longest) > EVEN * len(near):
        strands.remove(longest)
        strands += [longest[: len(near) // 2], longest[len(near) // 2 :]]
    return [strand for strand in strands if strand]


def _outwards(strand: Sequence[int], slots: int) -> Links:
    return tuple(
        Link(step % slots, before % slots, (step - before) % slots)
        for before, step in zip([0, *strand], strand, strict=False)
    )


def tree(steps: Iterable[int], slots: int, radix: int) -> tuple[Links, ...]:
    """Rotations by way of the nearest multiple of `radix` slots, in strands that do not need each other.

    A multiple is made of the ciphertext itself, even if it is not asked for, and what is near it is made of that.
    """
    strands: dict[int, list[Link]] = {}
    for step in sorted({step % slots for step in steps} - {0}):
        near = nearest(step, radix, slots)
        if not near:
            strands.setdefault(step, []).append(Link(step, 0, step))
            continue
        links = strands.setdefault(near, [])
        if not links:
            links.append(Link(near, 0, near))
        if step != near:
            links.append(Link(step, near, (step - near) % slots))
    return tuple(map(tuple, strands.values()))


def nearest(step: Step, radix: int, slots: int) -> Step:
    """The multiple of `radix` that is nearest to a step, or to each of some, modulo `slots`; of 0 it is 0."""
    return (step + radix // 2) // radix * radix % slots if radix else 0 * step


def direct(steps: Iterable[int]) -> tuple[Links, ...]:
    """Each rotation by a key of its own."""
    return tuple((Link(step, 0, step),) for step in steps if step)


def together(links: Iterable[Link]) -> list[tuple[int, list[Link]]]:
    """Links by what they are made of, in an order in which that is there."""
    by_before: dict[int, list[Link]] = {}
    for link in links:
        by_before.setdefault(link.before, []).append(link)
    return list(by_before.items())


def folded_at_once(folds: Sequence[int]) -> list[tuple[int, ...]]:
    """Rotations that add up partial sums: those of each group are of one ciphertext, and added to it.

    Two doublings, by f and 2 f, are one group by f, 2 f and 3 f where a ciphertext is taken apart once for all of it.
    """
    groups, k = [], 0
    while k < len(folds):
        count = 3 if k + 2 < len(folds) and folds[k + 2] == 3 * folds[k] else 1
        groups.append(tuple(folds[k : k + count]))
        k += count
    return groups


def paired(folds: Sequence[int]) -> tuple[int, ...]:
    """Doublings, each of twice the one before, two by two in groups."""
    found: list[int] = []
    for k in range(0, len(folds), 2):
        pair = folds[k : k + 2]
        found += [*pair, 3 * pair[0]] if len(pair) == 2 else pair
    return tuple(found)


def partial_sums(folds: Sequence[int]) -> int:
    """How many are added up into one."""
    count = 1
    for group in folded_at_once(folds):
        count *= len(group) + 1
    return count
