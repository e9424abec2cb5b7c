"""Managed environments: virtual environments that `hefw backends install` makes for libraries which cannot live in
the one that runs hefw.

    HOME/environments/NAME/environment.json    what is there; written last, so that only what is complete has one
    HOME/environments/NAME/RANDOM/             the virtual environment that the record names

HOME is the environment variable HEFW_HOME; else the folder `hefw` of the virtual environment that runs hefw, if it has
one; else `hefw` in the user's data folder (XDG_DATA_HOME, by default ~/.local/share).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hefw.core.errors import PluginError
from hefw.core.files import write_atomically

RECORD = "environment.json"
RECORD_VERSION = 1


@dataclass(frozen=True)
class Environment:
    """A complete managed environment of the backend `name`."""

    name: str
    python: Path  # its interpreter
    python_version: str  # e.g. "3.10.13"
    requirements: tuple[str, ...]  # what it was made for
    versions: Mapping[str, str]  # of all that is installed in it, by distribution

    @property
    def folder(self) -> Path:
        """The root of the virtual environment."""
        return self.python.parents[1]

    def version(self, distribution: str) -> str | None:
        """The version of a distribution that is installed in it, or None."""
        wanted = _normal(distribution)
        return next((version for name, version in self.versions.items() if _normal(name) == wanted), None)


def home() -> Path:
    """The folder of all that hefw installs by itself."""
    if given := os.environ.get("HEFW_HOME"):
        return Path(given).expanduser().absolute()
    beside = Path(sys.prefix) / "hefw"
    if sys.prefix != sys.base_prefix and beside.is_dir():
        return beside
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return data.expanduser().absolute() / "hefw"


def root(name: str) -> Path:
    """The folder of a backend's managed environment, whether or not it is there."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise PluginError(
            f"{name!r} cannot name a managed environment; allowed: letters, digits, '.', '_' and '-', at most 64"
        )
    return home() / "environments" / name


def find(name: str) -> Environment | None:
    """The complete managed environment of a backend, or None."""
    try:
        return _read(name)
    except (ValueError, OSError, PluginError):
        return None


def problem(name: str) -> str | None:
    """Why the managed environment that is recorded for a backend cannot be used; None if it can, or if none is."""
    try:
        _read(name)
    except (FileNotFoundError, NotADirectoryError, PluginError):
        return None
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return f"{root(name) / RECORD} cannot be used: {reason}"
    return None


def write(
    name: str, folder: str, python_version: str, requirements: tuple[str, ...], versions: Mapping[str, str]
) -> None:
    """Record that the virtual environment `folder` inside `root(name)` is complete, in place of any other."""
    record = {
        "version": RECORD_VERSION,
        "folder": folder,
        "python_version": python_version,
        "requirements": requirements,
        "versions": dict(versions),
    }
    write_atomically(root(name) / RECORD, (json.dumps(record, indent=2) + "\n").encode())


def remove_others(name: str, keep: Path | None) -> None:
    """Remove every virtual environment of a backend but one: replaced ones, and what an interrupted install left."""
    for path in root(name).iterdir():
        if path.is_dir() and path != keep:
            shutil.rmtree(path, ignore_errors=True)


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _read(name: str) -> Environment:
    """ValueError if the record is malformed or its interpreter is gone."""
    path = root(name) / RECORD
    data = path.read_bytes()
    try:
        record = json.loads(data)
        version, folder, python_version = record["version"], record["folder"], record["python_version"]
        requirements, versions = list(record["requirements"]), dict(record["versions"])
        texts = [folder, python_version, *requirements, *versions, *versions.values()]
    except (KeyError, TypeError, RecursionError, ValueError):
        raise ValueError("it is malformed") from None
    if version != RECORD_VERSION:
        raise ValueError(f"it is of version {version!r}, this hefw reads {RECORD_VERSION}")
    if not all(isinstance(text, str) for text in texts) or not re.fullmatch("[0-9a-f]+", folder):
        raise ValueError("it is malformed")
    python = path.parent / folder / "bin" / "python"
    if not os.access(python, os.X_OK):
        raise ValueError(f"its interpreter {str(python)!r} is gone")
    return Environment(name, python, python_version, tuple(requirements), versions)
