"""A whole denoising step of 16 digits at 128 bits: hefw beside the library calls that it makes, and beside two scripts.

    python -m benchmarks.step     # the same with errors, into a file

`overhead` takes the first two in turns, so that a busy machine meets both alike, and is what hefw itself adds: the
median over pairs, of processor time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.baselines import PlainChain, Replay, layers_of_graph, layers_of_program
from benchmarks.step import IMAGES, prepare
from hefw.core.graph import Affine
from hefw.core.normalise import centre_squares, normalise

PAIRS = 7


@pytest.fixture(scope="module")
def prepared() -> tuple[Any, ...]:
    return prepare()


@pytest.fixture(scope="module")
def step(prepared: tuple[Any, ...]) -> Callable[[], Any]:
    _, _, _, engine, encrypted, *_ = prepared

    def run() -> Any:
        return engine.run(0, {"latent": encrypted["latent"]})["latent"]

    run()  # encodes the weights
    return run


@pytest.fixture(scope="module")
def replay(prepared: tuple[Any, ...], step: Callable[[], Any]) -> Replay:
    return Replay(prepared[3], step)


def test_step(benchmark: Any, step: Callable[[], Any]) -> None:
    benchmark.extra_info["images"] = IMAGES
    benchmark.pedantic(step, rounds=3)


def test_the_same_library_calls(benchmark: Any, replay: Replay) -> None:
    benchmark.pedantic(replay, rounds=3)


def test_overhead(benchmark: Any, step: Callable[[], Any], replay: Replay) -> None:
    shares = []

    def pair() -> None:
        started = time.process_time()
        step()
        between = time.process_time()
        replay()
        shares.append((between - started) / (time.process_time() - between) - 1)

    benchmark.pedantic(pair, rounds=PAIRS, warmup_rounds=1)
    benchmark.extra_info["overhead"] = statistics.median(shares)
    benchmark.extra_info["overheads"] = shares


def test_raw_loop(benchmark: Any, prepared: tuple[Any, ...]) -> None:
    _, graph, program, _, _, _, inputs, _ = prepared
    flat = centre_squares(normalise(graph))
    n = program.params.params.ring_dimension
    layers, layouts = layers_of_graph(flat, labels(flat, inputs), n // 2)
    benchmark.pedantic(PlainChain(n, layers, layouts["latent"].pack(inputs["latent"])), rounds=2)


def test_plain_chain(benchmark: Any, prepared: tuple[Any, ...]) -> None:
    _, graph, program, _, _, _, inputs, _ = prepared
    flat = centre_squares(normalise(graph))
    n = program.params.params.ring_dimension
    slots = program.interface.outputs["latent"].layout.pack(inputs["latent"])
    benchmark.pedantic(PlainChain(n, layers_of_program(program, labels(flat, inputs)), slots), rounds=2)


def labels(flat: Any, inputs: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The labels' part of every region, which the scripts have as a bias."""
    return {
        node.name: (term.matrix @ inputs["label"].T).T
        for node in flat.nodes.values()
        if isinstance(node, Affine)
        for term in node.terms
        if term.source == "label"
    }
