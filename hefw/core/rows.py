"""Equal rows, found once: rows of numbers as the distinct ones among them and which of these each row is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

#: Numbers that are compared at once.
CHUNK = 1 << 22


@dataclass(frozen=True)
class Distinct:
    """`first[k]` is the first row that is kind k, in ascending order; `kind` (rows,) says which kind each row is."""

    first: Indices
    kind: Indices


def distinct(rows: NDArray[Any]) -> Distinct:
    """The distinct rows of an array (rows, length) of 8-byte numbers, by their bits, in order of appearance."""
    bits = np.ascontiguousarray(rows).view(np.uint64)
    found = _by_key(bits @ _multipliers(bits.shape[1]) if bits.shape[1] else np.zeros(len(bits), dtype=np.uint64))
    if all((bits[part] == bits[found.first[found.kind[part]]]).all() for part in _parts(bits)):
        return found
    keys = np.unique(bits, axis=0, return_inverse=True)[1]  # two kinds have one key: compare them in full
    return _by_key(keys.reshape(-1).astype(np.uint64))


def distinct_ragged(start: Indices, values: NDArray[Any]) -> Distinct:
    """The same for rows of different lengths: row k is values[start[k] : start[k + 1]]."""
    lengths = np.diff(start)
    kind = np.zeros(len(lengths), dtype=np.int64)
    firsts: list[Indices] = []
    count = 0
    for length in np.unique(lengths):
        members = np.flatnonzero(lengths == length)
        found = distinct(values[start[members][:, None] + np.arange(length)])
        kind[members] = count + found.kind
        firsts.append(members[found.first])
        count += len(found.first)
    first = np.concatenate(firsts) if firsts else np.zeros(0, dtype=np.int64)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return Distinct(first[order], rank[kind])


def positions(lengths: Indices) -> Indices:
    """0, 1, ... within each of consecutive rows of these lengths."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) - np.repeat(ends - lengths, lengths)


def gather(start: Indices, rows: Indices) -> Indices:
    """Where the values of these rows are, one row after the other, in values kept as (start, values)."""
    lengths = np.diff(start)[rows]
    return np.repeat(start[rows], lengths) + positions(lengths)


def starts(lengths: Indices) -> Indices:
    """Where rows of these lengths start when they are kept one after the other, and where the last ends."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])


def _by_key(keys: NDArray[np.uint64]) -> Distinct:
    _, first, kind = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return Distinct(first[order].astype(np.int64), rank[kind.reshape(-1)])


def _multipliers(length: int) -> NDArray[np.uint64]:
    """Odd numbers that turn a row into a key; equal keys are compared in full."""
    return np.random.default_rng(0).integers(2**63, size=length, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def _parts(rows: NDArray[Any]) -> Iterator[slice]:
    step = max(1, CHUNK // max(1, rows.shape[1]))
    return (slice(begin, begin + step) for begin in range(0, len(rows), step))
