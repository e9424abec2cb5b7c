"""The page and the files of a run, and its progress."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import fake_process, fake_record, fake_result, partial_ledger
from PIL import Image
from test_report_images import red_share

from hefw.config import Config
from hefw.core.errors import ConfigError
from hefw.core.progress import Progress
from hefw.record import INSECURE, SIMULATED
from hefw.report import images
from hefw.report.files import check_writable, put
from hefw.report.page import render
from hefw.report.sight import seen
from hefw.report.terminal import PlainLines, show_progress
from hefw.report.write import write_run

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


def page_of(*, pictures: list[str] | None = None, **changes: Any) -> tuple[str, Page]:
    result = fake_result(**changes)
    names = pictures or ["images.png", "steps.png", "server_view.png", "levels.svg", "levels-dark.svg"]
    names = [*names, "plain.png"] if result.plain is not None else names
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
    assert tags.count("table") == tags.count("caption") + 1  # processes stand under their own heading


def test_page_says_what_the_record_holds() -> None:
    config = Config(labels="0-3", steps=3, model={"name": "digits", "width": 8}, out="a b")
    _, page = page_of(config=config)
    for words in (
        "4 images drawn on ciphertext",
        "By the protocol end-to-end the server computed all of it",
        "The server saw ciphertext alone: no entry of any latent, noise prediction or image in plaintext.",
        "The labels none 0 of 160",
        "The latents none 0 of 1,024",
        "Selecting what to encrypt 62.5 ms",
        "Encoding the weights, meanwhile 4.25 s",
        "the encrypted part 88.4 s",
        "The same in plaintext, to compare 31 s",
        "The server, an image and step 520 ms",
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
    text, _ = page_of(model={"name": "<script>alert(1)</script>", "digest": "00", "scheduler": "<script>2</script>"})
    assert "<script" not in text
    assert html.escape("<script>") in text


def test_page_escapes_prompts() -> None:
    asked = '"><script>alert(1)</script>'
    text, page = page_of(config=Config(prompt=asked, negative_prompt=asked, steps=2))
    assert "<script" not in text
    assert page.text.count("script>alert(1)</") == 2 + 2  # prompts and the command that repeats the run
    (alt,) = [a["alt"] for tag, a in page.tags if tag == "img" and (a["alt"] or "").startswith("The 1 image as")]
    assert alt == f"The 1 image as the key holder decrypted them, prompts {asked}"


def test_page_of_prompts() -> None:
    prompts = [f"prompt number {k}, in the manner of nobody" for k in range(40)]
    _, page = page_of(config=Config(prompt=prompts, negative_prompt="blurred", steps=2))
    assert "40 images drawn with updates on ciphertext" in page.text
    assert [tag for tag, _ in page.tags].count("li") == 32
    assert "prompt number 31" in page.text
    assert "And 8 more, in run.json. Negative prompt: blurred" in page.text
    assert "prompts, seed and pictures are in them" in page.text
    assert all(len(attributes["alt"] or "") < 300 for tag, attributes in page.tags if tag == "img")
    _, page = page_of()
    assert "li" not in [tag for tag, _ in page.tags]
    assert "labels, seed and pictures are in them" in page.text


def test_page_of_update_only() -> None:
    config = Config(labels="0-3", steps=3, protocol="update-only", noise_prediction="plaintext")
    shown = [57, 60, 82]
    text, page = page_of(config=config, ledger=partial_ledger(shown, predictions="plaintext"), pictures=["images.png"])
    for words in (
        "4 images drawn with updates partly on ciphertext",
        "By the protocol update-only the network ran in plaintext at the key holder",
        "The latents 10.4 % 57 to 82 of 640, 66.3 on average",
        "The noise predictions all 640 of 640",
        "From them alone it can rebuild the picture or much of it",
        "The network, in plaintext at the key holder 30 s",
        "All else: building and decoding 2.56 s",
        "The server latent x_t in plaintext in 3 messages 199 57 to 82, mean 66.3 796 B",
        "depends on private numbers without being them",
    ):
        assert words in page.text, words
    assert "<code>hefw audit</code> measures how closely" in text
    assert "`" not in page.text
    for words in ("Levels", "rescaled", "Encoding the weights", "Encoded weights"):
        assert words not in page.text, words


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


def test_what_there_is_nothing_of_is_not_written(tmp_path: Path) -> None:
    """Updates take no level; where everything is shown there is no ciphertext, nor an operation on one."""
    levels, view = tmp_path / "levels.svg", tmp_path / "server_view.png"
    write_run(fake_result(), tmp_path)
    assert levels.exists()
    assert view.exists()
    config = Config(labels="0-3", steps=3, protocol="update-only")
    write_run(fake_result(config), tmp_path)
    assert not levels.exists()
    assert view.exists()
    nothing = partial_ledger([640] * 3, predictions="plaintext")
    result = fake_result(config, trace=(), counts={}, ledger=nothing)
    write_run(dataclasses.replace(result, server_view=()), tmp_path)
    assert names_in(tmp_path) == sorted({*ALL} - {"levels.svg", "server_view.png"})
    page = Page((tmp_path / "report.html").read_text())
    assert "4 images drawn with nothing encrypted" in page.text
    assert [tag for tag, _ in page.tags].count("img") == 3


def test_a_trajectory_of_some_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts, 51 evaluations of 50 steps, six moments: as runs of Stable Diffusion are."""
    config = Config(prompt=["a cat", "a dog"], steps=50, init_image="a.png")
    result = fake_result(config, evaluations=51, messages=51, shape=(2, 3, 64, 64))
    after = (0, 10, 20, 31, 41, 51)
    result = dataclasses.replace(result, trajectory=result.trajectory[list(after)], after=after)
    asked: list[dict[str, Any]] = []
    draw = images.steps_strip
    monkeypatch.setattr(images, "steps_strip", lambda states, **words: asked.append(words) or draw(states, **words))
    write_run(result, tmp_path)
    assert asked == [
        {
            "after": after,
            "every": 1,
            "unit": "evaluation",
            "start": "start",
            "heads": ("a cat", "a dog"),
            "banner": None,
        }
    ]
    text = Page((tmp_path / "report.html").read_text()).text
    assert "drew 2 images in 51 evaluations of the network (50 steps of DDIMScheduler, begun from a picture)" in text
    assert "with a round trip to the key holder after each evaluation" in text
    assert "one grey pixel a byte; one message an evaluation" in text
    with Image.open(tmp_path / "steps.png") as picture:
        assert picture.width < 6 * (2 * 64 + 8) + 100


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


def test_stages_that_take_turns_print_no_line_for_every_turn() -> None:
    """As network and updates do in update-only."""
    stream, now = io.StringIO(), iter(range(10_000))
    show = PlainLines(stream, clock=lambda: float(next(now)))
    for step in range(1, 101):
        show(Progress("network", step, 100, f"evaluation {step} of 100"))
        show(Progress("evaluate", step, 100))
    lines = stream.getvalue().splitlines()
    assert lines[:2] == [
        "network in plaintext 1/100, evaluation 1 of 100",  # how long that took is not known
        "evaluating 1/100",
    ]
    assert lines[2] == "network in plaintext 10/100, evaluation 10 of 100, about 180 s left"  # two ticks a step
    assert lines[-1] == "evaluating 100/100"
    assert len(lines) == 22


def test_a_stage_that_begins_again_is_shown_again() -> None:
    """As sampling in plaintext does for several numbers of steps."""
    stream = io.StringIO()
    show = PlainLines(stream, clock=lambda: 0.0)
    for done in (0, 1, 2, 0, 1, 2):
        show(Progress("sample", done, 2))
    assert [line.split(",")[0] for line in stream.getvalue().splitlines()] == [
        f"sampling in plaintext {done}/2" for done in (0, 1, 2, 0, 1, 2)
    ]


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
