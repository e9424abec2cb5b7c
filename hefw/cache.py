"""What is expensive to make and can be made again: graphs, programs, encoded weights. Never a key or a picture.

    FOLDER/KIND-DIGEST        one entry: magic, version, SHA-256 of the content, content

An entry's digest is that of everything that its content depends on, hefw's own code among it, so that an entry is never
out of date; it may be damaged, and is then dropped and made again. Entries that were used least recently are removed
when all of them are larger than a limit.

FOLDER is the environment variable HEFW_CACHE (`off` for no cache), else `hefw` in the user's cache folder
(XDG_CACHE_HOME, by default ~/.cache). HEFW_CACHE_SIZE is the limit, such as 500MB or 8GB.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import mmap
import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hefw.core.errors import ConfigError
from hefw.core.files import Buffer, write_atomically

FOLDER, SIZE = "HEFW_CACHE", "HEFW_CACHE_SIZE"
OFF = "off"
DEFAULT_LIMIT = 4 * 10**9
#: Of the limit, at most so much for one entry: it would drive out all others.
LARGEST_SHARE = 0.5
#: Files that an interrupted process left behind are removed when they are older, in seconds.
LEFT_BEHIND = 3600.0

#: With the digest behind it, a multiple of 16 bytes: arrays in the content then lie as they should.
MAGIC = b"HEFWCACHE".ljust(15, b"\x00") + b"\x02"
_HEADER = len(MAGIC) + 32
_NAME = re.compile(r"([a-z]+)-([0-9a-f]{32})")
#: What an entry is called while it is written.
_UNFINISHED = re.compile(_NAME.pattern + r"[a-z0-9_]{8}")
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cached:
    """An entry: its kind, its size in bytes, and when it was used last (seconds since 1970)."""

    kind: str
    digest: str
    bytes: int
    used: float


class Cache:
    """Entries in a folder, which several processes may use at once. One that cannot be used is as if it were empty."""

    def __init__(self, folder: Path, limit: float = DEFAULT_LIMIT) -> None:
        self.folder = folder
        self.limit = limit

    def get(self, kind: str, digest: str) -> memoryview | None:
        """The content of an entry, or None if it is not there, or damaged; it is then dropped with a warning."""
        path = self._path(kind, digest)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size <= _HEADER:
                    self._drop(path)
                    return None
                view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            os.utime(path)
        except OSError:
            return None
        content = view[_HEADER:]
        if view[: len(MAGIC)] != MAGIC or hashlib.sha256(content).digest() != view[len(MAGIC) : _HEADER]:
            self._drop(path)
            return None
        return content

    def put(self, kind: str, digest: str, parts: Sequence[Buffer]) -> None:
        """Keep an entry, whole or not at all; then remove those used least recently, down to the limit."""
        size = _HEADER + sum(memoryview(part).nbytes for part in parts)
        if size > LARGEST_SHARE * self.limit:
            return
        state = hashlib.sha256()
        for part in parts:
            state.update(part)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self._path(kind, digest), [MAGIC, state.digest(), *parts], private=True)
        except OSError as error:
            _log.warning("nothing is kept in the cache %s: %s", self.folder, error.strerror or error)
        else:
            self.trim()

    def damaged(self, kind: str, digest: str) -> None:
        """Drop an entry whose content turned out to be none, with a warning."""
        self._drop(self._path(kind, digest))

    def entries(self) -> list[Cached]:
        """All entries, those used last first."""
        found = []
        try:
            for item in os.scandir(self.folder):
                if (match := _NAME.fullmatch(item.name)) and item.is_file(follow_symlinks=False):
                    stat = item.stat()
                    found.append(Cached(match[1], match[2], stat.st_size, stat.st_mtime))
        except OSError:
            pass  # not there, or another process removed an entry
        return sorted(found, key=lambda entry: -entry.used)

    def trim(self, limit: float | None = None) -> None:
        """Remove entries, those used least recently first, until the others are within the limit."""
        room = self.limit if limit is None else limit
        for entry in self.entries():
            room -= entry.bytes
            if room < 0:
                self._path(entry.kind, entry.digest).unlink(missing_ok=True)
        self._sweep()

    def clear(self) -> int:
        """Remove all entries; the bytes that they had."""
        size = sum(entry.bytes for entry in self.entries())
        self.trim(0)
        return size

    def _sweep(self) -> None:
        for path in self.folder.glob("*"):
            try:
                if (
                    _UNFINISHED.fullmatch(path.name)
                    and path.is_file()
                    and time.time() - path.stat().st_mtime > LEFT_BEHIND
                ):
                    path.unlink()
            except OSError:
                continue  # another process was faster

    def _path(self, kind: str, digest: str) -> Path:
        return self.folder / f"{kind}-{digest}"

    def _drop(self, path: Path) -> None:
        _log.warning("the cache entry %s is damaged: it is dropped and made again", path.name)
        path.unlink(missing_ok=True)


def default() -> Cache | None:
    """The user's cache, or None if it is switched off. ConfigError for a size that is none."""
    limit = _limit(os.environ.get(SIZE, ""))
    given = os.environ.get(FOLDER, "")
    if given == OFF:
        return None
    if given:
        return Cache(Path(given).expanduser().absolute(), limit)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Cache(base.expanduser().absolute() / "hefw", limit)


def digest(*parts: object) -> str:
    """32 hexadecimal digits of everything that an entry depends on: values whose `repr` says all, and hefw's code."""
    state = hashlib.sha256(stamp().encode())
    for part in parts:
        text = repr(part).encode()
        state.update(len(text).to_bytes(8, "big") + text)
    return state.hexdigest()[:32]


@functools.cache
def stamp() -> str:
    """What changes whenever a file of the package hefw does: its code, and bundled weights."""
    return stamp_of([Path(__file__).parent])


def stamp_of(paths: Iterable[Path]) -> str:
    """What changes whenever one of these files, or a file in one of these folders, does: by size and time of change."""
    state = hashlib.sha256()
    for path in paths:
        found = sorted(_files(str(path)))
        state.update(repr((str(path), found)).encode())
    return state.hexdigest()


def _files(path: str) -> Iterable[tuple[str, int, int]]:
    if not os.path.isdir(path):
        if os.path.exists(path):
            stat = os.stat(path)
            yield path, stat.st_size, stat.st_mtime_ns
        return
    for item in os.scandir(path):
        if item.is_dir():
            if item.name != "__pycache__":
                yield from _files(item.path)
        elif item.is_file():
            stat = item.stat()
            yield item.path, stat.st_size, stat.st_mtime_ns


def _limit(text: str) -> float:
    if not text:
        return DEFAULT_LIMIT
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]?B)?", text.strip().upper())
    if not match:
        raise ConfigError(f"{SIZE} {text!r} is not allowed; allowed: a size in bytes, such as 500MB or 8GB")
    return float(match[1]) * _UNITS[match[2] if match[2] and match[2] != "B" else ""]
