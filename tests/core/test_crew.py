"""Several processes evaluate what one would, bit by bit; whatever ends one of them ends in one clear error."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter

import numpy as np
import psutil
import pytest
from core_graphs import denoiser, samples
from processes import gone
from runs import BACKENDS, SMALL

from hefw.backends.tenseal.evaluator import TensealEvaluator
from hefw.core import crew as crews
from hefw.core.crew import Crew, deal
from hefw.core.engine import LocalEngine
from hefw.core.errors import ProtocolError
from hefw.core.lower import Request, lower
from hefw.core.program import LinearOp

BACKEND = BACKENDS["tenseal"]
PROGRAM = lower(denoiser(), BACKEND, Request(params=SMALL, images=3))
INPUTS = PROGRAM.interface.inputs


@pytest.fixture(autouse=True)
def whatever_is_worthwhile(monkeypatch) -> None:
    """The program is small; its transforms are to be shared nevertheless."""
    monkeypatch.setattr(crews, "WORTHWHILE", 0)


#: Children that this process had before a test: workers of other tests.
EARLIER: set[int] = set()


@pytest.fixture(autouse=True)
def earlier() -> None:
    EARLIER.clear()
    EARLIER.update(child.pid for child in psutil.Process().children())


@pytest.fixture(scope="module")
def holder():
    return BACKEND.keygen(PROGRAM.interface.params, PROGRAM.interface.keys)


@pytest.fixture(scope="module")
def keys(holder):
    return dict(holder.evaluation_keys())


@pytest.fixture
def engine(keys):
    """Makes engines with these keys, for so many processes; ends them."""
    made = []

    def make(processes: int) -> LocalEngine:
        engine = LocalEngine(PROGRAM, BACKEND, processes=processes)
        made.append(engine)
        engine.load_keys(keys)
        return engine

    yield make
    for found in made:
        found.close()


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


@pytest.mark.parametrize("processes", [2, 3])
def test_the_same_bytes_and_the_same_work(engine, sent, processes) -> None:
    alone, together = engine(1), engine(processes)
    for _ in range(2):
        assert answer(together, sent) == answer(alone, sent)
    assert len(others()) == processes - 1
    assert together.figures().counts == alone.figures().counts


def others() -> list[psutil.Process]:
    """Processes that were forked in this test."""
    return [child for child in psutil.Process().children() if child.pid not in EARLIER]


def test_nothing_is_forked_for_one_process(engine, sent) -> None:
    answer(engine(1), sent)
    assert not others()


def test_every_step_and_group_is_dealt_once() -> None:
    for op in PROGRAM.step:
        if isinstance(op, LinearOp) and op.transform is not None:
            dealt = deal(op.transform, 3)
            babies = [(k, step) for k, steps in enumerate(op.transform.babies) for step in steps if step]
            assert Counter((k, link.step) for some in dealt.babies for k, link in some) == Counter(babies)
            for k, groups in enumerate(op.transform.outputs):
                mine = [strand for by_output in dealt.strands for strand in by_output[k]]
                assert Counter(group for strand in mine for group, _ in strand) == Counter(groups)


def test_new_keys_end_the_processes_that_lack_them(engine, sent, keys) -> None:
    together = engine(2)
    first = answer(together, sent)
    (before,) = others()
    together.load_keys(keys)
    assert gone(before.pid)
    assert answer(together, sent) == first


def test_a_process_that_was_killed_is_one_clear_error(engine, sent) -> None:
    together = engine(2)
    answer(together, sent)
    os.kill(others()[0].pid, signal.SIGKILL)
    with pytest.raises(ProtocolError, match=r"a process of the server has ended.*server_processes: 1"):
        answer(together, sent)


def test_a_library_that_fails_in_another_process_is_one_clear_error(engine, sent, monkeypatch) -> None:
    first = os.getpid()
    rotate = TensealEvaluator._rotate

    def failing(evaluator, ct, step):
        if os.getpid() != first:
            raise RuntimeError("no room for a key")
        return rotate(evaluator, ct, step)

    monkeypatch.setattr(TensealEvaluator, "_rotate", failing)
    with pytest.raises(ProtocolError, match="a process of the server failed: RuntimeError: no room for a key"):
        answer(engine(2), sent)


def test_a_build_that_hides_residues_goes_on_in_one_process(engine, sent, monkeypatch) -> None:
    monkeypatch.setattr("hefw.backends.tenseal.residues._offsets", lambda ct: set())
    together = engine(2)
    with pytest.warns(RuntimeWarning, match="goes on with the library's own calls"):
        found = answer(together, sent)
    assert not others()
    assert found == answer(engine(1), sent)


def test_a_place_that_is_wrong_is_not_used(engine, sent, monkeypatch) -> None:
    """Another pointer that happens to be there: what is written through it is not what the library goes on with."""
    copies = []

    def elsewhere(place, ct, shape):
        numbers = np.array([ct[k] for k in range(math.prod(shape))])
        copies.append(numbers.astype(np.uint64).reshape(shape))
        return copies[-1]

    monkeypatch.setattr("hefw.backends.tenseal.residues.Place.at", elsewhere)
    with pytest.warns(RuntimeWarning, match="goes on with the library's own calls"):
        answer(engine(2), sent)
    assert copies
    assert not others()


def test_others_end_with_the_first_process() -> None:
    """Killed while it waits for a message: nobody is left behind."""
    code = """
        import sys, time, psutil
        sys.path[:0] = ["tests/core", "tests"]
        from core_graphs import denoiser, samples
        from runs import BACKENDS, SMALL
        from hefw.core import crew
        from hefw.core.engine import LocalEngine
        crew.WORTHWHILE = 0
        from hefw.core.lower import Request, lower
        backend = BACKENDS["tenseal"]
        program = lower(denoiser(), backend, Request(params=SMALL, images=3))
        holder = backend.keygen(program.interface.params, program.interface.keys)
        engine = LocalEngine(program, backend, processes=3)
        engine.load_keys(dict(holder.evaluation_keys()))
        values, ports, sent = samples(3), program.interface.inputs, {}
        for name, port in ports.items():
            packed = port.layout.pack(values[name])
            sent[name] = [holder.encrypt_bytes(slots, port.level, port.scale) for slots in packed]
        engine.begin({name: cts for name, cts in sent.items() if ports[name].once})
        engine.run(0, {name: cts for name, cts in sent.items() if not ports[name].once})
        print(*[child.pid for child in psutil.Process().children()], flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        pids = [int(pid) for pid in first.stdout.readline().split()]
        first.kill()
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_closed_processes_are_gone(engine, sent) -> None:
    together = engine(2)
    answer(together, sent)
    (other,) = others()
    together.close()
    assert gone(other.pid)


def test_small_transforms_stay_in_one_process(monkeypatch) -> None:
    monkeypatch.setattr(crews, "WORTHWHILE", 1000)
    ops = [op for op in PROGRAM.step if isinstance(op, LinearOp)]
    crew = Crew(BACKEND.evaluator(PROGRAM.params), ops, lambda op: [], 2)
    assert not others()
    assert not any(crew.takes(op) for op in ops)
