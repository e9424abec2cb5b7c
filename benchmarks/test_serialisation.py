"""Bytes in and out: ciphertexts and keys of every backend, and what else is sent or stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.prepared import PARAMS, Primitives
from hefw.core import codec
from hefw.core.backend import Backend
from hefw.core.graph import Graph
from hefw.core.lower import Request, lower
from hefw.core.program import Program
from hefw.testing.graphs import small_unet

LEVELS = (1, 5)


@pytest.mark.parametrize("level", LEVELS)
def test_encrypt_to_bytes(benchmark: Any, primitives: Primitives, level: int) -> None:
    values = np.random.default_rng(0).normal(size=PARAMS.slots)
    benchmark(primitives.keys.encrypt_bytes, values, level, 2.0**30)


@pytest.mark.parametrize("level", LEVELS)
def test_load_a_ciphertext(benchmark: Any, primitives: Primitives, level: int) -> None:
    benchmark(primitives.evaluator.load, primitives.as_sent(level))


@pytest.mark.parametrize("level", LEVELS)
def test_dump_a_ciphertext(benchmark: Any, primitives: Primitives, level: int) -> None:
    benchmark(primitives.evaluator.dump, primitives.encrypted(level))


@pytest.mark.parametrize("level", LEVELS)
def test_decrypt_bytes(benchmark: Any, primitives: Primitives, level: int) -> None:
    benchmark(primitives.keys.decrypt_bytes, primitives.evaluator.dump(primitives.encrypted(level)))


def test_load_a_rotation_key(benchmark: Any, primitives: Primitives) -> None:
    keys = {name: data for name, data in primitives.keys.evaluation_keys() if name.startswith("rotation")}
    benchmark(primitives.evaluator.load_keys, keys)


def test_program_to_bytes(benchmark: Any, tenseal: Backend) -> None:
    benchmark(codec.encode, lower(small_unet(), tenseal, Request(ring_dimension=16384)))


def test_program_from_bytes(benchmark: Any, tenseal: Backend) -> None:
    data = codec.encode(lower(small_unet(), tenseal, Request(ring_dimension=16384)))
    benchmark(codec.decode, data, Program)


def test_save_a_graph(benchmark: Any, tmp_path: Path) -> None:
    benchmark(small_unet().save, tmp_path / "model.hefw")


def test_load_a_graph(benchmark: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.hefw"
    small_unet().save(path)
    benchmark(Graph.load, path)
