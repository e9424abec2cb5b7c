"""Multiplicative depth of a converted network, and which activations stay where depth is limited."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from hefw.core.errors import CompileError
from hefw.models.convert.survey import Site


def depth(sites: Sequence[Site], cost: Mapping[int, int]) -> int:
    """Depth of the graph: the costliest chain of places that read each other, and the last affine region.

    `cost` has the levels of what is at a place, by its number, the affine region before each square included; 0 where
    it is affine or missing.
    """
    return 1 + max(_chains(sites, cost)[0].values(), default=0)


def on_longest_chain(sites: Sequence[Site], cost: Mapping[int, int]) -> set[int]:
    """The places with a cost without which a costliest chain would be cheaper."""
    before, after = _chains(sites, cost)
    longest = max(before.values(), default=0)
    return {n for n in before if cost.get(n, 0) and before[n] + after[n] - cost[n] == longest}


def _chains(sites: Sequence[Site], cost: Mapping[int, int]) -> tuple[dict[int, int], dict[int, int]]:
    """The costliest chain that ends at each place, and the one that begins there."""
    before: dict[int, int] = {}
    for site in sites:  # in order of execution
        before[site.number] = cost.get(site.number, 0) + max((before[n] for n in site.follows), default=0)
    after: dict[int, int] = {}
    for site in reversed(sites):
        later = [after[s.number] for s in sites if site.number in s.follows]
        after[site.number] = cost.get(site.number, 0) + max(later, default=0)
    return before, after


def check_levels(wanted: int | None, fixed: int) -> None:
    """CompileError unless a network with one activation at least fits; `fixed` is what remains without any."""
    if wanted is not None and (type(wanted) is not int or wanted < fixed + 2):
        raise CompileError(
            f"levels={wanted!r} is not allowed; allowed: {fixed + 2} (one activation that is left) and more, or None "
            "to keep all activations"
        )


def least_harmful(
    wanted: int,
    sites: Sequence[Site],
    cost: Mapping[int, int],
    droppable: Collection[int],
    harm: Callable[[int], float],
) -> int | None:
    """The place to drop next, or None where the depth is at most `wanted` already.

    It is the one whose loss does least harm, `harm(number)`, of those on a longest chain: to drop another one saves no
    level.
    """
    if depth(sites, cost) <= wanted:
        return None
    candidates = sorted(on_longest_chain(sites, cost) & set(droppable))
    return min(candidates, key=harm)
