"""The openfhe backend as hefw chooses it: in this process, or hosted where this interpreter cannot import OpenFHE."""

from __future__ import annotations

import sys
from functools import cache

from hefw import environments, plugins
from hefw.backends import choose
from hefw.core.backend import Backend


def make(options: object) -> Backend:
    """Where another process of the kit gets it from."""
    return chosen()


def make_own(options: object) -> Backend:
    """The same, by OpenFHE's own key switches."""
    return chosen(loops=False)


@cache
def chosen(loops: bool = True) -> Backend:
    entry = plugins.registry().entry("backend", "openfhe")
    return choose.make(entry, entry.options.model_validate({"loops": loops}))


def python() -> str:
    """The interpreter that can import OpenFHE."""
    if plugins.unusable_here(plugins.registry().entry("backend", "openfhe")) is None:
        return sys.executable
    found = environments.find("openfhe")
    assert found is not None, "openfhe has no managed environment; run: hefw backends install openfhe"
    return str(found.python)
