"""Whole runs with hosted backends: the key holder's and the server's library in processes of their own."""

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

import hefw
from hefw.core.errors import ProtocolError

RUN = {**toy_model.CONFIG, "backend": {"name": "tenseal", "hosted": True}}


def tree() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def test_pictures_are_the_twins(toys) -> None:
    before, seen = {p.pid for p in tree()}, set()

    def look(progress) -> None:
        seen.update(p.pid for p in tree())

    result = hefw.generate(**RUN, progress=look)
    assert toy_model.psnr(result.images, result.plain) >= toy_model.PRECISION_DB
    assert len(seen - before) >= 3  # the server, its worker, the key holder's worker
    plain = hefw.generate(**{**RUN, "backend": "tenseal"})
    assert plain.record.counts == result.record.counts
    assert plain.record.bytes == result.record.bytes
    assert result.record.peak_rss_bytes > plain.record.peak_rss_bytes  # both workers are counted
    assert result.record.config["backend"] == {"name": "tenseal", "hosted": True}
    assert "backend.hosted=true" in hefw.config.Config(**result.record.config).command()


@pytest.mark.parametrize("side", ["server", "key holder"])
def test_a_worker_that_is_killed_is_one_clear_error(toys, side) -> None:
    killed, before = [], {p.pid for p in tree()}

    def kill(progress) -> None:
        if progress.stage == "evaluate" and progress.done == 2 and not killed:
            (server,) = (p for p in tree() if "hefw.protocol.serve" in p.cmdline())
            parent = server.pid if side == "server" else os.getpid()
            found = [p for p in tree() if p.ppid() == parent and p.pid not in before]
            (chosen,) = (p for p in found if any("hosted/start.py" in word for word in p.cmdline()))
            killed.append(chosen.pid)
            chosen.kill()

    words = {
        "server": r"^the server refused: the evaluator's worker of backend 'tenseal' ended by signal 9 .*new session",
        "key holder": r"^the key holder's worker of backend 'tenseal' ended by signal 9 .*make new keys",
    }
    with pytest.raises(ProtocolError, match=words[side]) as caught:
        hefw.generate(**RUN, progress=kill)
    assert "\n" not in str(caught.value)
    assert len(killed) == 1


def test_nothing_outlives_a_run_that_is_killed(tmp_path: Path) -> None:
    script = """
        import os, sys
        import psutil, toy_model
        from hefw import plugins, run, running
        from test_hosted_run import RUN, tree

        found = toy_model.toy_registry()
        plugins.registry = running.registry = lambda: found

        def stop(progress):
            if progress.stage == "evaluate" and progress.done >= 2:
                print(*(p.pid for p in tree()), flush=True)
                os.kill(os.getpid(), int(sys.argv[1]))

        run.generate(**RUN, progress=stop)
    """
    here = Path(__file__).parent
    for end in (signal.SIGKILL, signal.SIGTERM):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), str(int(end))],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([*map(str, (here, here.parents[1])), *sys.path])},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE * 3,
        )
        assert done.returncode == -end, done.stderr
        pids = [int(pid) for pid in done.stdout.split()]
        assert len(pids) == 3
        assert all(map(gone, pids))
