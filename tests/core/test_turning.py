"""Rotations by way of others: every step is made, by few keys, of what is there; partial sums in groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import BACKENDS, check_strands

from hefw.core.backend import KeyManifest
from hefw.core.diagonals import LinearCost, transform
from hefw.core.layout import periodic
from hefw.core.params import CkksParams
from hefw.core.sparse import SparseMatrix
from hefw.core.turning import direct, folded_at_once, paired, partial_sums, together, tree

SLOTS = 512
PARAMS = CkksParams(2 * SLOTS, (60, 60), (60,), 30.0, allow_insecure=True)


@given(st.sets(st.integers(0, SLOTS - 1), max_size=40), st.sampled_from([0, 2, 8, 64, 256]))
def test_every_step_is_made_of_what_is_there(steps, radix) -> None:
    strands = tree(steps, SLOTS, radix)
    check_strands(strands, SLOTS)
    made = [link.step for strand in strands for link in strand]
    assert len(set(made)) == len(made)
    assert set(made) >= steps - {0}
    assert all(step % radix == 0 for step in set(made) - steps)  # nothing else but what others are made of


def test_a_radix_takes_the_keys_of_its_multiples_and_of_what_is_near() -> None:
    links = [link for strand in tree(range(64), SLOTS, 8) for link in strand]
    assert {link.by for link in links} == {*range(8, 72, 8), 1, 2, 3, *(SLOTS - k for k in range(1, 5))}
    assert {link.before for link in links} == {0, *range(8, 72, 8)}
    assert {link.by for strand in tree(range(64), SLOTS, 0) for link in strand} == set(range(1, 64))


def test_links_of_one_ciphertext_come_together_after_it_is_made() -> None:
    links = [link for strand in tree(range(20), SLOTS, 4) for link in strand]
    groups = together(links)
    assert groups[0][0] == 0
    there = {0}
    for before, some in groups:
        assert before in there
        there |= {link.step for link in some}
    assert there == set(range(21))  # 20: the multiple next to 18 and 19
    assert together(link for strand in direct([0, 3, 5]) for link in strand) == [(0, [s[0] for s in direct([3, 5])])]


@pytest.mark.parametrize("count", range(6))
def test_doublings_in_pairs_add_up_as_many(count) -> None:
    doublings = tuple(4 << k for k in range(count))
    assert partial_sums(doublings) == partial_sums(paired(doublings)) == 2**count
    assert len(folded_at_once(doublings)) == count
    assert len(folded_at_once(paired(doublings))) == (count + 1) // 2


@pytest.mark.parametrize("name", ["simulator", "tenseal"])
@pytest.mark.parametrize("new_key", [0.0, 2.0, 50.0])
def test_what_is_shared_changes_the_way_and_not_the_result(name, new_key) -> None:
    rng = np.random.default_rng(3)
    dense = rng.normal(size=(16, 200)) * (rng.random((16, 200)) < 0.5)
    source, out = (periodic(np.arange(size), 2, SLOTS) for size in (200, 16))
    cost = LinearCost(8, 1, new_key, chained=True, shared=5)
    made = transform([(SparseMatrix.from_dense(dense), source)], out, cost)
    backend = BACKENDS[name]
    params = backend.resolve(PARAMS)
    holder = backend.keygen(params, KeyManifest(dict.fromkeys(made.rotations, 1)))
    evaluator = backend.evaluator(params)
    evaluator.load_keys(dict(holder.evaluation_keys()))
    x = rng.normal(size=(2, 200))
    cts = [evaluator.load(holder.encrypt_bytes(slots, 1, 2.0**30)) for slots in source.pack(x)]
    weights = [evaluator.encode(made.weight(k), 1, 2.0**25) for k in range(len(made.weights))]
    found = evaluator.linear_transform(cts, made, weights)
    slots = np.stack([holder.decrypt_bytes(evaluator.dump(ct)) for ct in found])
    assert np.abs(out.unpack(slots, 2) - x @ dense.T).max() < 1e-2
    assert evaluator.counts["rotate"] == len(made.rotations)
    assert evaluator.counts["add"] == made.products - 1 + len(made.folds)


def test_keys_that_cost_more_are_fewer() -> None:
    dense = np.random.default_rng(0).normal(size=(128, 128))
    layout = periodic(np.arange(128), 4, SLOTS)
    few, many = (
        transform([(SparseMatrix.from_dense(dense), layout)], layout, LinearCost(8, 1, cost, chained=True, shared=5))
        for cost in (100.0, 0.0)
    )
    assert len(set(few.rotations)) < len(set(many.rotations))
