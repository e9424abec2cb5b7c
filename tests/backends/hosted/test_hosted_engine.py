"""Engines in a worker: what a server has of them when things go wrong. What they compute: the conformance kit."""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
import time
from collections import deque
from pathlib import Path

import hosted_backends
import numpy as np
import pytest
from hosted_backends import faulty
from processes import gone
from test_hosted_worker import line_of, no_worker_is_left, workers

from hefw.backends.hosted.backend import HostedBackend
from hefw.backends.simulator.backend import SimulatorBackend
from hefw.backends.tenseal.backend import TensealBackend
from hefw.core.backend import Backend, KeyHolder
from hefw.core.engine import Engine
from hefw.core.errors import ProtocolError
from hefw.core.lower import Request, lower
from hefw.core.params import CkksParams
from hefw.core.program import Program
from hefw.core.progress import Progress
from hefw.core.runner import Weights
from hefw.protocol.client import Client
from hefw.protocol.server import Server
from hefw.testing.graphs import samples, small_unet
from hefw.testing.session import plain, psnr
from hefw.testing.suites.engines import send

__all__ = ["no_worker_is_left"]

PARAMS = CkksParams(2048, (60, 50, 50, 50, 50, 50), (60,), 40.0, allow_insecure=True)
REQUEST = Request(params=PARAMS, allow_insecure=True)
GRAPH, VALUES = small_unet(2), samples(5, seed=2)
KILLS, LONGEST_WAIT = 20, 30.0  # seconds, for what takes one


def make_keys(local: Backend, program: Program) -> tuple[KeyHolder, dict[str, bytes]]:
    holder = local.keygen(program.interface.params, program.interface.keys)
    return holder, dict(holder.evaluation_keys())


class Running:
    """A program, a key holder in this process, and an engine that has its keys."""

    def __init__(
        self,
        hosted: HostedBackend,
        local: Backend,
        weights: Weights | None = None,
        keys: tuple[KeyHolder, dict[str, bytes]] | None = None,
    ) -> None:
        self.program: Program = weights.program if weights else lower(GRAPH, local, REQUEST)
        self.holder, blobs = keys or make_keys(local, self.program)
        self.engine: Engine = hosted.engine(self.program, weights)
        self.engine.load_keys(blobs)

    def begin(self) -> None:
        self.engine.begin(send(self.holder, self.program, VALUES, once=True))

    def step(self, progress=None) -> None:
        (item,) = self.engine.run(0, send(self.holder, self.program, VALUES, once=False), progress)["latent"]
        port = self.program.interface.outputs["latent"]
        found = port.layout.unpack(self.holder.decrypt_bytes(item).real[None], 5) * port.factors[0]
        assert psnr(found, plain(GRAPH, VALUES)[0]["latent"]) > 60


# -- programs and engines ---------------------------------------------------------------------------------------------


def test_a_program_is_sent_once_and_its_memory_given_back() -> None:
    hosted, local = faulty(), SimulatorBackend()
    weights = Weights(lower(GRAPH, local, REQUEST))
    first, second = Running(hosted, local, weights), Running(hosted, local, weights)
    worker = first.engine._worker
    assert len(worker.shared) == 1
    first.engine.prepare()
    second.engine.prepare()
    assert second.engine.figures().counts["encode"] == 0
    first.engine.close()
    second.begin()
    second.step()  # it has its own keys and inputs
    del first, second, weights
    gc.collect()
    assert len(worker.shared) == 0


def test_weights_are_kept_as_far_as_this_process_says() -> None:
    local = SimulatorBackend()
    program = lower(GRAPH, local, REQUEST)
    running = Running(faulty(), local, Weights(program, 0.5 * program.weight_bytes))
    running.engine.prepare()
    assert 0 < running.engine.figures().encoded_weights <= 0.5 * program.weight_bytes
    running.begin()
    running.step()


def test_a_closed_engine_says_so() -> None:
    running = Running(faulty(), SimulatorBackend())
    running.engine.close()
    running.engine.close()
    for call in (running.begin, running.step, running.engine.prepare, running.engine.figures):
        assert line_of(call) == "the engine is closed; make another one"


def test_closing_an_engine_whose_worker_has_ended() -> None:
    running = Running(faulty(), SimulatorBackend())
    os.kill(running.engine.figures().provenance.process, signal.SIGKILL)
    running.engine.close()


def test_progress_is_one_line_whatever_the_worker_says() -> None:
    running, told = Running(faulty(), SimulatorBackend()), list[Progress]()
    running.engine.prepare(told.append)
    assert [p.stage for p in told] == ["encode"] * len(told)
    assert told[-1].done == told[-1].total == running.program.weight_count


def test_progress_that_calls_the_same_worker_is_refused_not_stuck() -> None:
    running, said = Running(faulty(), SimulatorBackend()), list[str]()
    running.begin()
    running.step(lambda _: said.append(line_of(running.engine.figures)))
    assert set(said) == {
        "the evaluator's worker of backend 'simulator' is busy with 'run'; call it after that, not during it"
    }


@pytest.mark.parametrize("error", [KeyboardInterrupt, ProtocolError, TimeoutError, ZeroDivisionError])
def test_progress_that_raises_ends_the_worker_and_the_next_engine_has_another(error) -> None:
    """A server's progress raises when the key holder is gone: nothing else stops what a library is doing."""
    hosted, local = faulty(), SimulatorBackend()
    running = Running(hosted, local)
    pid = running.engine.figures().provenance.process

    def stop(_: Progress) -> None:
        raise error("stop")

    running.begin()
    with pytest.raises(error, match="stop"):
        running.step(stop)
    assert gone(pid)
    assert "was ended when its call 'run' was interrupted" in line_of(running.step)
    again = Running(hosted, local)
    again.begin()
    again.step()


# -- a server ---------------------------------------------------------------------------------------------------------


class Loop:
    """A transport to a server in this process."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.waiting: deque[bytes] = deque()

    def send(self, frame: bytes) -> None:
        self.waiting.append(self.server.handle(frame, self.waiting.append))

    def receive(self) -> bytes:
        return self.waiting.popleft()


@pytest.mark.parametrize("fault", ["SEGV", "abort", "memory", "raise"])
def test_bytes_that_crash_the_parser_do_not_take_the_server_down(tmp_path, fault) -> None:
    """It answers with one error, stays, and begins anew with whoever opens another session."""
    when = tmp_path / "when"
    hosted, local = faulty(f"load {fault}", when=str(when)), SimulatorBackend()
    hosted.drop_secrets()
    loop = Loop(Server(GRAPH, hosted))
    client = Client(loop, local)
    client.open(GRAPH.digest, REQUEST)
    when.touch()
    text = line_of(lambda: client.generate(VALUES))
    assert text.startswith("the server refused: the evaluator's worker of backend 'simulator' ")
    assert line_of(lambda: client.generate(VALUES)).startswith("the server refused: the evaluator's worker")
    when.unlink()
    again = Client(loop, local)
    again.open(GRAPH.digest, REQUEST)
    found = again.generate(VALUES)["latent"]
    output = GRAPH.outputs["latent"]
    expected = GRAPH.trajectory(VALUES)[-1][output.node] * output.factors[-1]
    assert psnr(found, expected) > 60
    again.close()
    loop.server.end()


# -- killed at any moment ---------------------------------------------------------------------------------------------


def kill_later(pid: int, seconds: float) -> threading.Thread:
    def kill() -> None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def until_error(work, seconds: float = LONGEST_WAIT) -> str:
    end = time.monotonic() + seconds

    def go_on() -> None:
        while time.monotonic() < end:
            work()

    return line_of(go_on)


def test_an_evaluators_worker_killed_twenty_times_in_the_middle_of_a_step() -> None:
    local, hosted = TensealBackend(), hosted_backends.tenseal()
    weights, before = Weights(lower(GRAPH, local, REQUEST)), workers()
    keys = make_keys(local, weights.program)
    for _ in range(KILLS):
        running = Running(hosted, local, weights, keys)
        pid = running.engine.figures().provenance.process
        running.begin()
        killer = kill_later(pid, random.uniform(0, 0.3))
        text = until_error(running.step)
        killer.join()
        assert text == (
            "the evaluator's worker of backend 'tenseal' ended by signal 9 (killed, as when memory runs out); open a "
            "new session, which starts another one"
        )
        assert gone(pid)
        assert workers() == before
    final = Running(hosted, local, weights, keys)
    final.begin()
    final.step()


def test_a_key_holders_worker_killed_twenty_times_in_the_middle_of_its_work(tmp_path: Path) -> None:
    """Its saved key is whole after each, or the one before."""
    hosted, before = hosted_backends.tenseal(), workers()
    program = lower(GRAPH, hosted, REQUEST)
    interface, path = program.interface, tmp_path / "key"
    hosted.keygen(interface.params, interface.keys).save(path)
    x = np.linspace(-1, 1, interface.params.slots)
    for _ in range(KILLS):
        holder = hosted.load_key_holder(interface.params, interface.keys, path)
        pid = hosted.provenance().process

        def work(holder: KeyHolder = holder) -> None:
            data = holder.encrypt_bytes(x, 1, 2.0**30)
            assert np.abs(holder.decrypt_bytes(data) - x).max() < 1e-3
            holder.save(path)
            next(iter(holder.evaluation_keys()))

        killer = kill_later(pid, random.uniform(0, 0.1))
        text = until_error(work)
        killer.join()
        assert text == (
            "the key holder's worker of backend 'tenseal' ended by signal 9 (killed, as when memory runs out); secret "
            "keys that were not saved are lost; make new keys, which starts another one"
        )
        assert gone(pid)
        assert workers() == before
        assert list(tmp_path.iterdir()) == [path]
        assert path.stat().st_mode & 0o777 == 0o600


def test_killed_in_the_middle_of_saving(tmp_path: Path) -> None:
    hosted, path = faulty("slow save"), tmp_path / "key"
    holder = hosted.keygen(hosted.resolve(PARAMS), lower(GRAPH, SimulatorBackend(), REQUEST).interface.keys)
    holder.save(path)
    whole = path.read_bytes()
    for wait in (0.05, 0.1, 0.2, 0.21, 0.22, 0.25):
        holder = hosted.load_key_holder(holder.params, holder.manifest, path)
        killer = kill_later(hosted.provenance().process, wait)
        line_of(lambda holder=holder: [holder.save(path) for _ in range(10)])
        killer.join()
        assert list(tmp_path.iterdir()) == [path]
        assert path.read_bytes() == whole
