"""Finding an interpreter, and why one does not fit."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from install_fakes import PYTHON, interpreter, script

from hefw.hookspecs import Install
from hefw.install import interpreters
from hefw.install.interpreters import UnusableInterpreterError, candidates, find, probe

WAY = Install(("x",), python=PYTHON, minimum_glibc=(2, 35))


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No interpreter of this machine is found: PATH and pyenv are empty folders, and uv is not there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return folder


def test_the_running_interpreter_is_probed() -> None:
    own = interpreters.running()
    assert own.version == sys.version_info[:3]
    assert own.full_version == ".".join(map(str, sys.version_info[:3]))
    assert own.cannot_make_environments() is None
    assert own.misfit(Install(("x",))) is None
    assert own.misfit(WAY) == f"is Python {own.full_version}"
    assert list(candidates(None)) == list(candidates(own.python)) == [Path(sys.executable)]


def test_on_path(elsewhere: Path) -> None:
    made = interpreter(elsewhere / f"python{PYTHON}")
    tried: list[str] = []
    found = find(WAY, tried)
    assert found is not None
    assert (found.path, found.version, found.glibc, tried) == (made, (3, 98, 0), (2, 36), [])


def test_a_shim_that_does_not_run_is_passed_over(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pyenv's own, first on PATH: it is there for every version and runs only the chosen ones."""
    shim = script(elsewhere / f"python{PYTHON}", f'echo "pyenv: python{PYTHON}: command not found" >&2\nexit 127')
    old = interpreter(tmp_path / "pyenv" / "versions" / f"{PYTHON}.2" / "bin" / "python")
    new = interpreter(tmp_path / "pyenv" / "versions" / f"{PYTHON}.13" / "bin" / "python")
    other = interpreter(tmp_path / "pyenv" / "versions" / f"{PYTHON}9.1" / "bin" / "python")
    assert list(candidates(PYTHON)) == [shim, new, old]
    assert other not in candidates(PYTHON)
    tried: list[str] = []
    found = find(WAY, tried)
    assert found is not None
    assert found.path == new
    assert tried == [f"{shim} does not run: pyenv: python{PYTHON}: command not found"]
    monkeypatch.delenv("PYENV_ROOT")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pyenv").rename(tmp_path / ".pyenv")
    assert [path.parents[1].name for path in candidates(PYTHON)][1:] == [f"{PYTHON}.13", f"{PYTHON}.2"]


def test_by_uv(elsewhere: Path, tmp_path: Path) -> None:
    made = interpreter(tmp_path / "uv" / "python")
    script(elsewhere / "uv", f'[ "$2" = find ] && [ "$6" = {PYTHON} ] && echo {made}')
    found = find(WAY, [])
    assert found is not None
    assert found.path == made
    for text in ("exit 2", "exit 0", "kill -9 $$"):
        script(elsewhere / "uv", text)
        assert find(WAY, []) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"python": "3.97"}, "is Python 3.97.0"),
        ({"glibc": "glibc 2.31"}, "needs glibc 2.35 or newer, there is 2.31"),
        ({"glibc": None}, "needs glibc 2.35 or newer, there is none"),
        ({"missing": "ensurepip"}, f"has no module ensurepip (on Debian and Ubuntu: apt install python{PYTHON}-venv)"),
        ({"missing": "venv ensurepip"}, "has no module venv and ensurepip"),
    ],
)
def test_why_one_does_not_fit(elsewhere: Path, changes: dict[str, str], reason: str) -> None:
    made = interpreter(elsewhere / f"python{PYTHON}", **changes)
    tried: list[str] = []
    assert find(WAY, tried) is None
    assert len(tried) == 1
    assert tried[0].startswith(f"{made} {reason}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exit 3", "does not run: exit code 3"),
        ("echo Traceback >&2; echo '  File' >&2; echo 'ImportError: no encodings' >&2; exit 1", "ImportError: no enc"),
        ("echo hello", "is no Python 3 interpreter"),
        ("true", "is no Python 3 interpreter"),
        ("echo '[1]'", "is no Python 3 interpreter"),
        ('echo \'{"version": [3], "glibc": null, "missing": []}\'', "is no Python 3 interpreter"),
        ('echo \'{"version": [3, 9, 1], "glibc": 4, "missing": []}\'', "is no Python 3 interpreter"),
        ("exec sleep 60", "does not answer within 0.3 s"),
    ],
)
def test_what_is_no_interpreter(elsewhere: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str) -> None:
    monkeypatch.setattr(interpreters, "PROBE_SECONDS", 0.3)
    monkeypatch.setenv("PATH", os.defpath)
    with pytest.raises(UnusableInterpreterError) as caught:
        probe(script(elsewhere / "python", text))
    assert reason in str(caught.value)


def test_what_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o755)
    for path in (tmp_path / "nothing", tmp_path, tmp_path / "text"):
        with pytest.raises(UnusableInterpreterError, match="does not run: "):
            probe(path)


def test_one_interpreter_under_two_names_is_asked_once(elsewhere: Path) -> None:
    made = interpreter(elsewhere / f"python{PYTHON}", glibc="glibc 2.17")
    other = elsewhere.parent / "other"
    other.mkdir()
    (other / made.name).symlink_to(made)
    os.environ["PATH"] = f"{elsewhere}{os.pathsep}{os.pathsep}{other}"
    tried: list[str] = []
    assert find(WAY, tried) is None
    assert len(tried) == 1
