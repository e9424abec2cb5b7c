"""Where backends are available on this machine, and what they can do: known without importing their libraries here."""

from __future__ import annotations

import importlib
import platform
import sys
from dataclasses import asdict, dataclass
from typing import Any, Literal

from hefw import environments, plugins
from hefw.core.backend import Capabilities
from hefw.hookspecs import Entry


@dataclass(frozen=True)
class Availability:
    """Where one backend's library can be used. `reason` says why it cannot, `advice` is the next step."""

    name: str
    summary: str
    where: Literal["process", "environment"] | None  # the environment that runs hefw, or a managed one
    python: str | None  # the interpreter's path
    python_version: str | None
    library: str
    version: str | None
    capabilities: Capabilities | None  # None where the backend's class cannot be imported
    reason: str | None
    advice: str | None

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {**asdict(self), "available": self.where is not None}


def availability(entry: Entry) -> Availability:
    """That of one backend. Its library is imported by another process, in case it is broken."""
    reason = plugins.unusable_here(entry)
    found = environments.find(entry.name)
    where: Literal["process", "environment"] | None = None
    python = python_version = version = advice = None
    if reason is None:
        where, python, python_version = "process", sys.executable, platform.python_version()
        version = plugins.version(entry)
    elif found is not None:
        where, python, python_version = "environment", str(found.python), found.python_version
        version, reason = found.version(entry.distribution), None
    else:
        reason = environments.problem(entry.name) or reason
        advice = entry.advice or (f"hefw backends install {entry.name}" if entry.install else None)
    return Availability(
        entry.name,
        entry.summary,
        where,
        python,
        python_version,
        entry.distribution,
        None if version == "-" else version,
        capabilities(entry),
        reason,
        advice,
    )


def capabilities(entry: Entry) -> Capabilities | None:
    """What the backend's class declares; None if its module cannot be imported without the library."""
    module, _, attribute = entry.target.partition(":")
    try:
        declared = getattr(importlib.import_module(module), attribute).capabilities
    except Exception:  # a stranger's module may raise anything
        return None
    return declared if isinstance(declared, Capabilities) else None


def describe(declared: Capabilities) -> list[str]:
    """Capabilities in words, the ring dimensions first."""
    words = [f"N = {min(declared.ring_dimensions)} to {max(declared.ring_dimensions)}"]
    names = {
        "conjugation": "conjugation",
        "complex_values": "complex values",
        "hoisted_rotations": "hoisted rotations",
        "packed_slots": "sparse packing",
        "bootstrap": "bootstrapping",
    }
    words += [text if getattr(declared, field) else f"no {text}" for field, text in names.items()]
    return ["SIMULATED, no encryption", *words] if declared.simulated else words
