"""Pictures, page and files of a run."""

from __future__ import annotations

import base64
import html
import io
import json
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_fakes import fake_process, fake_record, fake_result
from PIL import Image

from hefw.config import Config
from hefw.core.errors import ConfigError
from hefw.core.progress import Progress
from hefw.record import INSECURE, SIMULATED, LedgerEntryRecord
from hefw.report import images
from hefw.report.files import check_writable, put
from hefw.report.page import duration, render, seen, size, summary
from hefw.report.terminal import PlainLines, show_progress
from hefw.report.write import write_run

RED = np.array(images.ALARM)


def pixels(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(picture.convert("RGB"))


def red_share(picture: Image.Image) -> float:
    return float((pixels(picture) == RED).all(axis=-1).mean())


# The page


class Page(HTMLParser):
    """Collects tags, attributes and text; knows that every tag that opens also closes."""

    VOID = frozenset({"meta", "img", "source"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(**changes: Any) -> tuple[str, Page]:
    result = fake_result(**changes)
    names = ["images.png", "steps.png", "server_view.png", "levels.svg", "levels-dark.svg"]
    names += ["plain.png"] if result.plain is not None else []
    text = render(result.record, {name: name.encode() for name in names})
    return text, Page(text)


def test_page_is_self_contained() -> None:
    text, page = page_of()
    assert "http:" not in text
    assert "https:" not in text
    assert "<script" not in text
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object"}
        for name in ("src", "srcset", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "url(" not in text


def test_page_is_readable_by_all() -> None:
    text, page = page_of()
    tags = [tag for tag, _ in page.tags]
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 5
    assert all(len(attributes["alt"] or "") > 20 for attributes in pictures)
    assert tags.count("h1") == 1
    assert "h3" not in tags
    assert ("html", {"lang": "en"}) in page.tags
    assert "width=device-width" in text
    assert "prefers-color-scheme: dark" in text
    assert tags.count("table") == tags.count("caption") + 2  # processes and ledger stand under their own headings


def test_page_says_what_the_record_holds() -> None:
    config = Config(labels="0-3", steps=3, model={"name": "digits", "width": 8}, out="a b")
    _, page = page_of(config=config)
    for words in (
        "4 images drawn on ciphertext",
        "it saw no entry of any latent or image in plaintext",
        "The server saw 0 % of the latents' entries in plaintext",
        "PSNR 61.2 dB",
        "16,384",
        "128 bits, classical",
        "uniform ternary",
        "354 MB",
        "14,400",
        "83 s",
        "only as ciphertext",
        "no-such-distribution",
        "hefw generate --labels 0-3 --steps 3 --seed 0 --backend tenseal",
        "--option model.width=8",
        "--out 'a b'",
    ):
        assert words in page.text, words


@pytest.mark.parametrize(
    ("changes", "banner"),
    [({"simulated": True}, SIMULATED), ({"insecure": True}, INSECURE), ({}, None)],
)
def test_page_banner(changes: dict[str, Any], banner: str | None) -> None:
    text, page = page_of(**changes)
    assert ('class="alarm"' in text) == (banner is not None)
    if banner:
        assert page.text.count(banner) == 1
        assert f"<title>{banner.split(':')[0]}" in text
    assert ("drawn on ciphertext" in page.text) == (not changes.get("simulated", False))


def test_page_without_twin() -> None:
    _, page = page_of(twin=False, max_abs_error=None, psnr_db=None)
    assert [tag for tag, _ in page.tags].count("img") == 4
    assert "PSNR" not in page.text


def test_page_has_the_levels_for_light_and_dark() -> None:
    _, page = page_of()
    (dark,) = [attributes for tag, attributes in page.tags if tag == "source"]
    (light,) = [attributes for tag, attributes in page.tags if tag == "img" and attributes.get("class") == "chart"]
    assert dark["media"] == "(prefers-color-scheme: dark)"
    assert dark["srcset"] == "data:image/svg+xml;base64," + base64.b64encode(b"levels-dark.svg").decode()
    assert light["src"] == "data:image/svg+xml;base64," + base64.b64encode(b"levels.svg").decode()
    assert "A ciphertext's level is the number of times that it can still be rescaled" in page.text


def test_page_says_who_did_what() -> None:
    _, page = page_of()
    assert "2 processes took part. Rows with the same process id are one process." in page.text
    assert "The key holder keys, encryption, decryption seal 1.2.3 3.11.7 4242" in page.text
    assert "The server evaluation on ciphertext seal 1.2.3 3.11.7 4243" in page.text
    _, page = page_of(processes=[fake_process("server", "all", "hefw", 7)])
    assert "1 process took part." in page.text


ROUND_TRIPS = "with a round trip to the key holder after"


@pytest.mark.parametrize(
    ("config", "batches", "sentence", "message", "when"),
    [
        ({"steps": 3}, 1, f"in 3 steps with the backend 'tenseal', {ROUND_TRIPS} each step.", "a step", "3 messages"),
        ({"steps": 3}, 2, f"in 3 steps with the backend 'tenseal', {ROUND_TRIPS} each step.", "a step", "6 messages"),
        ({"steps": 1}, 1, "in 1 step with the backend 'tenseal', from one message.", "a step", "1 message"),
        ({"steps": 4, "refresh": {"every": 2}}, 1, f"{ROUND_TRIPS} every 2 steps.", "every 2 steps", "2 messages"),
        ({"steps": 4, "refresh": "none"}, 1, "'tenseal', from one message.", "for all steps", "1 message"),
        ({"steps": 4, "refresh": "none"}, 2, "from one message for each of 2 batches.", "for all steps", "2 messages"),
        (
            {"steps": 4, "refresh": "bootstrap"},
            1,
            "from one message: the server gave levels back by bootstrapping.",
            "for all steps",
            "1 message",
        ),
        (
            {"steps": 4, "refresh": {"name": "bootstrap", "every": 4}},
            1,
            "'tenseal', from one message.",
            "for all steps",
            "1 message",
        ),
    ],
)
def test_page_says_how_many_messages_were_needed(
    config: dict[str, Any], batches: int, sentence: str, message: str, when: str
) -> None:
    _, page = page_of(config=Config(labels="0-3", **config), batches=batches)
    assert sentence in page.text
    assert f"one grey pixel a byte; one message {message}" in page.text
    rows = seen(fake_record(Config(labels="0-3", **config), batches=batches))
    latents = [row for row in rows if row["item"] == "latent x_t"]
    assert [row["when"] for row in latents] == [f"in {when}"] * 2
    assert next(row["when"] for row in rows if row["item"] == "labels") == ("once" if batches == 1 else "2 times")


def test_page_escapes() -> None:
    text, _ = page_of(model={"name": "<script>alert(1)</script>", "digest": "00"})
    assert "<script" not in text
    assert html.escape("<script>") in text


def test_ledger_rows_are_grouped() -> None:
    rows = seen(fake_record())
    assert [(row["party"], row["item"], row["form"], row["when"]) for row in rows] == [
        ("server", "latent x_t", "only as ciphertext", "in 3 messages"),
        ("server", "labels", "only as ciphertext", "once"),
        ("server", "timesteps", "as public data", "once"),
        ("key holder", "latent x_t", "in plaintext", "in 3 messages"),
    ]
    assert (rows[0]["entries"], rows[0]["bytes"]) == (3 * 1024, 900_000)


def test_summary_tells_partial_and_simulated_runs_apart() -> None:
    partial = fake_record(ledger={"server_plaintext_fraction": 0.115, "entries": []})
    assert "11.5% of the latents' entries in plaintext" in " ".join(summary(partial))
    assert "nothing was encrypted" in " ".join(summary(fake_record(simulated=True)))


def test_units() -> None:
    assert [size(n) for n in (0, 999, 1500, 354_000_000, 2_800_000_000)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "354 MB",
        "2.8 GB",
    ]
    assert [size(n) for n in (999_700, 5e15)] == ["1,000 kB", "5,000 TB"]
    assert [duration(s) for s in (0.0021, 0.5, 4.25, 83, 125, 7260)] == [
        "2.1 ms",
        "500 ms",
        "4.25 s",
        "83 s",
        "2 min 5 s",
        "2 h 1 min",
    ]


# Files

ALL = ["images.png", "levels.svg", "plain.png", "report.html", "run.json", "server_view.png", "steps.png"]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_run(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    result = fake_result(insecure=True)
    paths = write_run(result, out)
    assert sorted(path.name for path in paths) == names_in(out) == ALL
    assert paths[-1].name == "run.json"
    for name in ALL:
        if name.endswith(".png"):
            with Image.open(out / name) as picture:
                picture.load()
                assert red_share(picture) > 0.02
    assert json.loads((out / "run.json").read_text()) == json.loads(result.record.to_json())
    assert "data:image/png;base64," in (out / "report.html").read_text()


def test_a_second_run_replaces_the_first(tmp_path: Path) -> None:
    write_run(fake_result(), tmp_path)
    (tmp_path / "mine.txt").write_text("kept")
    write_run(fake_result(twin=False, max_abs_error=None, psnr_db=None), tmp_path)
    assert names_in(tmp_path) == sorted({*ALL, "mine.txt"} - {"plain.png"})
    assert json.loads((tmp_path / "run.json").read_text())["psnr_db"] is None


@pytest.mark.parametrize("failing", range(7))
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interrupted_writing_leaves_whole_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int, error: type[BaseException]
) -> None:
    result = fake_result()
    calls = []
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) > failing:
            raise error
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(error):
        write_run(result, tmp_path)
    left = names_in(tmp_path)
    assert len(left) == failing
    assert set(left) <= set(ALL) - {"run.json"}
    for name in left:
        if name.endswith(".png"):
            with Image.open(tmp_path / name) as picture:
                picture.load()


def test_interrupted_while_writing_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, {"a": b"old", "b": b"old"}, ["a", "b"])
    real = Path.write_bytes

    def write_bytes(path: Path, data: bytes) -> int:
        real(path, data[:1])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(KeyboardInterrupt):
        put(tmp_path, {"a": b"new", "b": b"new"}, ["a", "b"])
    assert names_in(tmp_path) == ["a", "b"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_check_writable(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder")
    check_writable(tmp_path)
    assert names_in(tmp_path) == []
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError) as caught:
            check_writable(out)
        assert str(caught.value).startswith(f"out: cannot write into {str(out)!r}: ")
        assert str(caught.value).endswith("name a folder you may write to")
    with pytest.raises(ConfigError, match="cannot write into '/proc/nowhere'"):
        check_writable("/proc/nowhere")
    with pytest.raises(ConfigError, match="File name too long"):
        check_writable(tmp_path / ("x" * 5000))


# Progress


def test_plain_progress_is_a_few_lines_with_step_region_and_time_left() -> None:
    stream, now = io.StringIO(), iter(range(10_000))
    show = PlainLines(stream, clock=lambda: float(next(now)))
    show(Progress("keygen", 0, 1))
    show(Progress("keygen", 1, 1))
    for done in range(501):
        show(Progress("evaluate", done, 500, f"step {1 + done // 50} of 10, region mid"))
    lines = stream.getvalue().splitlines()
    assert lines[:3] == ["making keys 0/1", "making keys 1/1", "evaluating 0/500, step 1 of 10, region mid"]
    assert lines[3] == "evaluating 50/500, step 2 of 10, region mid, about 450 s left"
    assert lines[-1] == "evaluating 500/500, step 11 of 10, region mid"
    assert len(lines) == 2 + 11


def test_terminal_progress_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with show_progress(stream) as show:
        show(Progress("evaluate", 1, 4, "step 1 of 2"))
        show(Progress("evaluate", 4, 4, "step 2 of 2"))
        show(Progress("twin", 1, 1))
    assert "evaluating" in stream.getvalue()
    assert "4/4" in stream.getvalue()
    assert "step 2 of 2" in stream.getvalue()


def test_rotation_keys_share_a_row() -> None:
    """Dozens of keys that differ only in their step are one row with their number and their bytes together."""
    record = fake_record()
    keys = tuple(
        LedgerEntryRecord(
            party="server", step=None, item=f"evaluation key rotation/{k}", form="public", entries=0, bytes=10
        )
        for k in (16, 32, 48)
    )
    more = record.model_copy(
        update={"ledger": record.ledger.model_copy(update={"entries": record.ledger.entries + keys})}
    )
    (row,) = [row for row in seen(more) if "rotation" in row["item"]]
    assert row["item"] == "evaluation key rotation, 3 of them"
    assert row["bytes"] == 30
