"""Where a backend runs: in this process, or hosted in worker processes."""

from __future__ import annotations

import sys

from hefw import environments, plugins
from hefw.core.backend import Backend
from hefw.core.errors import PluginError
from hefw.hookspecs import Entry, Options


def make(entry: Entry, options: Options) -> Backend:
    """The backend of an entry. PluginError, with the next step, if its library is nowhere on this machine.

    It runs in this process if the library can be imported here; else, or with the option `hosted`, in worker processes:
    of this interpreter if the library can be imported by it, or of the managed environment that has it.
    """
    reason = plugins.unusable_here(entry)
    if reason is None and not getattr(options, "hosted", False):
        made: Backend = plugins.imported("backend", entry)(options)
        return made
    python = sys.executable
    if reason is not None:
        environment = environments.find(entry.name)
        if environment is None:
            raise PluginError(f"backend {entry.name!r} is unavailable: {plugins.unavailable(entry) or reason}")
        python = str(environment.python)
    from hefw.backends.hosted.backend import HostedBackend  # a server without it needs nothing of it

    return HostedBackend(entry.name, entry.target, options.model_dump(mode="json", exclude={"hosted"}), (python,))


def with_capability(name: str) -> list[str]:
    """Names of the backends that declare a capability; with the next step for those that are not installed."""
    known, found = plugins.registry(), []
    for backend in known.names("backend"):
        entry = known.entry("backend", backend)
        try:
            able = getattr(plugins.imported("backend", entry).capabilities, name)
        except PluginError:
            continue  # a broken one helps nobody
        if able:
            found.append(backend if plugins.unavailable(entry) is None else f"{backend} (run: {entry.advice})")
    return found
