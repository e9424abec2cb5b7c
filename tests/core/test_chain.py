"""Rotations made of each other: the same results by fewer keys, and as many rotations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from runs import BACKENDS, check_strands

from hefw.core.backend import KeyManifest
from hefw.core.diagonals import LinearCost, transform
from hefw.core.layout import periodic
from hefw.core.params import CkksParams
from hefw.core.sparse import SparseMatrix
from hefw.core.turning import chain

SLOTS = 512
PARAMS = CkksParams(2 * SLOTS, (60, 60), (60,), 30.0, allow_insecure=True)


@given(st.sets(st.integers(0, SLOTS - 1), max_size=40))
@example(set())
@example({0})
@example(set(range(16, 256, 16)))
def test_every_step_is_made_once_of_what_is_there(steps) -> None:
    strands = chain(steps, SLOTS)
    links = [link for strand in strands for link in strand]
    assert sorted(link.step for link in links) == sorted(steps - {0})
    check_strands(strands, SLOTS)


def test_even_steps_take_the_keys_of_their_distance() -> None:
    around = chain(range(-8, 8), SLOTS)
    assert {link.by for strand in around for link in strand} == {1, SLOTS - 1}
    ahead = chain(range(0, 256, 16), SLOTS)  # all on one side: cut in two
    assert [len(strand) for strand in ahead] == [7, 8]
    assert {link.by for strand in ahead for link in strand} == {16, 8 * 16}


@pytest.mark.parametrize("outputs", [16, 200])
@pytest.mark.parametrize("folded", [False, True])
def test_a_chained_transform_is_the_dense_product(outputs, folded) -> None:
    rng = np.random.default_rng(outputs)
    dense = rng.normal(size=(outputs, 200)) * (rng.random((outputs, 200)) < 0.3)
    source, out = (periodic(np.arange(size), 2, SLOTS) for size in (200, outputs))
    plain = transform(
        [(SparseMatrix.from_dense(dense), source)], out, LinearCost(8, 1), most_folds=None if folded else 0
    )
    chained = replace(plain, chained=True)
    assert len(chained.rotations) == len(plain.rotations)
    assert len(set(chained.rotations)) < len(set(plain.rotations))
    backend = BACKENDS["tenseal"]
    resolved = backend.resolve(PARAMS)
    values = rng.normal(size=(2, 200))
    results = []
    for made in (plain, chained):
        holder = backend.keygen(resolved, KeyManifest(dict.fromkeys(made.rotations, 1)))
        evaluator = backend.evaluator(resolved)
        evaluator.load_keys(dict(holder.evaluation_keys()))
        cts = [evaluator.load(holder.encrypt_bytes(row, 1, 2.0**30)) for row in source.pack(values)]
        weights = [evaluator.encode(made.weight(k), 1, 2.0**30) for k in range(len(made.weights))]
        (found,) = evaluator.linear_transform(cts, made, weights)
        assert evaluator.counts["rotate"] == len(made.rotations)
        results.append(out.unpack(holder.decrypt_bytes(evaluator.dump(found))[None], 2))
    for result in results:
        assert np.abs(result - values @ dense.T).max() < 1e-3
