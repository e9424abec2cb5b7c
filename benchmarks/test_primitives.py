"""Evaluator primitives of every backend at several levels, at 128 bits.

The costs that the planner counts with (`hefw.core.plan.Costs`) were read off this table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.prepared import PARAMS, STEP, Primitives

LEVELS = (1, 3, 5)
PRODUCTS = 50

Benchmark = Any  # the fixture of pytest-benchmark
pytestmark = pytest.mark.parametrize("level", LEVELS)


def test_rotate(benchmark: Benchmark, primitives: Primitives, level: int) -> None:
    benchmark(primitives.evaluator.rotate, primitives.encrypted(level), STEP)


def test_conjugate(benchmark: Benchmark, primitives: Primitives, level: int) -> None:
    benchmark(primitives.evaluator.conjugate, primitives.encrypted(level))


def test_square_and_relinearise(benchmark: Benchmark, primitives: Primitives, level: int) -> None:
    benchmark(primitives.evaluator.square, primitives.encrypted(level))


def test_square_alone(benchmark: Benchmark, primitives: Primitives, level: int) -> None:
    benchmark(primitives.evaluator.square, primitives.encrypted(level), relinearise=False)


def test_square_of_two_images_a_slot(benchmark: Benchmark, primitives: Primitives, level: int) -> None:
    benchmark(primitives.evaluator.square_parts, primitives.encrypted(level))


def test_multiply_two_ciphertexts(benchmark: Benchmark, primitives: Primitives, level: int) -> None:
    benchmark(primitives.evaluator.mul, primitives.encrypted(level), primitives.encrypted(level))


def test_sum_of_50_products_with_plaintexts(benchmark: Benchmark, primitives: Primitives, level: int) -> None:
    weight = primitives.evaluator.encode(values(), level, 2.0**20)
    pairs = [(primitives.encrypted(level), weight)] * PRODUCTS
    benchmark(primitives.evaluator.multiply_accumulate, pairs)


def test_add(benchmark: Benchmark, primitives: Primitives, level: int) -> None:
    benchmark(primitives.evaluator.add, primitives.encrypted(level), primitives.encrypted(level))


def test_rescale(benchmark: Benchmark, primitives: Primitives, level: int) -> None:
    benchmark(primitives.evaluator.rescale, primitives.encrypted(level))


def test_encode_vector(benchmark: Benchmark, primitives: Primitives, level: int) -> None:
    benchmark(primitives.evaluator.encode, values(), level, 2.0**20)


def test_encode_constant(benchmark: Benchmark, primitives: Primitives, level: int) -> None:
    benchmark(primitives.evaluator.encode, 0.7, level, 2.0**20)


def values() -> Any:
    return np.random.default_rng(0).normal(size=PARAMS.slots)
