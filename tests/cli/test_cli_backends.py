"""`hefw backends list`, `install` and `doctor`: output, exit codes, and one line for whatever is wrong."""

from __future__ import annotations

import importlib
import io
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import hefw.run
from hefw import cli, environments, plugins
from hefw.hookspecs import Entry, Install
from hefw.install import installer
from hefw.install.installer import Installed
from hefw.plugins import Registry
from hefw.record import SIMULATED
from hefw.report.stages import PlainStages, show_stages

Call = Callable[..., SimpleNamespace]
FAR = Install(("far-he==1.0",), python="3.98", minimum_glibc=(2, 35))
#: A library for another Python: pip installs it, and nobody can import it.
BROKEN = "from broken_he.core import Context\n"


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine: no interpreters, no managed environments; made-up backends beside two built-in ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEFW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.delenv("HEFW_DEBUG", raising=False)
    (tmp_path / "broken_he").mkdir()
    (tmp_path / "broken_he" / "__init__.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    registry = Registry()
    real = plugins.registry()
    for kind, name in (("backend", "simulator"), ("backend", "tenseal"), ("strategy", "full"), ("model", "digits")):
        registry.add(kind, real.entry(kind, name), "built-in")  # type: ignore[arg-type]
    registry.add("scheduler", real.entry("scheduler", "auto"), "built-in")
    mine = [
        Entry(
            "far",
            "far_he.backend:Far",
            "for another Python",
            requires=("far_he",),
            distribution="far-he",
            install=(FAR,),
        ),
        Entry("hard", "hard:Hard", "by hand", requires=("hard_he",), advice="conda install hard-he"),
        Entry("broken", "broken_backend:Broken", "half there", requires=("broken_he",), install=(FAR,)),
        Entry("../up", "up:Up", "a bad name", requires=("up_he",), install=(FAR,)),
    ]
    for entry in mine:
        registry.add("backend", entry, "mine")
    monkeypatch.setattr(plugins, "registry", lambda: registry)
    monkeypatch.setattr(hefw.run, "registry", lambda: registry, raising=False)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def calling(*arguments: str) -> SimpleNamespace:
        code = cli.run(arguments)
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return calling


def managed(tmp_path: Path, name: str, versions: dict[str, str]) -> Path:
    """A managed environment as `install` leaves it, with this interpreter."""
    python = tmp_path / "home" / "environments" / name / "0a1b" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    environments.write(name, "0a1b", "3.98.1", FAR.requirements, versions)
    return python


# list


def test_list(call: Call) -> None:
    result = call("backends", "list")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[lines.index("far: not available: far_he not installed; run: hefw backends install far") + 1] == (
        "    what it can do is known once installed"
    )
    assert "hard: not available: hard_he not installed; run: conda install hard-he" in lines
    broken = next(line for line in lines if line.startswith("broken: "))
    assert "broken_he cannot be imported here: ModuleNotFoundError: No module named 'broken_he.core'" in broken
    assert broken.endswith("; run: hefw backends install broken")
    version = ".".join(map(str, sys.version_info[:3]))
    tenseal = next(k for k, line in enumerate(lines) if line.startswith("tenseal: tenseal "))
    assert lines[tenseal].endswith(f", in this process (Python {version})")
    assert lines[tenseal + 1].split("; ") == [
        "    N = 1024 to 32768",
        "conjugation",
        "complex values",
        "hoisted rotations",
        "no sparse packing",
        "no bootstrapping",
    ]
    simulator = next(k for k, line in enumerate(lines) if line.startswith("simulator: "))
    assert lines[simulator + 1].startswith("    SIMULATED, no encryption; N = 1024")


def test_list_of_managed_environments(call: Call, tmp_path: Path) -> None:
    python = managed(tmp_path, "far", {"Far_HE": "1.2"})
    lines = call("backends", "list").out.splitlines()
    assert f"far: far-he 1.2, in a managed environment (Python 3.98.1, {python})" in lines
    assert re.search(r"^backend +far +1\.2 +for another Python$", call("plugins").out, re.M)
    python.unlink()
    lines = call("backends", "list").out.splitlines()
    (far,) = [line for line in lines if line.startswith("far: ")]
    assert far.startswith("far: not available: ")
    assert far.endswith("is gone; run: hefw backends install far")


def test_list_as_json(call: Call, tmp_path: Path) -> None:
    python = managed(tmp_path, "far", {"far-he": "1.0"})
    result = call("backends", "list", "--json")
    assert (result.code, result.err) == (0, "")
    rows = {row["name"]: row for row in json.loads(result.out)}
    assert list(rows) == sorted(rows)
    assert rows["far"]["where"] == "environment"
    assert (rows["far"]["python"], rows["far"]["python_version"]) == (str(python), "3.98.1")
    assert (rows["far"]["available"], rows["far"]["capabilities"], rows["far"]["reason"]) == (True, None, None)
    assert (rows["hard"]["available"], rows["hard"]["advice"]) == (False, "conda install hard-he")
    assert rows["tenseal"]["python"] == sys.executable
    assert rows["tenseal"]["capabilities"]["ring_dimensions"] == [1024, 2048, 4096, 8192, 16384, 32768]
    assert rows["simulator"]["capabilities"]["simulated"] is True
    assert rows["simulator"]["advice"] is None


def test_capabilities_are_known_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """All built-in backends' classes import while their libraries do not."""
    from hefw.install.availability import capabilities

    monkeypatch.undo()
    found = plugins.registry()
    built_in = [name for name in found.names("backend") if found.sources["backend", name] in plugins.BUILTIN]
    for name in built_in:
        entry = found.entry("backend", name)
        for library in entry.requires:
            monkeypatch.setitem(sys.modules, library, None)
        monkeypatch.delitem(sys.modules, entry.target.partition(":")[0], raising=False)
    assert {name: capabilities(found.entry("backend", name)) is not None for name in built_in} == dict.fromkeys(
        built_in, True
    )


# install


def test_install_says_where(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    managed(tmp_path, "far", {})
    found = environments.find("far")
    assert found is not None
    outcomes = iter([Installed("far", found, True), Installed("far", found, False), Installed("far", None, True)])
    asked: list[dict[str, object]] = []

    def install(entry: Entry, **options: object) -> Installed:
        asked.append({"name": entry.name, **options})
        report = options["report"]
        assert callable(report)
        report("installing far-he==1.0", "Collecting far-he")
        return next(outcomes)

    monkeypatch.setattr("hefw.install.install", install)
    result = call("backends", "install", "far", "--python", "python3.98", "--force")
    assert result.code == 0
    assert result.out == f"far: installed in a managed environment of Python 3.98.1: {found.folder}\n"
    assert result.err == "installing far-he==1.0: Collecting far-he\n"
    assert [asked[0][key] for key in ("name", "python", "force")] == ["far", "python3.98", True]
    assert call("backends", "install", "far").out == (
        f"far: is there already, in a managed environment of Python 3.98.1: {found.folder}\n"
    )
    assert call("backends", "install", "far").out == f"far: installed in the environment of {sys.executable}\n"
    assert [asked[1][key] for key in ("python", "force")] == [None, False]


def test_install_of_what_is_there(call: Call) -> None:
    for name in ("simulator", "tenseal"):
        result = call("backends", "install", name)
        assert (result.code, result.err) == (0, "")
        assert result.out == f"{name}: is there already, in the environment of {sys.executable}\n"


# doctor


def test_doctor(call: Call) -> None:
    result = call("backends", "doctor", "tenseal")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert all(line.startswith(("ok ", "not offered ")) for line in lines)
    assert re.fullmatch(r"ok +load the library +[\d.]+ ms  tenseal [\d.]+, Python [\d.]+, process \d+", lines[0])
    assert re.search(r"^ok +choose parameters .* N = 8192, log2\(QP\) = \d+, 128-bit security$", result.out, re.M)
    assert re.search(r"^ok +rotate by 1 +[\d,.]+ ms  largest error \d\.\de-\d\d$", result.out, re.M)
    assert re.search(r"^not offered bootstrap +the library has none", result.out, re.M)


def test_doctor_as_json(call: Call) -> None:
    result = call("backends", "doctor", "tenseal", "--json")
    assert (result.code, result.err) == (0, "")
    told = json.loads(result.out)
    assert (told["backend"], told["ok"], told["simulated"], told["security_bits"]) == ("tenseal", True, False, 128)


def test_doctor_of_the_simulator_says_so(call: Call) -> None:
    result = call("backends", "doctor", "simulator")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[-1] == SIMULATED
    result = call("backends", "doctor", "simulator", "--json")
    assert json.loads(result.out)["simulated"] is True
    assert result.err == f"{SIMULATED}\n"


def test_doctor_of_a_broken_backend(call: Call, tmp_path: Path) -> None:
    (tmp_path / "broken_backend.py").write_text("from broken_he import Context\n")
    for words in (["broken"], ["broken", "--json"]):
        result = call("backends", "doctor", *words)
        assert result.code == 1
        assert result.err == "error: backend 'broken': 1 of 1 checks failed: load the library\n"
        assert "No module named 'broken_he.core'" in result.out
    assert json.loads(result.out)["ok"] is False


def test_a_library_that_prints_is_not_in_the_json(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chatty = ModuleType("chatty")
    backend = importlib.import_module("hefw.backends.simulator.backend").SimulatorBackend

    def make(options: object) -> object:
        print("a library that talks")
        return backend(options)

    chatty.make = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "chatty", chatty)
    plugins.registry().add("backend", Entry("chatty", "chatty:make", "talks"), "mine")
    result = call("backends", "doctor", "chatty", "--json")
    assert json.loads(result.out)["ok"] is True
    assert "a library that talks\n" in result.err


# whatever is wrong is one line


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["backends"], 2, ["Missing command", "hefw backends --help"]),
        (["backends", "lst"], 2, ["No such command 'lst'"]),
        (["backends", "list", "tenseal"], 2, ["unexpected extra argument", "tenseal"]),
        (["backends", "list", "--jsn"], 2, ["--jsn", "--json"]),
        (["backends", "install"], 2, ["NAME", "hefw backends install --help"]),
        (["backends", "install", "tenseal", "far"], 2, ["unexpected extra argument", "far"]),
        (["backends", "install", "tensela"], 2, ["unknown backend 'tensela'", "did you mean 'tenseal'?"]),
        (["backends", "install", "full"], 2, ["unknown backend 'full'", "Known: ../up, broken, far, hard, simulator"]),
        (["backends", "install", ""], 2, ["unknown backend ''"]),
        (["backends", "install", "far", "--python"], 2, ["--python", "requires an argument"]),
        (["backends", "install", "far", "--python", ""], 2, ["--python '' is no program"]),
        (["backends", "install", "far", "--python", "/no/such/python3.10"], 2, ["'/no/such/python3.10' is no program"]),
        (["backends", "install", "far", "--python", "."], 2, ["--python '.' is no program"]),
        (["backends", "install", "far", "--python", "BIN/sh"], 2, ["does not run", "give the path of an interpreter"]),
        (
            ["backends", "install", "far", "--python", sys.executable],
            2,
            ["is Python 3.", "needs Python 3.98 with glibc"],
        ),
        (["backends", "install", "simulator", "--python", "x"], 2, ["--python 'x' is no program"]),
        (["backends", "install", "../up"], 2, ["'../up' cannot name a managed environment"]),
        (
            ["backends", "install", "far"],
            1,
            ["needs Python 3.98 with glibc 2.35", "pyenv install 3.98", "--python PATH"],
        ),
        (["backends", "install", "broken"], 1, ["needs Python 3.98", "uv python install 3.98"]),
        (["backends", "install", "hard"], 1, ["does not say how it is installed", "conda install hard-he"]),
        (["backends", "install", "simulator", "--force"], 1, ["backend 'simulator' needs no library"]),
        (["backends", "doctor"], 2, ["NAME", "hefw backends doctor --help"]),
        (["backends", "doctor", "tensela"], 2, ["unknown backend 'tensela'", "did you mean 'tenseal'?"]),
        (
            ["backends", "doctor", "tenseal", "--bootstrap"],
            2,
            ["backend 'tenseal' cannot bootstrap; those that can: none", "leave --bootstrap out"],
        ),
        (["backends", "doctor", "simulator", "--jsn"], 2, ["--jsn", "--json"]),
        (["generate", "--backend", "far"], 2, ["backend 'far' is unavailable", "run: hefw backends install far"]),
        (["generate", "--backend", "hard"], 2, ["backend 'hard' is unavailable", "run: conda install hard-he"]),
        (
            ["generate", "--backend", "broken"],
            2,
            ["backend 'broken' is unavailable", "No module named 'broken_he.core"],
        ),
        (["generate", "--backend", "opnfhe"], 2, ["unknown backend 'opnfhe'"]),
        (["generate", "--backend", ""], 2, ["backend: '' is not allowed", "allowed: a name"]),
        (["generate", "--backend"], 2, ["--backend", "requires an argument"]),
        (["generate", "--option", "backend.x=1"], 2, ["backend 'tenseal': unknown option 'x'"]),
        (["generate", "--backend", "{}"], 2, ["unknown backend '{}'"]),
        (["quality", "--backend", "tensela"], 2, ["unknown backend 'tensela'"]),
    ],
)
def test_what_is_wrong_is_one_line(call: Call, tmp_path: Path, words: list[str], code: int, parts: list[str]) -> None:
    (tmp_path / "broken_backend.py").write_text("from broken_he import Context\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").write_text("#!/bin/sh\nexit 4\n")
    (tmp_path / "bin" / "sh").chmod(0o755)
    result = call(*(word.replace("BIN", str(tmp_path / "bin")) for word in words))
    assert result.code == code, result.err
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert result.err.splitlines()[-1] == errors[0]
    assert "Traceback" not in result.err
    if code == 2:
        assert result.err.count("\n") == 1 or "doctor" in words
    for part in parts:
        assert part in errors[0]


def test_a_home_that_cannot_be_written(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEFW_HOME", "/proc/nowhere")
    result = call("backends", "install", "far")
    assert (result.code, result.out) == (2, "")
    assert re.fullmatch(r"error: HEFW_HOME: cannot write into '/proc/nowhere': .*; set HEFW_HOME to .*\n", result.err)


def test_a_disk_that_is_full(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(installer, "_workplace", full)
    result = call("backends", "install", "far")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: OSError: [Errno 28] No space left on device")


# stages


def test_plain_stages_show_that_an_install_lives() -> None:
    stream = io.StringIO()
    now = iter([0.0, 1.0, 14.0, 16.0, 20.0, 31.5, 40.0, 60.0])
    show = PlainStages(stream, clock=lambda: next(now))
    for stage, line in [
        ("looking for an interpreter", ""),
        ("installing x", ""),
        ("installing x", "Collecting x"),
        ("installing x", "[ 10%] Building CXX object"),
        ("installing x", "[ 20%] Building CXX object"),
        ("installing x", "[ 30%] Building " + "x" * 1000),
        ("waiting", "process 7"),
        ("waiting", ""),
    ]:
        show(stage, line)
    assert stream.getvalue().splitlines() == [
        "looking for an interpreter",
        "installing x",
        "installing x, 15 s: [ 10%] Building CXX object",
        "installing x, 30 s: [ 30%] Building " + "x" * 81 + "...",
        "waiting: process 7",
        "waiting, 20 s",
    ]


def test_stages_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    with show_stages(stream) as show:
        show("looking for an interpreter", "")
        show("installing x", "[ 10%] Building CXX object [/x]")
        time.sleep(0.5)  # it is drawn ten times a second
    text = stream.getvalue()
    assert "looking for an interpreter" in text
    assert "[ 10%] Building CXX object [/x]" in text
