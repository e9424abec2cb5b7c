"""The server's process: it answers, its death is told, and it never outlives the key holder's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
import toy_model
from processes import PATIENCE, gone

from hefw.core.errors import ProtocolError
from hefw.protocol import wire
from hefw.protocol.client import Client
from hefw.protocol.process import ServerProcess

CLIENT = """
    import signal, sys, time
    from pathlib import Path
    from hefw.protocol import wire
    from hefw.protocol.process import ServerProcess

    with ServerProcess(Path(sys.argv[1]), "tenseal") as server:
        server.send(wire.encode("close"))
        server.receive()
        print(server.pid, flush=True)
"""


def start_client(model_file: Path, then: str) -> tuple[subprocess.Popen[str], int]:
    """A key holder's process in a session of its own, and the process id of its server."""
    script = textwrap.dedent(CLIENT) + textwrap.indent(textwrap.dedent(then), "    ")
    client = subprocess.Popen(
        [sys.executable, "-c", script, str(model_file)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert client.stdout is not None
    return client, int(client.stdout.readline())


def test_it_answers_and_ends(model_file) -> None:
    with ServerProcess(model_file, "tenseal") as server:
        server.send(wire.encode("close"))
        answer = wire.decode(server.receive(), "error")
        assert answer.fields == {
            "error": "ProtocolError",
            "message": "the session is not open; send an 'open' message first",
        }
        assert psutil.pid_exists(server.pid)
    assert not psutil.pid_exists(server.pid)


def test_the_key_holders_environment_stays_at_home(model_file, monkeypatch) -> None:
    monkeypatch.setenv("HEFW_TEST_SECRET", "hunter2")
    with ServerProcess(model_file, "tenseal") as server:
        environment = psutil.Process(server.pid).environ()
        descriptors = os.listdir(f"/proc/{server.pid}/fd")
    assert "HEFW_TEST_SECRET" not in environment
    assert len(descriptors) <= 5  # three standard streams, the socket, and at most one that a library opens


@pytest.mark.parametrize(("stage", "at_least"), [("encode", 0), ("label", 0), ("evaluate", 0), ("evaluate", 2)])
def test_killed_in_the_middle(model_file, graph, backend, stage, at_least) -> None:
    pids = []

    def kill(progress) -> None:
        if progress.stage == stage and progress.done >= at_least and not pids:
            pids.append(server.pid)
            os.kill(server.pid, signal.SIGKILL)

    with ServerProcess(model_file, "tenseal") as server:
        client = Client(server, backend, kill)
        with pytest.raises(ProtocolError, match=r"^the server process ended by signal 9$"):  # noqa: PT012
            client.open(graph.digest, toy_model.REQUEST)
            for _ in range(100):
                client.generate(toy_model.inputs(3))
        with pytest.raises(ProtocolError, match="ended by signal 9"):
            client.close()
    assert pids == [server.pid]
    assert not psutil.pid_exists(server.pid)


def test_an_exception_of_the_key_holder_ends_the_server(model_file, graph, backend) -> None:
    with pytest.raises(ZeroDivisionError), ServerProcess(model_file, "tenseal") as server:  # noqa: PT012
        Client(server, backend).open(graph.digest, toy_model.REQUEST)
        raise ZeroDivisionError
    assert not psutil.pid_exists(server.pid)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_when_the_key_holder_is_killed(model_file, end) -> None:
    client, server = start_client(model_file, "time.sleep(600)")
    client.send_signal(end)
    assert client.wait(PATIENCE) == -end
    assert gone(server)


def test_it_ends_when_the_key_holder_exits_at_once(model_file) -> None:
    client, server = start_client(model_file, "import os; os._exit(3)")
    assert client.wait(PATIENCE) == 3
    assert gone(server)


def test_it_ends_in_the_middle_of_its_work(model_file) -> None:
    """The key holder dies while the server plans, or encodes: it notices at the next thing it has to say."""
    then = f"""
        from hefw.plugins import registry
        from hefw.core.graph import Graph
        from hefw.core.lower import Request
        digest = Graph.load(Path(sys.argv[1])).digest
        server.send(wire.encode(
            "open", graph_digest=digest, backend="tenseal", precision_db=60.0, ring_dimension={toy_model.RING},
            params=None, allow_insecure=True,
        ))
        import os; os.kill(os.getpid(), signal.SIGKILL)
    """
    client, server = start_client(model_file, then)
    assert client.wait(PATIENCE) == -signal.SIGKILL
    assert gone(server)


def test_ctrl_c_does_not_reach_it(model_file) -> None:
    """SIGINT goes to the foreground's process group; the server is in another one, and still answers afterwards."""
    then = """
        try:
            print("ready", flush=True)
            time.sleep(600)
        except KeyboardInterrupt:
            server.send(wire.encode("close"))
            print(wire.decode(server.receive()).kind, flush=True)
    """
    client, server = start_client(model_file, then)
    assert client.stdout is not None
    assert client.stdout.readline() == "ready\n"
    os.killpg(client.pid, signal.SIGINT)
    assert client.stdout.readline() == "error\n"
    assert client.wait(PATIENCE) == 0
    assert gone(server)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is not a readable graph file"),
        (b"", "is not a readable graph file"),
        (b"\xff" * 100, "is not a readable graph file"),
        (b"\x02\0\0\0\0\0\0\0{}", "is a safetensors file, but not a hefw graph"),
    ],
)
def test_last_words_on_a_broken_model(tmp_path, content, words) -> None:
    path = tmp_path / "model.hefw"
    if content is not None:
        path.write_bytes(content)
    with ServerProcess(path, "tenseal") as server, pytest.raises(ProtocolError) as caught:
        server.receive()
    assert str(caught.value).startswith("the server process ended with exit code 1; its last words: error: ")
    assert words in str(caught.value)


def test_last_words_on_an_unknown_backend(model_file) -> None:
    with ServerProcess(model_file, "tensela") as server:
        with pytest.raises(ProtocolError, match="last words: error: unknown backend 'tensela'; did you mean 'tenseal'"):
            server.receive()
        with pytest.raises(ProtocolError, match="exit code 1"):  # noqa: PT012 (the first may still fit the socket)
            server.send(wire.encode("close"))
            server.send(wire.encode("close"))


def test_last_words_on_options_that_it_does_not_know(model_file) -> None:
    words = r"exit code 1; its last words: error: .*threads"
    with ServerProcess(model_file, "tenseal", {"threads": 3}) as server, pytest.raises(ProtocolError, match=words):
        server.receive()
