"""Programs that are watched: their output, and that an interrupt ends all of them."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from install_fakes import alive

from hefw.install import pip, process
from hefw.install.process import run


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_lines_and_log() -> None:
    log, seen = io.StringIO(), list[str]()
    code = r"""
import os, sys
os.write(1, b'one\n\n\x1b[31mred\x1b[0m\rthree\n'); os.write(2, b'err \xff \xc3'); os.write(1, b'\xa4 end')
sys.exit(3)
"""
    assert run(python(code), log, seen.append) == (3, ["one", "[31mred[0m", "three", "err \ufffd ä end"])
    assert seen[-1] == "err \ufffd ä end"
    assert log.getvalue().splitlines()[-1] == "err \ufffd ä end"
    assert log.getvalue().startswith("$ ")


def test_a_silent_program_is_seen_to_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TICK_SECONDS", 0.05)
    seen: list[str] = []
    run(python("import time; print('begun', flush=True); time.sleep(0.5)"), io.StringIO(), seen.append)
    assert seen.count("begun") > 3


def test_it_gets_its_environment_and_no_input() -> None:
    code = "import os, sys; print(os.environ.get('TOY'), repr(sys.stdin.read()))"
    assert run(python(code), io.StringIO(), str, environment={"TOY": "here"}) == (0, ["here ''"])


def test_output_that_a_grandchild_keeps_open_holds_nobody_up() -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True)"
    started = time.monotonic()
    returned, lines = run(python(code), io.StringIO(), str)
    assert returned == 0
    assert time.monotonic() - started < 20
    time.sleep(0.1)
    assert not alive(int(lines[0]))


FAMILY = """
import os, subprocess, sys, time
if sys.argv[1:]:
    import signal
    signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen(['sleep', '60'])
print(os.getpid(), child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("stubborn", [False, True])
def test_an_interrupt_ends_the_program_and_its_children(monkeypatch: pytest.MonkeyPatch, stubborn: bool) -> None:
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)
    seen: list[str] = []

    def watch(line: str) -> None:
        if line:
            seen.append(line)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([*python(FAMILY), *(["stubborn"] if stubborn else [])], io.StringIO(), watch)
    time.sleep(0.1)
    assert [alive(int(pid)) for pid in seen[0].split()] == [False, False]


CHANGES = """
import signal, sys, time
from pathlib import Path
print("Installing collected packages: x", flush=True)
time.sleep(1)
print("done", flush=True)
Path(sys.argv[1]).touch()
"""


def once(error: type[BaseException]) -> Callable[[str], None]:
    def watch(line: str) -> None:
        if line:
            raise error

    return watch


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_waits_for_the_end_of_a_change(tmp_path: Path, error: type[BaseException]) -> None:
    log = io.StringIO()
    with pytest.raises(error):
        run([*python(CHANGES), str(tmp_path / "x")], log, once(error), finish_from=pip.CHANGES_FROM)
    assert (tmp_path / "x").exists()
    assert log.getvalue().splitlines()[-1] == "done"


def test_a_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run([*python(CHANGES), str(tmp_path / "x")], io.StringIO(), once(KeyboardInterrupt), finish_from="Installing")
    timer.join()
    assert not (tmp_path / "x").exists()


# what pip says


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (
            [
                "ERROR: Could not find a version that satisfies the requirement x==9 (from versions: none)",
                "ERROR: No matching distribution found for x==9",
                "WARNING: You are using pip version 1",
            ],
            "No matching distribution found for x==9",
        ),
        (
            [
                "c++: fatal error: Killed signal terminated program cc1plus",
                "error: command '/usr/bin/c++' failed with exit code 1",
                "error: subprocess-exited-with-error",
                "ERROR: Failed building wheel for x",
                "Failed to build x",
                "ERROR: Could not build wheels for x, which is required to install pyproject.toml-based projects",
            ],
            "error: command '/usr/bin/c++' failed with exit code 1",
        ),
        (
            ["Processing x.whl", "ERROR: Failed building wheel for x", "note: see above"],
            "Failed building wheel for x",
        ),
        (
            ["ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"],
            "Could not install packages due to an OSError: [Errno 28] No space left on device",
        ),
        (["No module named pip"], "No module named pip"),
        ([], "it said nothing"),
    ],
)
def test_the_line_that_tells_most(lines: list[str], line: str) -> None:
    assert pip.failure(lines) == line


def test_variables_of_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in pip.MISLEADING:
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setenv("CMAKE_BUILD_PARALLEL_LEVEL", "7")
    own = pip.environment({}, tmp_path, managed=False)
    assert {own[name] for name in pip.MISLEADING} == {"elsewhere"}
    given = {"A": "x", "LIBRARIES": "/usr/lib:/lib", "CMAKE_TOOLCHAIN_FILE": "hefw.report:report.html.jinja"}
    managed = pip.environment(given, tmp_path, managed=True)
    assert not set(pip.MISLEADING) & set(managed)
    assert managed["A"] == "x"
    assert managed["LIBRARIES"] == "/usr/lib:/lib"
    assert Path(managed["CMAKE_TOOLCHAIN_FILE"]).is_file()
    assert managed["CMAKE_BUILD_PARALLEL_LEVEL"] == "7"
    assert managed["TMPDIR"] == str(tmp_path)
    monkeypatch.delenv("CMAKE_BUILD_PARALLEL_LEVEL")
    assert int(pip.environment({}, tmp_path, managed=True)["CMAKE_BUILD_PARALLEL_LEVEL"]) >= 1


@pytest.mark.parametrize("value", ["hefw.report:nothing.cmake", "no_such_package:file.cmake", "no.such:file.cmake"])
def test_a_file_that_no_package_has(tmp_path: Path, value: str) -> None:
    from hefw.core.errors import PluginError

    with pytest.raises(PluginError, match=f"FILE={value}: there is no file"):
        pip.environment({"FILE": value}, tmp_path, managed=True)
