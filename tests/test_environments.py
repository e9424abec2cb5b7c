"""Where managed environments are, and what of a damaged one is believed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from hefw import environments
from hefw.core.errors import PluginError

RECORD = {
    "version": 1,
    "folder": "0a1b",
    "python_version": "3.10.13",
    "requirements": ["toy-he==1.0"],
    "versions": {"toy-he": "1.0"},
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEFW_HOME", str(tmp_path))
    return tmp_path


def record(home: Path, data: bytes, interpreter: bool = True) -> None:
    python = home / "environments" / "toy" / "0a1b" / "bin" / "python"
    python.parent.mkdir(parents=True)
    if interpreter:
        python.symlink_to(sys.executable)
    (home / "environments" / "toy" / "environment.json").write_bytes(data)


def test_nothing_is_there() -> None:
    assert environments.find("toy") is None
    assert environments.problem("toy") is None


def test_a_complete_one(home: Path) -> None:
    record(home, json.dumps(RECORD).encode())
    found = environments.find("toy")
    assert found is not None
    assert found.folder == home / "environments" / "toy" / "0a1b"
    assert found.python == found.folder / "bin" / "python"
    assert (found.name, found.python_version, found.versions) == ("toy", "3.10.13", {"toy-he": "1.0"})
    assert environments.problem("toy") is None
    assert [found.version(name) for name in ("toy-he", "Toy_He", "toy")] == ["1.0", "1.0", None]


def test_written_and_read(home: Path) -> None:
    record(home, b"old")
    environments.write("toy", "0a1b", "3.10.13", ("toy-he==1.0",), {"toy-he": "1.0"})
    found = environments.find("toy")
    assert found is not None
    assert found.requirements == ("toy-he==1.0",)
    assert json.loads((home / "environments" / "toy" / "environment.json").read_text()) == RECORD


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"[" * 100_000,
        *(
            json.dumps(RECORD | change).encode()
            for change in (
                {"folder": "../../elsewhere"},
                {"folder": "."},
                {"folder": 1},
                {"folder": None},
                {"python_version": 3.1},
                {"requirements": 1},
                {"requirements": [1]},
                {"versions": ["toy-he"]},
                {"versions": {"toy-he": None}},
            )
        ),
        *(json.dumps({k: v for k, v in RECORD.items() if k != key}).encode() for key in RECORD),
    ],
)
def test_a_corrupt_record(home: Path, data: bytes) -> None:
    record(home, data)
    assert environments.find("toy") is None
    assert environments.problem("toy") == (
        f"{home / 'environments' / 'toy' / 'environment.json'} cannot be used: it is malformed"
    )


def test_a_record_of_another_version(home: Path) -> None:
    record(home, json.dumps(RECORD | {"version": 2}).encode())
    assert environments.find("toy") is None
    assert str(environments.problem("toy")).endswith("it is of version 2, this hefw reads 1")


def test_an_interpreter_that_is_gone(home: Path) -> None:
    record(home, json.dumps(RECORD).encode(), interpreter=False)
    assert environments.find("toy") is None
    assert "its interpreter" in str(environments.problem("toy"))
    (home / "environments" / "toy" / "0a1b" / "bin" / "python").symlink_to("/no/such/python3.10")
    assert environments.find("toy") is None


def test_a_record_that_cannot_be_read(home: Path) -> None:
    (home / "environments" / "toy" / "environment.json").mkdir(parents=True)
    assert environments.find("toy") is None
    assert str(environments.problem("toy")).endswith("cannot be used: Is a directory")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", "a b", "-x", "x" * 65, "é", "a\n"])
def test_names_that_are_no_folder(name: str) -> None:
    with pytest.raises(PluginError, match="cannot name a managed environment"):
        environments.root(name)
    assert environments.find(name) is None
    assert environments.problem(name) is None


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("HEFW_HOME", "~/mine")
    assert environments.home() == tmp_path / "user" / "mine"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEFW_HOME", "here")
    assert environments.home() == tmp_path / "here"
    monkeypatch.delenv("HEFW_HOME")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert environments.home() == tmp_path / "data" / "hefw"
    monkeypatch.setenv("XDG_DATA_HOME", "")
    assert environments.home() == tmp_path / "user" / ".local" / "share" / "hefw"
    (tmp_path / "venv" / "hefw").mkdir(parents=True)
    assert environments.home() == tmp_path / "venv" / "hefw"


def test_others_are_removed(home: Path) -> None:
    record(home, json.dumps(RECORD).encode())
    root = home / "environments" / "toy"
    (root / "ffff" / "lib").mkdir(parents=True)
    environments.remove_others("toy", root / "0a1b")
    assert sorted(path.name for path in root.iterdir()) == ["0a1b", "environment.json"]
    assert isinstance(environments.find("toy"), environments.Environment)


def test_an_environment_is_frozen(home: Path) -> None:
    record(home, json.dumps(RECORD).encode())
    found: Any = environments.find("toy")
    with pytest.raises(AttributeError):
        found.python = Path("/bin/sh")
