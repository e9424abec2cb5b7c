"""Where a backend runs: here if its library is here, in workers if it is elsewhere or if that is asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hefw import environments, plugins
from hefw.backends.choose import make
from hefw.backends.hosted.backend import HostedBackend
from hefw.backends.simulator.backend import SimulatorBackend
from hefw.core.errors import PluginError
from hefw.core.params import CkksParams
from hefw.environments import Environment
from hefw.hookspecs import BackendOptions, Entry, Install, Options

CLASS = "hefw.backends.simulator.backend:SimulatorBackend"
PARAMS = CkksParams(2048, (40, 30), (60,), 30.0, allow_insecure=True)


class Width(BackendOptions):
    width: int = 8


class Plain(Options):
    """As of a plugin that knows nothing of hosting."""


def entry(requires: tuple[str, ...] = (), options: type[Options] = Width, target: str = CLASS) -> Entry:
    install = (Install(("toy",), python="3.10"),)
    return Entry("simulator", target, "a toy", options, requires, "get it somewhere", install=install)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """A managed environment of every backend."""
    found = Environment("simulator", Path(sys.executable), "3.11.0", ("toy",), {})
    monkeypatch.setattr(environments, "find", lambda name: found)
    return found


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "find", lambda name: None)


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A library that is installed, and cannot be imported by this Python."""
    (tmp_path / "broken_he").mkdir()
    (tmp_path / "broken_he" / "__init__.py").write_text("print('half a library')\nfrom broken_he import core\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "broken_he"


@pytest.mark.usefixtures("environment")
def test_here_if_the_library_is_here() -> None:
    made = make(entry(("json",)), Width(width=3))
    assert type(made) is SimulatorBackend
    assert made.options == Width(width=3)
    assert type(make(entry(options=Plain), Plain())) is SimulatorBackend


@pytest.mark.usefixtures("no_environment")
def test_in_workers_of_this_interpreter_if_that_is_asked_for() -> None:
    made = make(entry(("json",)), Width(hosted=True, width=3))
    assert isinstance(made, HostedBackend)
    assert (made.name, made.target, made.python) == ("simulator", CLASS, (sys.executable,))
    assert made.options == {"width": 3}
    assert made.resolve(PARAMS) == SimulatorBackend().resolve(PARAMS)
    made.close()


def test_in_workers_of_the_environment_that_has_the_library(environment, broken) -> None:
    for requires in (("no_such_library",), (broken,), ("json", broken)):
        for options in (Width(), Width(hosted=True), Plain()):
            made = make(entry(requires, type(options)), options)
            assert isinstance(made, HostedBackend)
            assert made.python == (str(environment.python),)
        assert plugins.unavailable(entry(requires)) is None
    assert broken not in sys.modules


@pytest.mark.usefixtures("no_environment")
def test_nowhere_is_said_with_the_next_step(broken) -> None:
    words = {
        "no_such_library": "no_such_library not installed; run: get it somewhere",
        broken: "broken_he cannot be imported here: ImportError: cannot import name 'core' from .*; run: get it somewh",
    }
    for name, reason in words.items():
        for options in (Width(), Width(hosted=True)):
            with pytest.raises(PluginError, match=f"^backend 'simulator' is unavailable: {reason}"):
                make(entry((name,)), options)
        found = plugins.build([("mine", Listing(entry((name,))))])
        assert found.listing()[0].unavailable == plugins.unavailable(entry((name,)))
    assert plugins.unusable_here(entry((broken,))) is not None  # a failure is not remembered: it may be installed now


class Listing:
    def __init__(self, listed: Entry) -> None:
        self.listed = listed

    @plugins.hookspecs.hookimpl
    def hefw_backends(self) -> list[Entry]:
        return [self.listed]


@pytest.mark.usefixtures("no_environment")
def test_a_target_that_cannot_be_loaded() -> None:
    with pytest.raises(PluginError, match="backend 'simulator' cannot be loaded from no_such_module:X"):
        make(entry(target="no_such_module:X"), Width())


def test_an_import_that_was_tried_is_not_tried_again(monkeypatch) -> None:
    assert plugins.unusable_here(entry(("this",))) is None
    monkeypatch.setattr(plugins.subprocess, "run", None)
    assert plugins.unusable_here(entry(("this",))) is None
    assert plugins.unusable_here(entry(("json",))) is None  # it is in this process
    assert "this" not in sys.modules


def test_hosted_is_an_option_of_every_backend_of_ours() -> None:
    for name in ("simulator", "tenseal", "openfhe", "pyfhel"):
        assert issubclass(plugins.registry().entry("backend", name).options, BackendOptions)
    with pytest.raises(ValueError, match="valid boolean"):
        BackendOptions(hosted=1)  # type: ignore[arg-type]
