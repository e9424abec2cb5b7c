"""Several threads evaluate what one would, bit by bit, also where SEAL's memory is not found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from core_graphs import denoiser, samples
from runs import BACKENDS, SMALL

from hefw.core.engine import LocalEngine
from hefw.core.lower import Request, lower

BACKEND = BACKENDS["tenseal"]
PROGRAM = lower(denoiser(), BACKEND, Request(params=SMALL, images=3))
INPUTS = PROGRAM.interface.inputs


@pytest.fixture(scope="module")
def holder():
    return BACKEND.keygen(PROGRAM.interface.params, PROGRAM.interface.keys)


@pytest.fixture(scope="module")
def keys(holder):
    return dict(holder.evaluation_keys())


@pytest.fixture
def engine(keys):
    """Makes engines with these keys, for so many threads."""

    def make(threads: int) -> LocalEngine:
        made = LocalEngine(PROGRAM, BACKEND, threads=threads)
        made.load_keys(keys)
        return made

    return make


@pytest.fixture(scope="module")
def sent(holder):
    """Every input as a client sends it."""
    values = samples(3)
    return {
        name: [holder.encrypt_bytes(slots, port.level, port.scale) for slots in port.layout.pack(values[name])]
        for name, port in INPUTS.items()
    }


def answer(engine: LocalEngine, sent: dict[str, list[bytes]]) -> dict[str, list[bytes]]:
    engine.begin({name: cts for name, cts in sent.items() if INPUTS[name].once})
    return engine.run(0, {name: cts for name, cts in sent.items() if not INPUTS[name].once})


@pytest.mark.parametrize("threads", [2, 3])
def test_the_same_bytes_and_the_same_work(engine, sent, threads) -> None:
    alone, together = engine(1), engine(threads)
    for _ in range(2):
        assert answer(together, sent) == answer(alone, sent)
    assert together.figures().counts == alone.figures().counts
    assert (alone.figures().threads, together.figures().threads) == (1, threads)


def test_a_build_that_hides_residues_goes_on_with_one(engine, sent, monkeypatch) -> None:
    monkeypatch.setattr("hefw.backends.tenseal.pointers._offsets", lambda ct: set())
    together = engine(2)
    with pytest.warns(RuntimeWarning, match="goes on with the library's own calls"):
        found = answer(together, sent)
    assert together.figures().threads == 1
    assert found == answer(engine(1), sent)


def test_a_place_that_is_wrong_is_not_used(engine, sent, monkeypatch) -> None:
    """Another pointer that happens to be there: what is written through it is not what the library goes on with."""
    copies = []

    def elsewhere(place, ct, shape):
        numbers = np.array([ct[k] for k in range(math.prod(shape))])
        copies.append(numbers.astype(np.uint64).reshape(shape))
        return copies[-1]

    monkeypatch.setattr("hefw.backends.tenseal.pointers.Place.at", elsewhere)
    together = engine(2)
    with pytest.warns(RuntimeWarning, match="goes on with the library's own calls"):
        answer(together, sent)
    assert copies
    assert together.figures().threads == 1
