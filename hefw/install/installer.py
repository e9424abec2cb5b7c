"""`install`: what a backend needs, made ready and tried before it counts as there."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import secrets
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hefw import environments, plugins
from hefw.core.errors import ConfigError
from hefw.environments import Environment
from hefw.hookspecs import Entry, Install
from hefw.install import interpreters, pip
from hefw.install.errors import InstallError
from hefw.install.interpreters import Interpreter, UnusableInterpreterError
from hefw.install.process import run
from hefw.install.trial import try_modules

#: What hefw.core needs in a worker; hefw itself is not installed there.
WORKER_REQUIREMENTS = ("msgpack>=1.0", "numpy>=1.26", "safetensors>=0.4")
LOCK = "install.lock"
LOCK_POLL_SECONDS = 0.2
Report = Callable[[str, str], None]  # what goes on, and the last line of the program that does it


@dataclass(frozen=True)
class Installed:
    """Where a backend's library is. `environment` is None for the one that runs hefw; `fresh` if it was made now."""

    name: str
    environment: Environment | None
    fresh: bool


def install(entry: Entry, *, python: str | None = None, force: bool = False, report: Report | None = None) -> Installed:
    """Make a backend's library importable: in the environment that runs hefw if it fits, else in a managed one.

    Repeatable: what is there, complete and importable stays. Interrupted or failed, nothing is left that looks
    finished.

    Args:
        entry: the backend, as it is registered.
        python: an interpreter for a managed environment, a path or a name on PATH; found if None.
        force: make it again even if it is there.
        report: told what goes on, at least once a second.

    Raises:
        ConfigError: `python` is no interpreter or not one that fits, or HEFW_HOME cannot be written to.
        InstallError: no interpreter fits, pip failed, or the library cannot be imported afterwards.
    """
    if report is None:
        report = _tell_nobody
    given = None if python is None else _given(python, entry)
    if not force and (there := _there(entry, given)):
        return there
    if not entry.install and not entry.requires:
        raise InstallError(f"backend {entry.name!r} needs no library; there is nothing to install")
    if not entry.install:
        raise InstallError(
            f"backend {entry.name!r} does not say how it is installed; "
            + (f"its author's advice: {entry.advice}" if entry.advice else "see its own documentation")
        )
    home = _writable_home()
    with _lock(home, report):
        if not force and (there := _there(entry, given)):
            return there
        with _workplace(home, entry.name) as (temporary, log):
            return _Installer(entry, temporary, log, report).go(given)


def _tell_nobody(stage: str, line: str) -> None:
    """For who does not ask what goes on."""


class _Installer:
    def __init__(self, entry: Entry, temporary: Path, log: IO[str], report: Report) -> None:
        self.entry = entry
        self.temporary = temporary
        self.log = log
        self.report = report

    def go(self, given: Interpreter | None) -> Installed:
        if given is None:
            own = interpreters.running()
            for way in self.entry.install:
                if own.misfit(way) is None:
                    return self._into_this(way)
        interpreter, way = (given, _way(self.entry, given)) if given else self._find()
        return self._managed(interpreter, way)

    # -- an interpreter --------------------------------------------------------------------------------------------

    def _find(self) -> tuple[Interpreter, Install]:
        """A fitting interpreter: one that is there, else one that uv can fetch."""
        self.report("looking for an interpreter", "")
        own = interpreters.running()
        tried: list[str] = []
        possible = []
        for way in self.entry.install:
            if reason := interpreters.old_glibc(way, own.glibc):
                tried.append(f"for Python {way.python or own.python} it {reason}")
                continue
            possible.append(way)
            if interpreter := interpreters.find(way, tried):
                return interpreter, way
        for way in possible:
            if interpreter := self._fetch(way, tried):
                return interpreter, way
        versions = list(dict.fromkeys(way.python for way in possible if way.python))
        reasons = f" ({'; '.join(tried)})" if tried else ""
        advice = "use a newer system, for example in a container"
        if versions:
            advice = f"{interpreters.how_to_get(versions)}, or name one by --python PATH"
        raise InstallError(
            f"backend {self.entry.name!r} needs {_ways(self.entry)}; none was found that fits{reasons}; {advice}"
        )

    def _fetch(self, way: Install, tried: list[str]) -> Interpreter | None:
        uv = shutil.which("uv")
        if not uv or not way.python:
            return None
        self._log_section(f"uv fetches Python {way.python}")
        self.report(f"fetching Python {way.python} by uv", "")
        code, lines = run(
            (uv, "python", "install", way.python),
            self.log,
            lambda line: self.report(f"fetching Python {way.python} by uv", line),
        )
        if code:
            tried.append(f"uv python install {way.python}: {pip.failure(lines)}")
            return None
        return interpreters.find(way, tried)

    # -- into the environment that runs hefw -----------------------------------------------------------------------

    def _into_this(self, way: Install) -> Installed:
        if importlib.util.find_spec("pip") is None:
            raise InstallError(
                f"the environment of {sys.executable} has no pip; run: {sys.executable} -m ensurepip, then "
                f"hefw backends install {self.entry.name} again"
            )
        if sys.prefix == sys.base_prefix and (Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED").exists():
            raise InstallError(
                f"the system's package manager looks after {sys.executable}, so that pip may not install there; "
                "install hefw into a virtual environment"
            )
        own = Path(sys.executable)
        before = try_modules(own, (), isolated=False)
        self._pip(own, way.requirements, way, managed=False)
        self.report("trying it", "")
        try:
            try_modules(own, self.entry.requires, isolated=False)
        except InstallError as error:
            brought = sorted(set(try_modules(own, (), isolated=False)) - set(before))
            if brought:
                self.report("removing it", "")
                command = (str(own), "-m", "pip", "uninstall", "--yes", "--disable-pip-version-check", *brought)
                run(command, self.log, lambda line: self.report("removing it", line))
            raise InstallError(f"backend {self.entry.name!r} was installed, but {error}{self._see_log()}") from None
        importlib.invalidate_caches()
        return Installed(self.entry.name, None, fresh=True)

    # -- into a managed one ------------------------------------------------------------------------------------------

    def _managed(self, interpreter: Interpreter, way: Install) -> Installed:
        name = self.entry.name
        root = environments.root(name)
        root.mkdir(parents=True, exist_ok=True)
        before = environments.find(name)
        environments.remove_others(name, before.folder if before else None)
        folder = root / secrets.token_hex(4)  # in its final place: virtual environments cannot be moved
        try:
            self._venv(interpreter, folder)
            python = folder / "bin" / "python"
            self._pip(python, (*way.requirements, *WORKER_REQUIREMENTS), way, managed=True)
            self.report("trying it", "")
            try:
                versions = try_modules(python, (*self.entry.requires, "msgpack", "numpy", "safetensors"), isolated=True)
            except InstallError as error:
                raise InstallError(
                    f"backend {name!r} was installed for Python {interpreter.full_version} ({interpreter.path}), but "
                    f"{error}{self._see_log()}"
                ) from None
            environments.write(name, folder.name, interpreter.full_version, way.requirements, versions)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                root.rmdir()
            raise
        environments.remove_others(name, folder)
        made = environments.find(name)
        assert made is not None
        return Installed(name, made, fresh=True)

    def _venv(self, interpreter: Interpreter, folder: Path) -> None:
        stage = f"making an environment of Python {interpreter.full_version}"
        self._log_section(stage)
        self.report(stage, str(interpreter.path))
        variables = pip.environment({}, self.temporary, managed=True)
        command = (interpreter.path, "-I", "-m", "venv", folder)
        code, lines = run(command, self.log, lambda line: self.report(stage, line), environment=variables)
        if code:
            raise InstallError(
                f"{interpreter.path} cannot make an environment: {pip.failure(lines)}{self._see_log()}; name another "
                f"one: hefw backends install {self.entry.name} --python PATH"
            )

    def _pip(self, python: Path, requirements: Sequence[str], way: Install, *, managed: bool) -> None:
        stage = f"installing {', '.join(way.requirements)}"
        self._log_section(stage)
        self.report(stage, way.note)

        def watch(line: str) -> None:
            self.report(stage, way.note if "://" in line else line)  # where an index is, is for the log alone

        isolated = ("-I",) if managed else ()
        code, lines = run(
            (python, *isolated, *pip.ARGUMENTS, *requirements),
            self.log,
            watch,
            environment=pip.environment(way.environment, self.temporary, managed=managed),
            finish_from=None if managed else pip.CHANGES_FROM,
        )
        if code:
            raise InstallError(f"pip could not install {' '.join(requirements)}: {pip.failure(lines)}{self._see_log()}")

    def _log_section(self, title: str) -> None:
        self.log.write(f"\n== {title}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n")

    def _see_log(self) -> str:
        return f"; the whole log: {self.log.name}"


def _given(python: str, entry: Entry) -> Interpreter:
    """The interpreter that the user names; ConfigError if it is none or does not fit."""
    found = shutil.which(os.path.expanduser(python))
    if found is None:
        raise ConfigError(
            f"--python {python!r} is no program; give the path of an interpreter, for example --python "
            "~/.pyenv/versions/3.10.13/bin/python"
        )
    path = Path(found).absolute()
    try:
        interpreter = interpreters.probe(path)
    except UnusableInterpreterError as error:
        raise ConfigError(f"--python {python!r} {error}; give the path of an interpreter") from None
    if reason := interpreter.cannot_make_environments():
        raise ConfigError(f"--python {python!r} {reason}; install it, or name another interpreter")
    if entry.install:
        _way(entry, interpreter)
    return interpreter


def _way(entry: Entry, interpreter: Interpreter) -> Install:
    """The first way to install that fits an interpreter; ConfigError if none does."""
    told = f"is Python {interpreter.full_version}"
    for way in entry.install:
        reason = interpreter.misfit(way)
        if reason is None:
            return way
        if way.python in (None, interpreter.python):  # it is glibc, then
            told = reason
    raise ConfigError(
        f"--python '{interpreter.path}' {told}; backend {entry.name!r} needs {_ways(entry)}; leave --python out "
        "to have one found"
    )


def _ways(entry: Entry) -> str:
    """What interpreters a backend takes, in words."""
    texts = []
    for way in entry.install:
        text = f"Python {way.python}" if way.python else "Python"
        if way.minimum_glibc:
            text += f" with glibc {way.minimum_glibc[0]}.{way.minimum_glibc[1]} or newer"
        texts.append(text)
    return " or ".join(texts)


def _there(entry: Entry, given: Interpreter | None) -> Installed | None:
    """Where a backend's library is already, if it can be imported there."""
    if given is None and _importable_here(entry):
        return Installed(entry.name, None, fresh=False)
    found = environments.find(entry.name)
    if found is None or (given is not None and found.python_version != given.full_version):
        return None
    if found.requirements not in [way.requirements for way in entry.install]:
        return None  # made for another release
    try:
        try_modules(found.python, entry.requires, isolated=True)
    except InstallError:
        return None
    return Installed(entry.name, found, fresh=False)


def _importable_here(entry: Entry) -> bool:
    if entry.requires or not entry.install:
        return plugins.unusable_here(entry) is None
    try:
        return bool(importlib.metadata.version(entry.distribution))
    except importlib.metadata.PackageNotFoundError:
        return False


def _writable_home() -> Path:
    home = environments.home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=home).close()
    except OSError as error:
        raise ConfigError(
            f"HEFW_HOME: cannot write into {str(home)!r}: {error.strerror}; set HEFW_HOME to a folder you may write to"
        ) from None
    return home


@contextlib.contextmanager
def _lock(home: Path, report: Report) -> Iterator[None]:
    """One install at a time. The system takes the lock from a process that dies."""
    with open(home / LOCK, "a+", encoding="ascii") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                report("waiting for another install to end", f"process {file.read(20).strip() or '?'}")
                time.sleep(LOCK_POLL_SECONDS)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextlib.contextmanager
def _workplace(home: Path, name: str) -> Iterator[tuple[Path, IO[str]]]:
    """A folder for temporary files, emptied of what a killed install left, and the log."""
    temporary, logs = home / "tmp", home / "logs"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    logs.mkdir(exist_ok=True)
    try:
        with open(logs / f"{environments.root(name).name}.log", "w", encoding="utf-8") as log:
            log.write(f"hefw backends install {name}: {platform.platform()}, Python {platform.python_version()}\n")
            yield temporary, log
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
