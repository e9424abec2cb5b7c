"""The folder of a comparison: one file a run, written whole or not at all, and one process at work in it at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from hefw import __version__
from hefw.bench.measurement import Audited, Measurement, Part, Profiled
from hefw.core.errors import ConfigError
from hefw.core.files import write_atomically
from hefw.record import MachineRecord, machine_info
from hefw.report.files import check_writable

RUNS, AUDITS, PROFILES, CELLS = "runs", "audits", "profiles", "cells"
MANIFEST, LOCK = "comparison.json", ".lock"
#: What a file that was being written when its process was killed is called.
UNFINISHED = re.compile(r".+\.json[a-z0-9_]{8}")

Kept = TypeVar("Kept", Measurement, Audited, Profiled)
Read = TypeVar("Read", bound=Part)


class Manifest(Part):
    """Where and by what a folder's runs are measured: figures of different machines are not mixed."""

    hefw_comparison_folder_version: Literal[1] = 1
    hefw: str
    machine: MachineRecord

    @property
    def words(self) -> str:
        """What must be the same."""
        return f"hefw {self.hefw} on {self.machine.cores} cores of {self.machine.cpu}"


class Store:
    """An open folder. Everything in it that is there already has been read and is sound."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = self._manifest()
        self.runs = {kept.name: kept for kept in self._kept(RUNS, Measurement)}
        self.audits = {kept.name: kept for kept in self._kept(AUDITS, Audited)}
        self.profiles = {kept.name: kept for kept in self._kept(PROFILES, Profiled)}

    def keep(self, done: Measurement | Audited | Profiled) -> None:
        """Write one file; a file of that name is replaced."""
        place, found = self._place(done)
        write_atomically(self._path(place, done.name), done.to_json().encode())
        found[done.name] = done

    def remove(self, kept: Measurement | Audited | Profiled) -> None:
        """Forget one file, so that it is measured again."""
        place, found = self._place(kept)
        self._path(place, kept.name).unlink(missing_ok=True)
        del found[kept.name]

    def _place(self, kept: Measurement | Audited | Profiled) -> tuple[str, dict[str, Any]]:
        if isinstance(kept, Measurement):
            return RUNS, self.runs
        return (AUDITS, self.audits) if isinstance(kept, Audited) else (PROFILES, self.profiles)

    def cell(self, digest: str) -> Path:
        """The folder of what `hefw generate` writes of a cell."""
        return self.folder / CELLS / digest

    def _path(self, place: str, name: str) -> Path:
        return self.folder / place / f"{name}.json"

    def _manifest(self) -> Manifest:
        path, here = self.folder / MANIFEST, Manifest(hefw=__version__, machine=machine_info())
        if path.exists():
            found = _read(path, Manifest)
            if found.words != here.words:
                raise ConfigError(
                    f"--out {str(self.folder)!r} holds runs of {found.words}; this is {here.words}, and the two cannot "
                    "be compared: name another folder"
                )
            return found
        others = sorted(item.name for item in self.folder.iterdir() if item.name != LOCK)
        if others:
            raise ConfigError(
                f"--out {str(self.folder)!r} is no folder of a comparison and holds {others[0]!r}; name another one"
            )
        for place in (RUNS, AUDITS, PROFILES, CELLS):
            (self.folder / place).mkdir(exist_ok=True)
        write_atomically(path, (here.model_dump_json(indent=2) + "\n").encode())
        return here

    def _kept(self, place: str, kind: type[Kept]) -> Iterator[Kept]:
        folder = self.folder / place
        folder.mkdir(exist_ok=True)
        for path in sorted(folder.iterdir()):
            if UNFINISHED.fullmatch(path.name):
                path.unlink()
            elif path.suffix == ".json":
                kept = _read(path, kind)
                if kept.name != path.stem:
                    raise ConfigError(f"{str(path)!r} holds {kept.name!r}, not what it is called after; remove it")
                yield kept


def _read(path: Path, kind: type[Read]) -> Read:
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be read: {error.strerror}; make it readable, or remove it") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        raise ConfigError(
            f"{str(path)!r} is damaged ({' '.join(reason.split())[:120]}); remove it, and it is measured again"
        ) from None


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Store]:
    """The folder, made if it is not there, for this process alone.

    Raises:
        ConfigError: it cannot be written to, another process is at work in it, it holds something else or runs of
            another machine or version, or one of its files is damaged. Nothing in it was changed then.
    """
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system frees it, however this process ends
        except BlockingIOError:
            lock.seek(0)
            raise ConfigError(
                f"another hefw compare (process {lock.read().strip() or '?'}) is at work in {str(folder)!r}; wait for "
                "it, or name another --out"
            ) from None
        lock.seek(0)
        lock.truncate()
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield Store(folder)
