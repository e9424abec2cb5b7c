"""The cache: entries whole or not at all, checked when they are read, bounded, cleared; and the commands over it."""

from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path

import pytest

from hefw import cache as caching
from hefw import cli
from hefw.cache import Cache, stamp_of
from hefw.core.errors import ConfigError

KEYS = [f"{k:032x}" for k in range(9)]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("HEFW_CACHE", str(tmp_path / "cache"))
    found = caching.default()
    assert found is not None
    return found


def test_what_was_put_is_there(cache) -> None:
    assert cache.get("graph", KEYS[0]) is None
    cache.put("graph", KEYS[0], [b"abc", memoryview(b"def")])
    found = cache.get("graph", KEYS[0])
    assert found is not None
    assert bytes(found) == b"abcdef"
    assert cache.get("program", KEYS[0]) is None
    assert [(e.kind, e.digest) for e in cache.entries()] == [("graph", KEYS[0])]
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in cache.folder.iterdir()} == {0o600}


@pytest.mark.parametrize("place", [0, 8, 9, 40, 41, -1])
def test_a_damaged_entry_is_dropped_with_a_warning(cache, caplog, place) -> None:
    cache.put("graph", KEYS[0], [b"x" * 100])
    path = cache.folder / f"graph-{KEYS[0]}"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert cache.get("graph", KEYS[0]) is None
    assert [r.getMessage() for r in caplog.records] == [
        f"the cache entry graph-{KEYS[0]} is damaged: it is dropped and made again"
    ]
    assert not path.exists()


@pytest.mark.parametrize("size", [0, 1, 40, 41, 90])
def test_a_truncated_entry_is_dropped(cache, caplog, size) -> None:
    cache.put("graph", KEYS[0], [b"x" * 100])
    path = cache.folder / f"graph-{KEYS[0]}"
    path.write_bytes(path.read_bytes()[:size])
    assert cache.get("graph", KEYS[0]) is None
    assert not path.exists()


def test_what_was_used_least_recently_goes_first(tmp_path) -> None:
    cache = Cache(tmp_path / "cache", limit=1000)
    for number, key in enumerate(KEYS[:3]):
        cache.put("graph", key, [b"x" * 200])
        os.utime(cache.folder / f"graph-{key}", (number, number))
    assert cache.get("graph", KEYS[0]) is not None  # used now
    for key in KEYS[3:5]:
        cache.put("graph", key, [b"x" * 200])
    assert {entry.digest for entry in cache.entries()} == {KEYS[0], KEYS[2], KEYS[3], KEYS[4]}
    assert KEYS[1] not in {entry.digest for entry in cache.entries()}
    assert sum(entry.bytes for entry in cache.entries()) <= 1000


def test_an_entry_that_is_too_large_is_not_kept(tmp_path) -> None:
    cache = Cache(tmp_path / "cache", limit=1000)
    cache.put("graph", KEYS[0], [b"x" * 600])
    assert cache.entries() == []


def test_an_interrupted_entry_is_not_there_and_swept_later(cache, monkeypatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            cache.put("graph", KEYS[0], [b"x"])
    assert list(cache.folder.iterdir()) == []
    left = cache.folder / f"graph-{KEYS[0]}a1b2_c3d"  # by a process that was killed
    left.write_bytes(b"x")
    os.utime(left, (0, 0))
    cache.put("graph", KEYS[1], [b"x"])
    assert [path.name for path in cache.folder.iterdir()] == [f"graph-{KEYS[1]}"]


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path, caplog) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "cache")
    cache.put("graph", KEYS[0], [b"x"])
    assert "nothing is kept in the cache" in caplog.records[0].getMessage()
    assert cache.get("graph", KEYS[0]) is None
    assert cache.entries() == []
    assert cache.clear() == 0


def test_strange_files_are_left_alone(cache) -> None:
    cache.put("graph", KEYS[0], [b"x"])
    (cache.folder / "notes.txt").write_text("mine")
    assert cache.clear() > 0
    assert [path.name for path in cache.folder.iterdir()] == ["notes.txt"]


def test_digests_tell_everything_apart(monkeypatch) -> None:
    found = {caching.digest(*parts) for parts in (["a", "b"], ["ab"], ["a", "b", ""], ["b", "a"], [1, 2], [12])}
    assert len(found) == 6
    before = caching.digest("a")
    monkeypatch.setattr(caching, "stamp", lambda: "other code")
    assert caching.digest("a") != before


def test_a_stamp_changes_with_any_file(tmp_path) -> None:
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "weights"
    file.write_text("1")
    before = stamp_of([tmp_path])
    assert before == stamp_of([tmp_path])
    os.utime(file, ns=(1, 1))
    changed = stamp_of([tmp_path])
    assert changed != before
    (tmp_path / "more").write_text("")
    assert stamp_of([tmp_path]) not in (before, changed)
    assert stamp_of([tmp_path / "none"]) == stamp_of([tmp_path / "none"])


@pytest.mark.parametrize(("text", "limit"), [("500MB", 5e8), ("8 gb", 8e9), ("1.5GB", 1.5e9), ("1000", 1000)])
def test_limits(monkeypatch, text, limit, tmp_path) -> None:
    monkeypatch.setenv("HEFW_CACHE", str(tmp_path))
    monkeypatch.setenv("HEFW_CACHE_SIZE", text)
    found = caching.default()
    assert found is not None
    assert found.limit == limit


def test_a_limit_that_is_none(monkeypatch) -> None:
    monkeypatch.setenv("HEFW_CACHE_SIZE", "much")
    with pytest.raises(ConfigError, match="HEFW_CACHE_SIZE 'much' is not allowed; allowed: a size in bytes, such as"):
        caching.default()


def test_where_it_is(monkeypatch, tmp_path) -> None:
    assert caching.default() is None  # as the tests have it
    monkeypatch.delenv("HEFW_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = caching.default()
    assert found is not None
    assert found.folder == tmp_path / "hefw"


def test_list_and_clear(cache, capsys) -> None:
    cache.put("graph", KEYS[0], [b"x" * 10**6])
    assert cli.run(["cache", "list"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"graph    {KEYS[0]}         1.0 MB  used 2")
    assert f"1.0 MB of at most 4,000 MB in {cache.folder}" in out
    assert cli.run(["cache", "list", "--json"]) == 0
    assert [entry["digest"] for entry in json.loads(capsys.readouterr().out)] == [KEYS[0]]
    assert cli.run(["cache", "clear"]) == 0
    assert capsys.readouterr().err == f"removed 1.0 MB from {cache.folder}\n"
    assert cache.entries() == []


def test_list_and_clear_where_it_is_off(capsys) -> None:
    assert [cli.run(["cache", "list"]), cli.run(["cache", "clear"])] == [0, 0]
    captured = capsys.readouterr()
    assert captured.out == captured.err == "the cache is switched off by HEFW_CACHE\n"
