"""Installing for real, from a folder of made-up distributions: into a managed environment, and into this one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from install_fakes import NAME, PYTHON, REQUIREMENT, alive, entry, interpreter, offline, script, slow_sdist, wheelhouse

from hefw import environments
from hefw.core.errors import ConfigError
from hefw.hookspecs import Install
from hefw.install import InstallError, install, installer
from hefw.install.trial import try_modules

ROOT = Path(__file__).parents[2]
WORKER = {"msgpack", "numpy", "safetensors"}


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = wheelhouse(tmp_path_factory.mktemp("links") / "wheels")
    slow_sdist(folder)
    return folder


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment."""
    folder = tmp_path_factory.mktemp("template") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder


@pytest.fixture(autouse=True)
def place(links: Path, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """HEFW_HOME; one interpreter of the version that no machine has is on PATH, and nothing else."""
    home = tmp_path / "home"
    for name, value in offline(links, home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TOY_TEMPLATE", str(template))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    interpreter(tmp_path / "bin" / f"python{PYTHON}")
    return home


class Stages(list[tuple[str, str]]):
    def __call__(self, stage: str, line: str) -> None:
        if not self or self[-1] != (stage, line):
            self.append((stage, line))

    def names(self) -> list[str]:
        return list(dict.fromkeys(stage for stage, _ in self))


def left(home: Path) -> list[str]:
    """What there is of the toy backend's managed environment."""
    root = home / "environments" / NAME
    return sorted(path.name for path in root.iterdir()) if root.exists() else []


# a managed environment


def test_a_managed_environment_is_made_once(place: Path, tmp_path: Path) -> None:
    stages = Stages()
    assert environments.find(NAME) is None
    done = install(entry(), report=stages)
    made = environments.find(NAME)
    assert made is not None
    assert (done.name, done.environment, done.fresh) == (NAME, made, True)
    assert made.python_version == f"{PYTHON}.0"
    assert made.requirements == (REQUIREMENT,)
    assert made.versions["toy-he"] == "1.0"
    assert set(made.versions) >= WORKER
    assert "hefw" not in made.versions
    assert left(place) == sorted([made.folder.name, "environment.json"])
    assert stages.names() == [
        "looking for an interpreter",
        f"making an environment of Python {PYTHON}.0",
        f"installing {REQUIREMENT}",
        "trying it",
    ]
    assert (
        "installing toy-he==1.0",
        "Successfully installed msgpack-99.0 numpy-99.0 safetensors-99.0 toy-he-1.0",
    ) in stages
    log = (place / "logs" / f"{NAME}.log").read_text()
    assert "Successfully installed" in log
    assert not (place / "tmp").exists()

    started = time.monotonic()
    stages.clear()
    again = install(entry(), report=stages)
    assert (again.environment, again.fresh, stages) == (made, False, [])
    assert time.monotonic() - started < 5

    forced = install(entry(), force=True)
    assert forced.fresh
    assert forced.environment is not None
    assert forced.environment.folder != made.folder
    assert left(place) == sorted([forced.environment.folder.name, "environment.json"])


def test_another_release_replaces_it_and_a_failure_does_not(place: Path) -> None:
    first = install(entry()).environment
    assert first is not None
    gone = (Install(("toy-he==3.0",), python=PYTHON),)
    with pytest.raises(InstallError, match="No matching distribution found for toy-he==3"):
        install(entry(install=gone))
    assert environments.find(NAME) == first
    assert left(place) == sorted([first.folder.name, "environment.json"])
    newer = install(entry(install=(Install(("toy-he==2.0",), python=PYTHON),)))
    assert newer.fresh
    assert newer.environment is not None
    assert newer.environment.versions["toy-he"] == "2.0"
    assert left(place) == sorted([newer.environment.folder.name, "environment.json"])


def test_the_interpreter_may_be_named(place: Path, tmp_path: Path) -> None:
    other = interpreter(tmp_path / "other" / "python", python="3.97")
    ways = (Install((REQUIREMENT,), python=PYTHON), Install(("toy-he==2.0",), python="3.97"))
    done = install(entry(install=ways), python=str(other))
    assert done.environment is not None
    assert (done.environment.python_version, done.environment.requirements) == ("3.97.0", ("toy-he==2.0",))
    assert not install(entry(install=ways), python=str(other)).fresh
    again = install(entry(install=ways), python=f"python{PYTHON}")  # by its name on PATH
    assert again.fresh
    assert again.environment is not None
    assert again.environment.python_version == f"{PYTHON}.0"


def test_a_named_interpreter_makes_a_managed_environment_of_what_fits_here(place: Path) -> None:
    done = install(entry(install=(Install((REQUIREMENT,)),)), python=sys.executable)
    assert done.environment is not None
    assert done.environment.folder.parent == place / "environments" / NAME


def test_what_cannot_be_imported_is_not_there(place: Path) -> None:
    """As with OpenFHE's wheels: pip installs them under any Python, and only an import tells."""
    broken = entry(requires=("broken_he",), install=(Install(("broken-he==1.0",), python=PYTHON),))
    with pytest.raises(InstallError) as caught:
        install(broken)
    text = str(caught.value)
    assert f"backend 'toy' was installed for Python {PYTHON}.0" in text
    assert "broken_he, msgpack, numpy, safetensors cannot be imported there" in text
    assert "ModuleNotFoundError: No module named 'broken_he.core'" in text
    assert f"the whole log: {place / 'logs' / 'toy.log'}" in text
    assert environments.find(NAME) is None
    assert left(place) == []


def test_the_log_of_a_failure_is_named(place: Path) -> None:
    with pytest.raises(InstallError) as caught:
        install(entry(install=(Install(("no-such-he==1.0",), python=PYTHON),)))
    assert str(caught.value) == (
        "pip could not install no-such-he==1.0 msgpack>=1.0 numpy>=1.26 safetensors>=0.4: No matching distribution "
        f"found for no-such-he==1.0; the whole log: {place / 'logs' / 'toy.log'}"
    )
    assert "from versions: none" in (place / "logs" / "toy.log").read_text()


def test_an_environment_that_cannot_be_made(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_TEMPLATE", str(tmp_path / "nowhere"))
    with pytest.raises(
        InstallError, match=r"cannot make an environment: .*cp: .*; .*backends install toy --python PATH"
    ):
        install(entry())
    assert left(place) == []


def test_no_interpreter(tmp_path: Path) -> None:
    (tmp_path / "bin" / f"python{PYTHON}").unlink()
    shim = script(tmp_path / "bin" / f"python{PYTHON}", "echo 'pyenv: command not found' >&2; exit 127")
    ways = (
        Install((REQUIREMENT,), python=PYTHON),
        Install((REQUIREMENT,), python="3.99", minimum_glibc=(9, 38)),
    )
    with pytest.raises(InstallError) as caught:
        install(entry(install=ways))
    text = str(caught.value)
    assert text.startswith(
        "backend 'toy' needs Python 3.98 or Python 3.99 with glibc 9.38 or newer; none was found that"
    )
    assert f"{shim} does not run: pyenv: command not found" in text
    assert "for Python 3.99 it needs glibc 9.38 or newer, there is " in text
    for way in (
        f"pyenv install {PYTHON}",
        f"uv python install {PYTHON}",
        f"apt install python{PYTHON}-venv",
        "--python PATH",
    ):
        assert way in text
    assert "\n" not in text


def test_a_system_that_is_too_old() -> None:
    with pytest.raises(InstallError) as caught:
        install(entry(install=(Install((REQUIREMENT,), minimum_glibc=(9, 38)),)))
    assert "needs glibc 9.38 or newer, there is " in str(caught.value)
    assert str(caught.value).endswith("use a newer system, for example in a container")


def test_uv_fetches_an_interpreter(place: Path, tmp_path: Path) -> None:
    (tmp_path / "bin" / f"python{PYTHON}").rename(tmp_path / "fetched")
    script(
        tmp_path / "bin" / "uv",
        f"""
        [ "$2" = find ] && [ -f {tmp_path}/done ] && echo {tmp_path}/fetched && exit 0
        [ "$2" = install ] && echo fetching && : > {tmp_path}/done && exit 0
        exit 2""",
    )
    stages = Stages()
    assert install(entry(), report=stages).fresh
    assert (f"fetching Python {PYTHON} by uv", "fetching") in stages
    shutil.rmtree(place)
    (tmp_path / "done").unlink()
    script(tmp_path / "bin" / "uv", "[ \"$2\" = install ] && echo 'error: no network' >&2; exit 2")
    with pytest.raises(InstallError, match=rf"uv python install {PYTHON}: error: no network\); get Python {PYTHON}"):
        install(entry())


@pytest.mark.parametrize(
    ("python", "reason"),
    [
        ("no-such-program", "--python 'no-such-program' is no program; give the path of an interpreter"),
        ("", "--python '' is no program"),
        ("3.10", "--python '3.10' is no program"),
        ("TMP/broken", "does not run: exit code 9; give the path of an interpreter"),
        (
            "TMP/bare",
            "has no module venv and ensurepip (on Debian and Ubuntu: apt install python3.98-venv); install it",
        ),
        ("TMP/other", "is Python 3.97.0; backend 'toy' needs Python 3.99 or Python 3.98; leave --python out"),
        (
            "TMP/old",
            "needs glibc 2.35 or newer, there is 2.31; backend 'toy' needs Python 3.99 or Python 3.98 with glibc",
        ),
    ],
)
def test_a_named_interpreter_that_does_not_fit(place: Path, tmp_path: Path, python: str, reason: str) -> None:
    script(tmp_path / "broken", "exit 9")
    interpreter(tmp_path / "bare", missing="venv ensurepip")
    interpreter(tmp_path / "other", python="3.97")
    interpreter(tmp_path / "old", glibc="glibc 2.31")
    glibc = (2, 35) if "old" in python else None
    ways = (Install((REQUIREMENT,), python="3.99"), Install((REQUIREMENT,), python=PYTHON, minimum_glibc=glibc))
    with pytest.raises(ConfigError) as caught:
        install(entry(install=ways), python=python.replace("TMP", str(tmp_path)))
    assert reason in str(caught.value)
    assert not place.exists()


def test_a_backend_that_needs_nothing_or_says_nothing(place: Path) -> None:
    assert not install(entry(requires=(), install=())).fresh
    assert not install(entry(requires=("json",), install=())).fresh
    assert not install(entry(requires=(), distribution="pluggy")).fresh
    with pytest.raises(InstallError, match="does not say how it is installed; its author's advice: conda install toy"):
        install(entry(install=(), advice="conda install toy"))
    with pytest.raises(InstallError, match="does not say how it is installed; see its own documentation"):
        install(entry(install=()))
    with pytest.raises(InstallError, match="needs no library; there is nothing to install"):
        install(entry(requires=(), install=()), force=True)
    assert not place.exists()


@pytest.mark.parametrize("below", ["file", "file/below", "proc"])
def test_a_home_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str) -> None:
    (tmp_path / "file").write_text("")
    home = "/proc/nowhere" if below == "proc" else str(tmp_path / below)
    monkeypatch.setenv("HEFW_HOME", home)
    with pytest.raises(ConfigError) as caught:
        install(entry())
    assert str(caught.value).startswith(f"HEFW_HOME: cannot write into {home!r}: ")
    assert str(caught.value).endswith("set HEFW_HOME to a folder you may write to")


@pytest.mark.parametrize("damage", ["record", "interpreter", "import"])
def test_what_is_damaged_is_made_again(place: Path, damage: str) -> None:
    made = install(entry()).environment
    assert made is not None
    if damage == "record":
        (made.folder.parent / "environment.json").write_text("{")
        assert environments.problem(NAME) is not None
    elif damage == "interpreter":
        made.python.unlink()
        assert "is gone" in str(environments.problem(NAME))
    else:
        (package,) = made.folder.glob("lib/*/site-packages/toy_he/__init__.py")
        package.write_text("import toy_he.lost\n")
    done = install(entry())
    assert done.fresh
    assert done.environment is not None
    assert left(place) == sorted([done.environment.folder.name, "environment.json"])


def test_what_a_killed_install_left_is_removed(place: Path) -> None:
    (place / "environments" / NAME / "0badc0de" / "bin").mkdir(parents=True)
    (place / "tmp" / "pip-build").mkdir(parents=True)
    assert environments.find(NAME) is None
    done = install(entry())
    assert done.environment is not None
    assert left(place) == sorted([done.environment.folder.name, "environment.json"])
    assert not (place / "tmp").exists()


# interrupts, and two at once: the command itself, in processes of its own

SCRIPT = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from install_fakes import NAME, entry
from hefw import cli, plugins
from hefw.hookspecs import Install
registry = plugins.Registry()
registry.add("backend", entry(requires=("slow_he",), install=(Install(("slow-he==1.0",), python={PYTHON!r}),)), "test")
plugins.registry = lambda: registry
cli.main()
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start `hefw backends install toy`, whose library is compiled until the file `slow` is removed."""
    started: list[subprocess.Popen[str]] = []
    (tmp_path / "slow").touch()
    variables = os.environ | {"TOY_SLOW": str(tmp_path / "slow"), "TOY_BUILDS": str(tmp_path / "builds")}
    variables["PATH"] += os.pathsep + os.defpath

    def starting() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SCRIPT, "backends", "install", NAME]
        process = subprocess.Popen(
            command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        started.append(process)
        return process

    yield starting
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_then_repeated(
    place: Path, tmp_path: Path, start: Callable[[], subprocess.Popen[str]], number: signal.Signals
) -> None:
    builds = tmp_path / "builds"
    process = start()
    wait_for(builds.exists)
    wait_for(builds.read_text)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130}.get(number, 143)
    assert out == ""
    assert (err.splitlines()[-1] == "interrupted") == (number == signal.SIGINT)
    assert "Traceback" not in err
    assert [alive(int(pid)) for pid in builds.read_text().split()] == [False, False]
    assert environments.find(NAME) is None
    assert environments.problem(NAME) is None
    assert left(place) == []
    assert not (place / "tmp").exists()
    if number != signal.SIGINT:
        return
    (tmp_path / "slow").unlink()
    process = start()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.startswith(f"toy: installed in a managed environment of Python {PYTHON}.0: ")
    assert environments.find(NAME) is not None


def test_two_at_once_make_one(place: Path, tmp_path: Path, start: Callable[[], subprocess.Popen[str]]) -> None:
    builds = tmp_path / "builds"
    first = start()
    wait_for(builds.exists)
    second = start()
    assert second.stderr is not None
    assert second.stderr.readline() == f"waiting for another install to end: process {first.pid}\n"
    (tmp_path / "slow").unlink()
    outputs = [process.communicate(timeout=60) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert outputs[0][0].startswith("toy: installed in a managed")
    assert outputs[1][0].startswith("toy: is there already, in a managed")
    assert len(builds.read_text().splitlines()) == 1


def test_the_lock_of_a_killed_install_is_free(
    place: Path, tmp_path: Path, start: Callable[[], subprocess.Popen[str]]
) -> None:
    process = start()
    wait_for((tmp_path / "builds").exists)
    process.kill()
    process.communicate()
    (tmp_path / "slow").unlink()  # ends pip, which nobody could stop
    wait_for(lambda: not any(alive(int(pid)) for pid in (tmp_path / "builds").read_text().split()))
    again = start()
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert "waiting" not in err
    assert out.startswith("toy: installed in a managed")
    assert len(left(place)) == 2


# into the environment that runs hefw


@pytest.fixture(scope="module")
def own(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment in which hefw runs; hefw and what it needs come from this one."""
    folder = tmp_path_factory.mktemp("own") / "venv"
    shutil.copytree(template, folder, symlinks=True)
    return folder / "bin" / "python"


HERE = f"""
import json, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from install_fakes import entry
from hefw.core.errors import HefwError
from hefw.hookspecs import Install
from hefw.install import install
for distribution, module in json.loads(sys.argv[1]):
    try:
        way = Install((distribution + "==1.0",))
        done = install(entry(requires=(module,), distribution=distribution, install=(way,)))
        print(json.dumps([done.environment is None, done.fresh]))
    except HefwError as error:
        print(json.dumps(str(error)))
"""


def in_own(own: Path, *libraries: tuple[str, str]) -> list[Any]:
    packages = [path for path in sys.path if path.endswith("site-packages")]
    done = subprocess.run(
        [own, "-c", HERE, json.dumps(libraries)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *packages])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_into_this_environment(place: Path, own: Path) -> None:
    assert in_own(own, ("toy-he", "toy_he"), ("toy-he", "toy_he")) == [[True, True], [True, False]]
    assert not (place / "environments").exists()
    assert try_modules(own, ["toy_he"], isolated=True)["toy-he"] == "1.0"


def test_what_cannot_be_imported_here_is_removed_again(own: Path) -> None:
    (text,) = in_own(own, ("broken-he", "broken_he"))
    assert text.startswith("backend 'toy' was installed, but broken_he cannot be imported there: ModuleNotFoundError")
    assert "broken-he" not in try_modules(own, [], isolated=True)


def test_without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)  # import machinery's way of saying: not there
    with pytest.raises(InstallError) as caught:
        install(entry(install=(Install((REQUIREMENT,)),)))
    assert str(caught.value) == (
        f"the environment of {sys.executable} has no pip; run: {sys.executable} -m ensurepip, then "
        "hefw backends install toy again"
    )


def test_an_environment_that_the_system_manages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.setattr(installer.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(InstallError, match=r"package manager looks after .* install hefw into a virtual env"):
        install(entry(install=(Install((REQUIREMENT,)),)))


def test_a_worker_gets_what_the_core_needs() -> None:
    """The versions are those that hefw itself asks for."""
    text = (ROOT / "pyproject.toml").read_text()
    for requirement in installer.WORKER_REQUIREMENTS:
        assert f'"{requirement}"' in text
