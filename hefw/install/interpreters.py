"""Python interpreters on this machine: which there are, and why one does not fit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hefw.hookspecs import Install

PROBE_SECONDS = 30.0
#: Printed by the interpreter that is asked; its `--version` alone would not tell a shim from what it stands for.
PROBE = """
import importlib.util, json, os, sys
try:
    glibc = os.confstr("CS_GNU_LIBC_VERSION")
except (AttributeError, OSError, ValueError):
    glibc = None
missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
print(json.dumps({"version": sys.version_info[:3], "glibc": glibc, "missing": missing}))
"""


class UnusableInterpreterError(Exception):
    """An interpreter that does not run; the text says why."""


@dataclass(frozen=True)
class Interpreter:
    """One that runs. `missing` lists modules without which it can make no environment."""

    path: Path
    version: tuple[int, int, int]
    glibc: tuple[int, int] | None
    missing: tuple[str, ...]

    @property
    def python(self) -> str:
        """Its version as an `Install` names it, e.g. "3.10"."""
        return f"{self.version[0]}.{self.version[1]}"

    @property
    def full_version(self) -> str:
        """E.g. "3.10.13"."""
        return ".".join(map(str, self.version))

    def misfit(self, way: Install) -> str | None:
        """Why it cannot run what is installed in this way, or None."""
        if way.python is not None and way.python != self.python:
            return f"is Python {self.full_version}"
        return old_glibc(way, self.glibc)

    def cannot_make_environments(self) -> str | None:
        """Why not, with the next step, or None if it can."""
        if not self.missing:
            return None
        return (
            f"has no module {' and '.join(self.missing)} (on Debian and Ubuntu: apt install python{self.python}-venv)"
        )


def old_glibc(way: Install, glibc: tuple[int, int] | None) -> str | None:
    """Why a way to install does not work with this version of glibc, or None."""
    wanted = way.minimum_glibc
    if wanted is None or (glibc is not None and glibc >= wanted):
        return None
    return f"needs glibc {_dotted(wanted)} or newer, there is {_dotted(glibc) if glibc else 'none'}"


def running() -> Interpreter:
    """The interpreter that runs hefw."""
    return probe(Path(sys.executable))


def probe(path: Path) -> Interpreter:
    """Run an interpreter and ask what it is. UnusableInterpreterError if it does not run or does not answer."""
    try:
        done = subprocess.run(
            [path, "-I", "-c", PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnusableInterpreterError(f"does not answer within {PROBE_SECONDS:g} s") from None
    except OSError as error:
        raise UnusableInterpreterError(f"does not run: {error.strerror}") from None
    if done.returncode:
        raise UnusableInterpreterError(f"does not run: {_words(done.stderr) or f'exit code {done.returncode}'}")
    try:
        told = json.loads(done.stdout.splitlines()[-1])
        major, minor, patch = map(int, told["version"])
        glibc = None if told["glibc"] is None else tuple(map(int, told["glibc"].split()[-1].split(".")))[:2]
        missing = tuple(map(str, told["missing"]))
    except (ValueError, IndexError, KeyError, TypeError, AttributeError):
        raise UnusableInterpreterError("is no Python 3 interpreter") from None
    return Interpreter(path, (major, minor, patch), None if glibc is None else (glibc[0], glibc[1]), missing)


def candidates(python: str | None) -> Iterator[Path]:
    """Interpreters that may be of this version: the running one, those on PATH, under pyenv, and those uv knows."""
    running = ".".join(map(str, sys.version_info[:2]))
    if python in (None, running):
        yield Path(sys.executable)
    if python is None:
        return
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        path = Path(folder) / f"python{python}"
        if folder and path.is_file() and os.access(path, os.X_OK):
            yield path
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for version in sorted(versions.glob(f"{python}.*"), key=_patch, reverse=True):
        yield version / "bin" / "python"
    if uv := shutil.which("uv"):
        yield from _uv_find(uv, python)


def _uv_find(uv: str, python: str) -> list[Path]:
    """The interpreter of this version that uv has installed, if it has."""
    try:
        done = subprocess.run(
            [uv, "python", "find", "--no-project", "--no-python-downloads", "--managed-python", python],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = done.stdout.split("\n")
    return [Path(lines[0])] if done.returncode == 0 and lines[0] else []


def find(way: Install, tried: list[str]) -> Interpreter | None:
    """The first interpreter that fits and can make an environment; reasons against the others go to `tried`."""
    seen: set[Path] = set()
    for path in candidates(way.python):
        real = path.resolve()
        if real in seen:
            continue
        seen.add(real)
        try:
            interpreter = probe(path)
            reason = interpreter.misfit(way) or interpreter.cannot_make_environments()
        except UnusableInterpreterError as error:
            reason = str(error)
        if reason is None:
            return interpreter
        tried.append(f"{path} {reason}")
    return None


def how_to_get(versions: Sequence[str]) -> str:
    """Ways to get an interpreter of the first of these versions."""
    version = versions[0]
    return (
        f"get Python {' or '.join(versions)}, for example by 'pyenv install {version}', 'uv python install {version}' "
        f"or 'apt install python{version}-venv' (on Ubuntu also from the deadsnakes archive)"
    )


def _patch(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in folder.name.split(".") if part.isdecimal())


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _words(stderr: str) -> str:
    """What a failed interpreter said, as one line: the first line, or a traceback's last."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return "" if not lines else lines[-1] if lines[0].startswith("Traceback") else lines[0]
