"""The registry: a stranger's plugin enters like a built-in one, and a broken one harms nobody."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hefw import plugins
from hefw.core.errors import PluginError
from hefw.hookspecs import HOOKSPEC_VERSION, Entry, Options, hookimpl
from hefw.plugins import build, registry, unavailable, version


class WidthOptions(Options):
    width: int = 8


def module(name: str, **hooks: Any) -> ModuleType:
    """A plugin module whose hooks return the given lists."""
    made = ModuleType(name)
    for hook, entries in hooks.items():

        def implementation(entries: Any = entries) -> Any:
            return entries

        # pluggy reads the parameters: a hook of no arguments must have none but defaults
        implementation.__name__ = hook
        setattr(made, hook, hookimpl(implementation))
    return made


def backend(name: str = "mine", **changes: Any) -> Entry:
    return Entry(name, "json:loads", "a stranger's backend", WidthOptions, distribution="pluggy", **changes)


GOOD = ("good", module("good", hefw_backends=[backend("good")]))


@pytest.fixture(autouse=True)
def fresh_registry() -> Iterator[None]:
    registry.cache_clear()
    yield
    registry.cache_clear()


def test_entries_by_kind_and_name() -> None:
    found = build([("mine", module("mine", hefw_backends=[backend()], hefw_models=[backend("net")]))])
    assert found.broken == {}
    assert found.names("backend") == ["mine"]
    assert found.names("model") == ["net"]
    assert found.names("strategy") == []
    assert found.entry("backend", "mine").options().model_dump() == {"width": 8}
    import json

    assert found.load("backend", "mine") is json.loads


def test_unknown_name_has_a_suggestion() -> None:
    found = build([GOOD, ("mine", module("mine", hefw_backends=[backend("tenseal")]))])
    with pytest.raises(PluginError) as caught:
        found.entry("backend", "tensela")
    assert str(caught.value) == "unknown backend 'tensela'; did you mean 'tenseal'? Known: good, tenseal"


def test_third_party_enters_by_the_entry_point_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stranger_plugin", module("stranger_plugin", hefw_backends=[backend("strange")]))
    points = [
        importlib.metadata.EntryPoint("stranger", "stranger_plugin", "hefw"),
        importlib.metadata.EntryPoint("lost", "no_such_module_anywhere", "hefw"),
    ]
    asked = []

    def entry_points(*, group: str) -> list[importlib.metadata.EntryPoint]:
        asked.append(group)
        return points

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    found = registry()
    assert asked == ["hefw"]
    assert "strange" in found.names("backend")
    assert {"simulator", "tenseal"} <= set(found.names("backend"))
    assert found.sources["backend", "strange"] == "stranger (stranger_plugin)"
    assert "no_such_module_anywhere" in found.broken["lost (no_such_module_anywhere)"]


def test_built_in_plugins_load() -> None:
    found = registry()
    assert {"simulator", "tenseal"} <= set(found.names("backend"))
    assert "full" in found.names("strategy")
    assert {source: error for source, error in found.broken.items() if source in plugins.BUILTIN} == {}
    assert "digits" in found.names("model")
    assert "ddim" in found.names("scheduler")


def test_registry_is_made_once() -> None:
    assert registry() is registry()


def raising() -> Any:
    raise RuntimeError("half a library\nis installed")


class UnknownHook:
    @hookimpl
    def hefw_backend(self) -> list[Entry]:  # the name lacks its s
        return []


class RaisingHook:
    @hookimpl
    def hefw_backends(self) -> list[Entry]:
        raise OSError("libseal.so.4: cannot open shared object file")


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (raising, ["RuntimeError", "half a library"]),
        (UnknownHook(), ["hefw_backend"]),
        (RaisingHook(), ["OSError", "libseal.so.4"]),
        (module("wrong", hefw_backends=["tenseal"]), ["PluginError", "hefw_backends", "'tenseal'", "Entry"]),
        (
            module("old", hefw_backends=[backend("first"), backend("old", hookspec_version=HOOKSPEC_VERSION + 1)]),
            ["'old'", f"hook specification {HOOKSPEC_VERSION + 1}", f"version {HOOKSPEC_VERSION}", "Install a release"],
        ),
        (module("thief", hefw_backends=[backend("good")]), ["'good'", "registered by good", "again by bad"]),
        (module("twins", hefw_backends=[backend("twin"), backend("twin")]), ["'twin'", "again by bad"]),
    ],
)
def test_a_broken_plugin_is_listed_and_harmless(plugin: Any, words: list[str]) -> None:
    last = ("last", module("last", hefw_backends=[backend("last")]))
    found = build([GOOD, ("bad", plugin), last])
    assert found.names("backend") == ["good", "last"]  # and none of the broken plugin's entries
    assert list(found.broken) == ["bad"]
    for word in words:
        assert word in found.broken["bad"]
    row = found.listing()[-1]
    assert (row.kind, row.name, row.unavailable) == ("plugin", "bad", found.broken["bad"])


def test_unavailable_names_what_is_missing_and_the_next_step() -> None:
    entry = backend(requires=("json", "no_such_library", "no_such.part"), advice="pip install 'hefw[mine]'")
    reason = "no_such_library, no_such.part not installed; run: pip install 'hefw[mine]'"
    assert unavailable(entry) == reason
    assert unavailable(backend(requires=("json",))) is None
    found = build([("mine", module("mine", hefw_backends=[entry]))])
    assert found.listing()[0].unavailable == reason
    with pytest.raises(PluginError) as caught:
        found.load("backend", "mine")
    assert str(caught.value) == f"backend 'mine' is unavailable: {reason}"


@pytest.mark.parametrize("target", ["json:no_such_attribute", "no_such_module:x", "json"])
def test_a_target_that_cannot_be_loaded(target: str) -> None:
    found = build([("mine", module("mine", hefw_backends=[Entry("mine", target, "broken inside")]))])
    with pytest.raises(PluginError, match=f"backend 'mine' cannot be loaded from {target}"):
        found.load("backend", "mine")


def test_listing_order_and_versions() -> None:
    hooks = {"hefw_schedulers": [backend("s")], "hefw_backends": [backend("b"), backend("a")]}
    rows = build([("mine", module("mine", **hooks))]).listing()
    assert [(row.kind, row.name) for row in rows] == [("backend", "a"), ("backend", "b"), ("scheduler", "s")]
    assert rows[0].version == importlib.metadata.version("pluggy")
    assert version(Entry("x", "json:loads", "x", distribution="no-such-distribution")) == "-"


def test_options_refuse_what_is_not_declared() -> None:
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        WidthOptions(height=3)  # type: ignore[call-arg]


def test_a_folder_of_a_librarys_name_is_not_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_he_library").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    entry = Entry("mine", "json:loads", "x", requires=("some_he_library",))
    assert unavailable(entry) == "some_he_library not installed"
