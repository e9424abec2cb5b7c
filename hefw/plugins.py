"""Finding plugins: built-in ones and those of the entry-point group `hefw`, through the same hooks."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

import pluggy

from hefw import environments, hookspecs
from hefw.core.errors import PluginError, line, suggest
from hefw.hookspecs import Entry

Kind = Literal["backend", "strategy", "model", "scheduler", "attack"]
#: Of which a run has one each.
KINDS: tuple[Kind, ...] = ("backend", "strategy", "model", "scheduler")
HOOKS: dict[Kind, str] = {
    "backend": "hefw_backends",
    "strategy": "hefw_strategies",
    "model": "hefw_models",
    "scheduler": "hefw_schedulers",
    "attack": "hefw_attacks",
}
BUILTIN = (
    "hefw.backends.simulator.plugin",
    "hefw.backends.tenseal.plugin",
    "hefw.backends.openfhe.plugin",
    "hefw.backends.pyfhel.plugin",
    "hefw.strategies.plugin",
    "hefw.models.plugin",
    "hefw.audit.plugin",
)


#: Modules that another process of this interpreter has imported.
_imported_elsewhere: set[tuple[str, ...]] = set()


@dataclass(frozen=True)
class Listed:
    """A row of `hefw plugins`: an entry, or a plugin that could not be loaded at all."""

    kind: Kind | Literal["plugin"]
    name: str
    version: str
    summary: str
    source: str
    unavailable: str | None  # the reason and the next step; None if it can be used


@dataclass
class Registry:
    """All entries by kind and name, and the errors of plugins that failed to load."""

    entries: dict[tuple[Kind, str], Entry] = field(default_factory=dict)
    sources: dict[tuple[Kind, str], str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def add(self, kind: Kind, entry: Entry, source: str) -> None:
        """Register one entry; a second one of the same name is an error that names both sources."""
        if not isinstance(entry, Entry):
            raise PluginError(f"hook {HOOKS[kind]} of {source} returned {entry!r}; it must return hefw.hookspecs.Entry")
        if entry.hookspec_version != hookspecs.HOOKSPEC_VERSION:
            raise PluginError(
                f"{kind} {entry.name!r} of {source} is written for hook specification {entry.hookspec_version}; this "
                f"hefw has version {hookspecs.HOOKSPEC_VERSION}. Install a release of the plugin made for it."
            )
        key = (kind, entry.name)
        if key in self.entries:
            raise PluginError(f"{kind} {entry.name!r} is registered by {self.sources[key]} and again by {source}")
        self.entries[key] = entry
        self.sources[key] = source

    def names(self, kind: Kind) -> list[str]:
        """The names registered for a kind, sorted."""
        return sorted(name for k, name in self.entries if k == kind)

    def entry(self, kind: Kind, name: str) -> Entry:
        """The entry of that name; PluginError with the nearest known name if there is none."""
        try:
            return self.entries[kind, name]
        except KeyError:
            raise PluginError(f"unknown {kind} {name!r}; {suggest(name, self.names(kind))}") from None

    def load(self, kind: Kind, name: str) -> Any:
        """Import the entry's target. PluginError with the reason and the next step if it is unavailable."""
        entry = self.entry(kind, name)
        reason = unavailable(entry)
        if reason:
            raise PluginError(f"{kind} {name!r} is unavailable: {reason}")
        return imported(kind, entry)

    def training(self, name: str) -> Any:
        """Import what trains a model again. PluginError if it cannot be trained, or not here."""
        entry = self.entry("model", name)
        able = [n for n in self.names("model") if self.entry("model", n).training]
        if not entry.training:
            raise PluginError(f"model {name!r} cannot be trained again; {', '.join(able) or 'none'} can")
        reason = unavailable(entry)
        if reason:
            raise PluginError(f"model {name!r} is unavailable: {reason}")
        return imported("model", replace(entry, target=entry.training))

    def listing(self) -> list[Listed]:
        """One row an entry and one a broken plugin, in the order in which `hefw plugins` prints them."""
        rows = [
            Listed(kind, name, version(entry), entry.summary, self.sources[kind, name], unavailable(entry))
            for kind in HOOKS
            for name in self.names(kind)
            for entry in [self.entry(kind, name)]
        ]
        rows += [Listed("plugin", source, "?", "", source, error) for source, error in sorted(self.broken.items())]
        return rows


def imported(kind: Kind, entry: Entry) -> Any:
    """An entry's target, imported here. PluginError if that fails."""
    module, _, attribute = entry.target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, OSError) as error:
        raise PluginError(f"{kind} {entry.name!r} cannot be loaded from {entry.target}: {error}") from error


def unavailable(entry: Entry) -> str | None:
    """Why an entry cannot be used on this machine and what to do about it, or None.

    A backend that hefw knows how to install can also be used if it is in a managed environment.
    """
    reason = unusable_here(entry) if entry.install else _missing(entry)
    if reason is None or (entry.install and environments.find(entry.name)):
        return None
    advice = entry.advice or (f"hefw backends install {entry.name}" if entry.install else "")
    return reason + (f"; run: {advice}" if advice else "")


def unusable_here(entry: Entry) -> str | None:
    """Why the modules that an entry requires cannot be imported by this interpreter, or None: they were imported.

    Another process imports them, once: a library may crash, or take its settings from the environment it finds first.
    """
    return _missing(entry) or _import_failure(entry.requires)


def _missing(entry: Entry) -> str | None:
    missing = [name for name in entry.requires if not importable(name)]
    return f"{', '.join(missing)} not installed" if missing else None


def _import_failure(modules: tuple[str, ...]) -> str | None:
    untried = tuple(name for name in modules if name not in sys.modules)
    if not untried or untried in _imported_elsewhere:
        return None
    script = "import sys; sys.path[:] = [folder for folder in sys.path if folder]; "
    done = subprocess.run(
        [sys.executable, "-c", script + "; ".join(f"import {name}" for name in untried)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=os.environ | {"PYTHONPATH": os.pathsep.join(folder for folder in sys.path if folder)},
        check=False,
    )
    if done.returncode == 0:
        _imported_elsewhere.add(untried)
        return None
    words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return f"{', '.join(untried)} cannot be imported here: {line(words[-1])}"


def version(entry: Entry) -> str:
    """The version of the entry's distribution that is installed here, or in its managed environment, or '-'."""
    try:
        return importlib.metadata.version(entry.distribution)
    except importlib.metadata.PackageNotFoundError:
        managed = environments.find(entry.name) if entry.install else None
        return (managed and managed.version(entry.distribution)) or "-"


def importable(name: str) -> bool:
    """Whether a module can be found; it is not imported, so that it may be broken all the same.

    A folder that only has the module's name, which Python takes for a namespace package, is none.
    """
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def build(plugins: Iterable[tuple[str, Any]]) -> Registry:
    """A registry of (source name, plugin module or zero-argument loader) pairs; one that fails is listed as broken."""
    registry = Registry()
    for source, plugin in plugins:
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        staged = Registry(dict(registry.entries), dict(registry.sources), registry.broken)
        try:
            manager.register(plugin() if callable(plugin) else plugin, name=source)
            manager.check_pending()
            for kind in HOOKS:
                for entries in getattr(manager.hook, HOOKS[kind])():
                    for entry in entries:
                        staged.add(kind, entry, source)
        except Exception as error:  # a stranger's code may raise anything, and must break nothing else
            registry.broken[source] = f"{type(error).__name__}: {error}"
        else:
            registry = staged
    return registry


@cache
def registry() -> Registry:
    """The registry of this process: the built-in plugins, then the entry points of the group `hefw`."""
    found: list[tuple[str, Any]] = [(name, lambda name=name: importlib.import_module(name)) for name in BUILTIN]
    found += [
        (f"{point.name} ({point.value})", point.load)
        for point in importlib.metadata.entry_points(group=hookspecs.PROJECT)
    ]
    return build(found)
