"""Several rotations of one ciphertext: what a library that hoists shares, beside as many single ones."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.prepared import BACKENDS, Primitives, backend_of

STEPS = tuple(range(1, 9))
LEVEL = 5


@pytest.fixture(scope="module", params=BACKENDS)
def several(request: pytest.FixtureRequest) -> Primitives:
    return Primitives(backend_of(request.param), STEPS)


def test_eight_rotations_of_one_ciphertext(benchmark: Any, several: Primitives) -> None:
    benchmark(several.evaluator.rotate_many, several.encrypted(LEVEL), STEPS)


def test_eight_rotations_one_by_one(benchmark: Any, several: Primitives) -> None:
    ct = several.encrypted(LEVEL)
    benchmark(lambda: [several.evaluator.rotate(ct, step) for step in STEPS])
