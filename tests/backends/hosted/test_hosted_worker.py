"""Workers: what they are given, how they end, and what is said then."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hosted_backends
import numpy as np
import psutil
import pytest
from hosted_backends import faulty
from processes import PATIENCE, gone

import hefw
from hefw.backends.hosted.backend import HostedBackend
from hefw.backends.hosted.evaluating import OPERATIONS
from hefw.backends.hosted.evaluator import HostedEvaluator
from hefw.backends.tenseal.backend import TensealBackend
from hefw.core.backend import Backend, Ciphertext, Evaluator, KeyManifest
from hefw.core.errors import (
    CapabilityError,
    HefwError,
    LevelError,
    LoweringError,
    ParameterError,
    PluginError,
    ProtocolError,
)
from hefw.core.params import CkksParams
from hefw.testing.parties import Parties, Precision, make_parties

HERE = Path(__file__).parent
PARAMS = CkksParams(2048, (40, 30, 30, 30), (60,), 30.0, allow_insecure=True)


def workers() -> set[int]:
    """Process ids of all workers of this process."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        try:
            if any("hosted/start.py" in word for word in child.cmdline()):
                found.add(child.pid)
        except psutil.NoSuchProcess:
            pass
    return found


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    before = workers()
    yield
    gc.collect()
    assert all(gone(pid) for pid in workers() - before)


def both(backend: Backend) -> Parties:
    return make_parties(backend, PARAMS, Precision())


def line_of(call: Callable[[], object], kind: type[HefwError] = ProtocolError) -> str:
    """The one printable line of the error that a call raises."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 2500
    assert type(caught.value) is kind
    return text


# -- what a worker is given -------------------------------------------------------------------------------------------


def test_nothing_is_started_until_it_is_needed() -> None:
    backend, before = hosted_backends.tenseal(), workers()
    assert workers() == before
    assert backend.capabilities.seeded_bytes
    (client,) = workers() - before
    holder = backend.keygen(backend.resolve(PARAMS), KeyManifest())
    assert holder.params == TensealBackend().resolve(PARAMS)
    assert workers() - before == {client}
    backend.evaluator(holder.params)
    assert len(workers() - before) == 2
    backend.close()
    assert workers() == before


def test_a_worker_has_a_small_environment(monkeypatch) -> None:
    monkeypatch.setenv("HEFW_TEST_SECRET", "hunter2")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    backend = hosted_backends.tenseal()
    pid = backend.provenance().process
    environment = psutil.Process(pid).environ()
    assert not {"HEFW_TEST_SECRET", "PYTHONPATH", "HOME"} & set(environment)
    assert environment["OMP_NUM_THREADS"] == "1"
    assert len(os.listdir(f"/proc/{pid}/fd")) <= 6  # three standard streams, two sockets, one that a library opens
    assert os.getsid(pid) == pid


def test_a_servers_worker_has_no_key_holder_and_nothing_heavy(tmp_path, monkeypatch) -> None:
    """It has hefw and the backend's package from where this process has them, and nothing that lies beside those."""
    monkeypatch.syspath_prepend(str(Path(hefw.__file__).parents[1]))
    parties = both(faulty("dump see", seen=str(tmp_path / "seen")))
    parties.evaluator.dump(parties.encrypt(parties.x))
    seen = (tmp_path / "seen").read_text().splitlines()
    assert {"hefw.core.runner", "hefw.backends.hosted.evaluating", "hosted_faults.backend"} <= set(seen)
    assert not [m for m in seen if re.search(r"keyholder|holding|divergence|hefw\.(plugins|hookspecs|run|config)$", m)]
    assert not {"torch", "pydantic", "pluggy", "psutil", "typer", "pytest", "hefw.protocol"} & set(seen)
    assert f"file {hefw.__file__}" in seen
    assert f"file {Path(__file__).parent / 'hosted_faults' / '__init__.py'}" in seen
    assert not [item for item in seen if item.startswith("can import")]
    folders = {item.removeprefix("path ") for item in seen if item.startswith("path ")}
    assert not {str(Path(hefw.__file__).parents[1]), str(Path(__file__).parent), ""} & folders


def test_the_library_is_not_in_this_process() -> None:
    script = """
        import sys
        import hosted_backends
        from hefw.testing.parties import Precision, make_parties, small_params
        backend = hosted_backends.tenseal()
        parties = make_parties(backend, small_params(backend.capabilities), Precision())
        parties.check(parties.evaluator.rotate(parties.encrypt(parties.x), 1), __import__("numpy").roll(parties.x, -1),
                      parties.top, parties.scale)
        print(*(m for m in sys.modules if "seal" in m))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == []


def test_two_sides_are_two_processes_and_a_server_has_no_other() -> None:
    backend, before = hosted_backends.tenseal(), workers()
    parties = both(backend)
    assert len(workers() - before) == 2
    backend.drop_secrets()
    assert len(workers() - before) == 1
    assert backend.provenance().process in workers()
    assert parties.backend.resolve(PARAMS) == parties.params
    text = line_of(lambda: backend.keygen(parties.params, KeyManifest()), CapabilityError)
    assert text.startswith("backend 'tenseal' is a server's here and has no key holder")
    assert "was ended by this process" in line_of(lambda: parties.send(parties.x))


def test_what_cannot_be_sent_is_refused_and_nothing_is_forgotten() -> None:
    parties = both(faulty())
    worker = parties.evaluator._worker
    ct = parties.encrypt(parties.x)
    del ct
    waiting = list(worker._released)
    assert waiting
    line_of(lambda: worker.call("release", type(None), object()), LoweringError)
    assert list(worker._released) == waiting
    worker.flush()
    assert not worker._released
    assert parties.error(parties.encrypt(parties.x), parties.x) < 1e-3


def test_the_memory_of_its_workers_is_told() -> None:
    assert TensealBackend().worker_memory() == 0
    backend = hosted_backends.tenseal()
    assert backend.worker_memory() == 0
    one = backend.provenance() and backend.worker_memory()
    parties = both(backend)
    assert 2**24 < one < backend.worker_memory() < 2**30
    assert psutil.Process(parties.evaluator._worker.pid).memory_info().rss < backend.worker_memory()


def test_the_secret_stays_in_its_worker(tmp_path) -> None:
    parties = both(hosted_backends.tenseal())
    assert "stays in its worker; use save" in line_of(parties.holder._secret_bytes, CapabilityError)
    parties.holder.save(tmp_path / "key")
    assert [p.name for p in tmp_path.iterdir()] == ["key"]
    with pytest.raises(FileNotFoundError):
        parties.holder.save(tmp_path / "no" / "key")
    missing = tmp_path / "none"
    text = line_of(lambda: parties.backend.load_key_holder(parties.params, parties.manifest, missing))
    assert "the key holder's worker of backend 'tenseal' failed at 'load_key_holder': FileNotFoundError" in text
    assert parties.send(parties.x)  # the worker goes on


def test_relative_paths_are_those_of_this_process(tmp_path, monkeypatch) -> None:
    parties = both(hosted_backends.tenseal())
    monkeypatch.chdir(tmp_path)
    parties.holder.save(Path("key"))
    assert (tmp_path / "key").exists()
    loaded = parties.backend.load_key_holder(parties.params, parties.manifest, Path("key"))
    assert loaded.key_id == parties.holder.key_id


def test_ciphertexts_of_this_process_are_refused() -> None:
    hosted, local = both(hosted_backends.tenseal()), both(TensealBackend())
    for there, here in ((hosted, local), (local, hosted)):
        ct = here.encrypt(here.x)
        if there is hosted:
            text = "does not live in the evaluator's worker of backend 'tenseal'; send it as bytes: dump, then load"
            assert text in line_of(lambda ct=ct: hosted.evaluator.negate(ct))
            assert "key holder's worker" in line_of(lambda ct=ct: hosted.holder.decrypt(ct))
    other = both(hosted_backends.tenseal())
    assert "does not live in" in line_of(lambda: other.evaluator.negate(hosted.encrypt(hosted.x)))


def test_whatever_a_library_may_do_its_own_way_is_asked_of_it() -> None:
    """An operation that is added to `Evaluator` must be forwarded; else the worker would never see the library's."""
    checks = {"_agree", "_common_scale", "_product", "_sum_scale", "_two_parts"}
    through_others = {"_encode_real"}  # prepares values, and encodes them as any others
    own = {name for name, value in vars(Evaluator).items() if name.startswith("_") and callable(value)}
    forwarded = {name for name in vars(HostedEvaluator) if name.startswith("_")}
    assert {name for name in own if not name.startswith("__")} - checks - through_others <= forwarded
    assert {f"_{name}" for name in OPERATIONS} <= forwarded & own


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ask",
    [
        lambda b: b.resolve(CkksParams(65536, (60,), (60,), 40.0)),
        lambda b: b.resolve(CkksParams(4096, (60, 30), (30,), 40.0, allow_insecure=True)),
        lambda b: b.bootstrap_params(8, 2),
        lambda b: b.bootstrapping(b.resolve(PARAMS)),
        lambda b: b.require("bootstrap"),
    ],
)
def test_errors_are_those_of_the_backend(ask) -> None:
    found = []
    for backend in (TensealBackend(), hosted_backends.tenseal()):
        with pytest.raises((ParameterError, CapabilityError)) as caught:
            ask(backend)
        found.append((type(caught.value), str(caught.value)))
    assert found[0] == found[1]


def test_errors_of_a_kind_that_hefw_has_not() -> None:
    parties = both(faulty("load raise"))
    data = parties.send(parties.x)
    text = line_of(lambda: parties.evaluator.load(data))
    assert text == ("the evaluator's worker of backend 'simulator' failed at 'load': RuntimeError: two lines [2J")
    assert "the key holder's worker" in line_of(lambda: parties.holder.decrypt_bytes(data))
    assert parties.send(parties.x)  # both go on
    assert parties.evaluator.encode(0.5, 1, 2.0**20).level == 1
    other = both(faulty("load hefw"))
    assert line_of(lambda: other.evaluator.load(other.send(other.x)), LevelError) == "level 3 is too high"


def test_answers_of_another_type() -> None:
    """From a backend that returns something odd, or from a worker that somebody else has taken over."""
    parties = both(faulty("dump text"))
    ct = parties.encrypt(parties.x)
    assert "a value of type str where <class 'bytes'> belongs" in line_of(lambda: parties.evaluator.dump(ct))
    parties = both(faulty("dump object"))
    ct = parties.encrypt(parties.x)
    assert "a builtins.object cannot be written" in line_of(lambda: parties.evaluator.dump(ct), LoweringError)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("SEGV", "ended by signal 11 (a crash in native code); open a new session"),
        ("KILL", "ended by signal 9 (killed, as when memory runs out); open a new session"),
        ("TERM", "ended by signal 15; open a new session"),
        ("abort", "ended by signal 6 (native code gave up); open a new session"),
        ("exit", "ended with exit code 0; open a new session"),
        ("words", "ended with exit code 7; its last words: the last  [2Jword; open"),
        ("terminate", "last words: terminate called after throwing an instance what():  std::bad_alloc; open"),
        ("memory", "ended with exit code 1; its last words: out of memory: MemoryError"),
        ("bad_alloc", "ended with exit code 1; its last words: out of memory: RuntimeError: std::bad_alloc; open"),
        ("noise", "sent no answer to 'load' (no message of at most"),
        ("promise", "sent no answer to 'load' (no message of at most"),
        ("answer", "sent no answer to 'load' (bytes that are no int"),
    ],
)
def test_the_end_of_an_evaluator_is_one_clear_error(tmp_path, fault, words) -> None:
    """Said again by every later call; a new evaluator has a new worker, and the key holder's goes on."""
    when = tmp_path / "when"
    parties = both(faulty(f"load {fault}", when=str(when)))
    ct = parties.encrypt(parties.x)
    when.touch()
    text = line_of(lambda: parties.encrypt(parties.x))
    assert text.startswith("the evaluator's worker of backend 'simulator' ")
    assert words in text
    when.unlink()
    for again in (
        lambda: parties.evaluator.negate(ct),
        lambda: parties.evaluator.dump(ct),
        lambda: parties.encrypt(parties.x),
    ):
        assert line_of(again) == text
    fresh = parties.backend.evaluator(parties.params)
    fresh.load_keys(dict(parties.holder.evaluation_keys()))
    turned = fresh.rotate(fresh.load(parties.send(parties.x)), 1)
    assert np.abs(parties.holder.decrypt(turned) - np.roll(parties.x, -1)).max() < 1e-3


def test_the_end_of_a_key_holder_says_that_its_keys_are_lost(tmp_path) -> None:
    when = tmp_path / "when"
    parties = both(faulty("load SEGV", when=str(when)))
    parties.holder.save(tmp_path / "key")
    result = parties.evaluator.dump(parties.encrypt(parties.x))
    when.touch()
    text = line_of(lambda: parties.holder.decrypt_bytes(result))
    assert text == (
        "the key holder's worker of backend 'simulator' ended by signal 11 (a crash in native code); secret keys that "
        "were not saved are lost; make new keys, which starts another one"
    )
    when.unlink()
    assert line_of(lambda: parties.send(parties.x)) == text
    saved = parties.backend.load_key_holder(parties.params, parties.manifest, tmp_path / "key")
    assert np.abs(saved.decrypt_bytes(result) - parties.x).max() < 1e-3


def test_a_worker_that_ended_while_nobody_asked() -> None:
    parties = both(hosted_backends.tenseal())
    parties.backend.drop_secrets()
    ended = parties.backend.provenance().process
    os.kill(ended, signal.SIGKILL)
    assert gone(ended)
    assert parties.backend.provenance().process != ended
    assert "ended by signal 9" in line_of(lambda: parties.evaluator.encode(1.0, 1, 2.0**20))


# -- starting ---------------------------------------------------------------------------------------------------------

CLASS = "hefw.backends.simulator.backend:SimulatorBackend"
OLD = """
import runpy, sys
sys.version_info = (3, 9, 1)
sys.argv[:1] = []
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("python", "target", "words"),
    [
        (("/no/such/python",), CLASS, r"cannot be started by /no/such/python: No such file or directory"),
        (("/etc/passwd",), CLASS, r"cannot be started by /etc/passwd: Permission denied"),
        (("/bin/true",), CLASS, r"ended with exit code 0; it was started by /bin/true"),
        (
            (sys.executable, "-S", "-I"),
            CLASS,
            r"exit code 1; its last words: ModuleNotFoundError: No module named 'numpy'",
        ),
        ((sys.executable, "-c", OLD), CLASS, r"last words: error: a worker needs Python 3.10 or newer, this is 3\."),
        ((sys.executable,), "hefw.backends.none:X", r"failed at 'start': ModuleNotFoundError: .*hefw.backends.none"),
        ((sys.executable,), "hefw.backends.simulator.backend:X", r"failed at 'start': AttributeError: .*'X'"),
        ((sys.executable,), "hosted_faults.backend:Faulty.x.y", r"failed at 'start': AttributeError"),
    ],
)
def test_a_worker_that_does_not_start(python, target, words) -> None:
    backend = HostedBackend("toy", target, None, python)
    for ask in (lambda: backend.capabilities, lambda: backend.resolve(PARAMS)):
        text = line_of(ask)
        assert text.startswith("the key holder's worker of backend 'toy' ")
        assert re.search(words, text)


@pytest.mark.parametrize("target", ["no_such_module:X", "__main__:X", "sys:X", "", "itertools:X"])
def test_a_target_that_is_no_file(target) -> None:
    assert "of a hosted backend is no file" in line_of(lambda: HostedBackend("toy", target).capabilities, PluginError)


@pytest.mark.parametrize("place", ["start", "resolve", "provenance"])
@pytest.mark.parametrize("how", ["sleep", "native"])
def test_a_worker_that_hangs_at_something_quick(place, how) -> None:
    backend = faulty(f"{place} {how}", patience=2.0)
    started = time.monotonic()
    ask: Any = {"start": lambda: backend.capabilities, "resolve": lambda: backend.resolve(PARAMS)}.get(
        place, backend.provenance
    )
    assert f"did not answer {place!r} in time and was ended" in line_of(ask)
    assert time.monotonic() - started < PATIENCE


def test_options_reach_the_class_as_an_object() -> None:
    assert faulty("resolve hefw").options == {"fault": "resolve hefw"}
    with pytest.raises(LevelError):
        faulty("resolve hefw").resolve(PARAMS)
    none = HostedBackend("simulator", CLASS)
    assert none.resolve(PARAMS).backend == "simulator"


# -- orphans ----------------------------------------------------------------------------------------------------------

CLIENT = """
    import os, signal, sys, threading, time
    import hosted_backends
    from hefw.testing.parties import Precision, make_parties
    from test_hosted_worker import PARAMS, workers

    parties = make_parties(hosted_backends.faulty(sys.argv[1]), PARAMS, Precision())
    data = parties.send(parties.x)
    print(*workers(), flush=True)
"""


def start_client(then: str, fault: str = "") -> tuple[subprocess.Popen[str], list[int]]:
    """A process in a session of its own with two workers, and their process ids."""
    client = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CLIENT) + textwrap.dedent(then), fault],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parents[1])))},
    )
    assert client.stdout is not None
    pids = [int(pid) for pid in client.stdout.readline().split()]
    assert len(pids) == 2
    return client, pids


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(
    ("then", "fault"),
    [
        ("time.sleep(600)", ""),
        ("print('busy', flush=True); parties.evaluator.load(data)", "load sleep"),
        ("print('busy', flush=True); parties.evaluator.load(data)", "load native"),
        ("print('busy', flush=True); parties.holder.decrypt_bytes(data)", "load native"),
    ],
)
def test_workers_end_when_their_owner_is_killed(end, then, fault) -> None:
    client, pids = start_client(then, fault)
    if fault:
        client.stdout.readline()
        time.sleep(0.3)  # it is in the middle of it
    client.send_signal(end)
    assert client.wait(PATIENCE) == -end
    assert all(map(gone, pids))


@pytest.mark.parametrize(
    ("then", "code"),
    [
        ("", 0),
        ("os._exit(3)", 3),
        ("raise SystemExit(4)", 4),
        ("del parties", 0),
        ("threading.Thread(target=lambda: parties.send(parties.x)).start()", 0),
    ],
)
def test_workers_end_with_their_owner(then, code) -> None:
    client, pids = start_client(then)
    assert client.wait(PATIENCE) == code
    assert all(map(gone, pids))


def test_workers_end_though_a_forked_child_lives_on() -> None:
    """The child has copies of everything that its parent had open."""
    client, pids = start_client("child = os.fork(); child and print(child, flush=True); time.sleep(600)")
    child = int(client.stdout.readline())
    client.kill()
    client.wait(PATIENCE)
    try:
        assert all(map(gone, pids))
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_worker_made_by_a_thread_lives_on_when_the_thread_ends() -> None:
    found: list[Parties] = []
    maker = threading.Thread(target=lambda: found.append(both(hosted_backends.tenseal())))
    maker.start()
    maker.join()
    time.sleep(0.3)
    (parties,) = found
    assert parties.error(parties.encrypt(parties.x), parties.x) < 1e-3


@pytest.mark.parametrize("side", ["evaluator.load", "holder.decrypt_bytes"])
def test_ctrl_c_reaches_this_process_alone_which_ends_the_worker(side) -> None:
    then = f"""
        print("busy", flush=True)
        try:
            parties.{side}(data)
        except KeyboardInterrupt:
            print(len(workers()), flush=True)
            try:
                parties.{side}(data)
            except Exception as error:
                print(error, flush=True)
    """
    client, pids = start_client(then, "load native")
    assert client.stdout.readline() == "busy\n"
    time.sleep(0.3)
    os.killpg(client.pid, signal.SIGINT)
    assert client.stdout.readline() == "1\n"
    assert "was ended when its call 'load' was interrupted" in client.stdout.readline()
    assert client.wait(PATIENCE) == 0
    assert all(map(gone, pids))


# -- forks and threads ------------------------------------------------------------------------------------------------


def in_a_fork(work: Callable[[], object], leave: Callable[[int], object] = os._exit) -> bytes:
    """What `work` returned or raised in a forked child."""
    here, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(there, repr(work()).encode())
        except BaseException as error:
            os.write(there, f"{type(error).__name__}: {error}".encode())
        finally:
            leave(0)
    os.close(there)
    with os.fdopen(here, "rb") as file:
        said = file.read()
    assert os.waitpid(pid, 0)[1] == 0
    return said


def test_a_forked_child_is_refused_by_name() -> None:
    parties = both(hosted_backends.tenseal())
    ct = parties.encrypt(parties.x)
    assert not parties.backend.capabilities.fork
    for work in (
        lambda: parties.send(parties.x),
        lambda: parties.evaluator.negate(ct),
        lambda: parties.backend.evaluator(parties.params),
        lambda: parties.backend.keygen(parties.params, KeyManifest()),
        parties.backend.provenance,
    ):
        said = in_a_fork(work).decode()
        assert said.startswith("CapabilityError: backend 'tenseal' lives in worker processes, which a forked child")
        assert "spawn" in said
    assert parties.error(ct, parties.x) < 1e-3  # nothing of that has harmed the workers


def test_a_forked_child_that_exits_in_good_order_harms_nobody() -> None:
    """It runs what is to be run at an exit, collects garbage, and may make workers of its own."""
    script = """
        pid = os.fork()
        if pid == 0:
            parties = None
            other = hosted_backends.faulty()
            print(other.provenance().process in workers(), flush=True)
            raise SystemExit(0)
        print(os.waitpid(pid, 0)[1], flush=True)
        print(parties.error(parties.evaluator.load(data), parties.x) < 1e-3, flush=True)
    """
    client, pids = start_client(script)
    assert client.communicate(timeout=PATIENCE)[0].split() == ["True", "0", "True"]
    assert all(map(gone, pids))


def test_threads_take_turns() -> None:
    parties = both(hosted_backends.tenseal())
    wrong: list[object] = []

    def work(step: int) -> None:
        try:
            for _ in range(10):
                ct = parties.evaluator.rotate(parties.encrypt(parties.x), step)
                assert parties.error(ct, np.roll(parties.x, -step)) < 1e-3
        except BaseException as error:
            wrong.append(error)

    assert parties.backend.capabilities.threads
    threads = [threading.Thread(target=work, args=(step,)) for step in (1, 5, 1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_is_let_go_of_is_freed_there() -> None:
    parties = both(hosted_backends.tenseal())
    worker = psutil.Process(parties.evaluator._worker.pid)
    data = parties.send(parties.x)
    kept: list[Ciphertext] = []
    for _ in range(50):
        parties.evaluator.load(data)
    before = worker.memory_info().rss
    for _ in range(300):
        parties.evaluator.load(data)
    assert worker.memory_info().rss - before < 30 * len(data)
    for _ in range(300):
        kept.append(parties.evaluator.load(data))
    assert worker.memory_info().rss - before > 300 * len(data)
