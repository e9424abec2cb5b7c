"""What is the same at every step: computed once a request, in a program's prelude.

A label's part of a network is often a table times the one-hot label, times a public number a step: the product with the
table is the same at every step.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hefw.core.forecast import Choice
from hefw.core.graph import Affine, Graph, Input, LinearTerm, sources
from hefw.core.noise import NoiseModel

#: Scales tried for a table's value, in bits; below, the noise of a rescale is visible.
TABLE_SCALES = range(16, 61)
MOST_TABLE_RESCALES = 2
LEAST_WEIGHT = 6  # bits of the scale of an encoded weight


def once_nodes(graph: Graph) -> frozenset[str]:
    """Names of the nodes that depend on once-a-request inputs alone, these included.

    A bias or factors that change with the step make a node depend on the step.
    """
    found: set[str] = set()
    for name, node in graph.nodes.items():
        if isinstance(node, Input):
            same = node.once
        else:
            same = all(source in found for source in sources(node))
            if isinstance(node, Affine):
                same = same and len(node.bias) == 1 and all(term.factors is None for term in node.terms)
        if same:
            found.add(name)
    return frozenset(found)


def once_terms(node: Affine, once: frozenset[str]) -> tuple[LinearTerm, ...]:
    """The terms of a region whose sum is the same at every step, given the names of `once_nodes`.

    A region that has no other terms has none: it is computed in the prelude as a whole, or at every step.
    """
    terms = tuple(term for term in node.terms if term.source in once and term.factors is None)
    return terms if len(terms) < len(node.terms) else ()


def tables(graph: Graph, once: frozenset[str]) -> frozenset[str]:
    """Affine regions of once-a-request inputs that are only added to regions which read something else, too.

    They can take whatever level and scale suit the regions that they are added to, and bind nothing.
    """
    found = set()
    readers = graph.consumers()
    outputs = {output.node for output in graph.outputs.values()}
    for name in once - outputs:
        node = graph.nodes[name]
        if isinstance(node, Affine) and all(isinstance(graph.nodes[source], Input) for source in sources(node)):
            read_by = [graph.nodes[reader] for reader in readers[name]]
            if all(isinstance(r, Affine) and not once.issuperset(sources(r)) for r in read_by):
                found.add(name)
    return frozenset(found)


@dataclass(frozen=True)
class TableReader:
    """How a region takes a table: at a level and a scale before rescaling (bits), by constants or by vectors."""

    level: int
    scale_bits: float
    constant: bool


def place_table(
    readers: Sequence[TableReader], peak_bits: float, top: int, fresh: float, capacity: Sequence[float], n: int
) -> Choice | None:
    """Level and scale of a table's value with the least noise for all its readers, or None if nothing fits.

    `capacity[level]` are the bits of the modulus at a level; `fresh` is the scale of the inputs in bits, at level
    `top`; `peak_bits` the largest value with its headroom; `n` the ring dimension.
    """
    noise = NoiseModel(n)
    vector, constant, rescale = noise.encode, noise.encode / math.sqrt(n / 2), noise.rescale
    least = max(reader.level for reader in readers)
    best: tuple[float, Choice] | None = None
    for rescales, after in itertools.product(range(MOST_TABLE_RESCALES + 1), TABLE_SCALES):
        level = least + rescales
        if level > top:
            break
        scale = after + capacity[level] - capacity[least]
        if scale + peak_bits > capacity[level] or after + peak_bits > capacity[least]:
            continue
        if min(scale - fresh, *(reader.scale_bits - after for reader in readers)) < LEAST_WEIGHT:
            continue
        error = (vector / 2.0 ** (scale - fresh)) ** 2
        error += (rescale / 2.0**after) ** 2 if rescales else 0.0
        error += sum(((constant if r.constant else vector) / 2.0 ** (r.scale_bits - after)) ** 2 for r in readers)
        if best is None or error < best[0]:
            best = (error, Choice(level, scale, rescales))
    return None if best is None else best[1]


def readers_of(
    graph: Graph, found: frozenset[str], choices: Mapping[str, Choice]
) -> dict[str, tuple[TableReader, ...]]:
    """The readers of each table under a plan's choices for them."""
    by_table: dict[str, list[TableReader]] = {name: [] for name in found}
    for node in graph.nodes.values():
        for term in node.terms if isinstance(node, Affine) else ():
            if term.source in found:
                choice = choices[node.name]
                reader = TableReader(choice.level, choice.scale_bits, term.factors is not None)
                by_table[term.source].append(reader)
    return {name: tuple(read_by) for name, read_by in by_table.items()}
