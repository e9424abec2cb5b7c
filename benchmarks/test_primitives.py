"""Evaluator primitives at every level, at 128 bits, with pytest-benchmark.

    python -m pytest benchmarks --benchmark-group-by=func --benchmark-columns=median,iqr,rounds

The costs that the planner counts with (`hefw.core.plan.Costs`) were read off this table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hefw.backends.tenseal.backend import TensealBackend
from hefw.core.backend import Ciphertext, Evaluator, KeyHolder, KeyManifest
from hefw.core.params import CkksParams

PARAMS = CkksParams(16384, (60,) * 6, (60,), 30.0)
LEVELS = range(1, 6)
STEP = 16

Benchmark = Any  # the fixture of pytest-benchmark
Session = tuple[KeyHolder, Evaluator]


@pytest.fixture(scope="session")
def session() -> Session:
    """A key holder, and an evaluator with its keys: relinearisation, conjugation, one rotation."""
    backend = TensealBackend()
    resolved = backend.resolve(PARAMS)
    keys = backend.keygen(resolved, KeyManifest({STEP: resolved.max_level}, conjugation=True))
    evaluator = backend.evaluator(resolved)
    evaluator.load_keys(dict(keys.evaluation_keys()))
    return keys, evaluator


def encrypted(session: Session, level: int) -> Ciphertext:
    """A fresh ciphertext of random values at a level."""
    keys, _ = session
    values = np.random.default_rng(level).normal(size=PARAMS.slots)
    return keys.encrypt(values, level, 2.0**30)


@pytest.mark.parametrize("level", LEVELS)
def test_rotate(benchmark: Benchmark, session: Session, level: int) -> None:
    _, evaluator = session
    benchmark(evaluator.rotate, encrypted(session, level), STEP)


@pytest.mark.parametrize("level", LEVELS)
def test_square_and_relinearise(benchmark: Benchmark, session: Session, level: int) -> None:
    _, evaluator = session
    benchmark(evaluator.square, encrypted(session, level))


@pytest.mark.parametrize("level", LEVELS)
def test_square_alone(benchmark: Benchmark, session: Session, level: int) -> None:
    _, evaluator = session
    benchmark(evaluator.square, encrypted(session, level), relinearise=False)


@pytest.mark.parametrize("level", LEVELS)
def test_square_of_two_images_a_slot(benchmark: Benchmark, session: Session, level: int) -> None:
    _, evaluator = session
    benchmark(evaluator.square_parts, encrypted(session, level))


@pytest.mark.parametrize("level", LEVELS)
def test_sum_of_100_products_with_plaintexts(benchmark: Benchmark, session: Session, level: int) -> None:
    _, evaluator = session
    weight = evaluator.encode(np.random.default_rng(0).normal(size=PARAMS.slots), level, 2.0**20)
    pairs = [(encrypted(session, level), weight)] * 100
    benchmark(evaluator.multiply_accumulate, pairs)


@pytest.mark.parametrize("level", LEVELS)
def test_rescale(benchmark: Benchmark, session: Session, level: int) -> None:
    _, evaluator = session
    benchmark(evaluator.rescale, encrypted(session, level))


@pytest.mark.parametrize("level", LEVELS)
def test_encode_vector(benchmark: Benchmark, session: Session, level: int) -> None:
    _, evaluator = session
    benchmark(evaluator.encode, np.random.default_rng(0).normal(size=PARAMS.slots), level, 2.0**20)


@pytest.mark.parametrize("level", LEVELS)
def test_encrypt_as_sent(benchmark: Benchmark, session: Session, level: int) -> None:
    keys, _ = session
    benchmark(keys.encrypt_bytes, np.random.default_rng(0).normal(size=PARAMS.slots), level, 2.0**30)


@pytest.mark.parametrize("level", LEVELS)
def test_load_a_ciphertext(benchmark: Benchmark, session: Session, level: int) -> None:
    keys, evaluator = session
    data = keys.encrypt_bytes(np.random.default_rng(0).normal(size=PARAMS.slots), level, 2.0**30)
    benchmark(evaluator.load, data)
