"""The chart of levels: what is plotted for each refresh, and that it is the same picture everywhere."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import matplotlib
import pytest
from cli_fakes import fake_record

from hefw.config import Config
from hefw.record import RunRecord
from hefw.report.levels import ALARM, DARK, LIGHT, MAX_REFRESHES, caption, course, draw, used


def record(batches: int = 1, **values: Any) -> RunRecord:
    """A made-up run: three operations a step, each of which takes a level and a quarter of a second."""
    return fake_record(Config(labels="0-3", **values), batches=batches)


def test_refresh_by_the_key_holder() -> None:
    found = course(record(steps=2))
    assert list(zip(found.times, found.levels, strict=True)) == [
        *((0, 3), (0.25, 2), (0.5, 1), (0.75, 0)),
        *((0.75, 3), (1.0, 2), (1.25, 1), (1.5, 0)),
    ]
    assert found.messages == [0, 0.75]
    assert (found.steps, found.bootstraps) == ([], [])
    assert (found.shown, found.refreshes) == (2, 2)


def test_several_steps_a_message() -> None:
    found = course(record(steps=4, refresh={"name": "client", "every": 2}))
    assert found.levels == [6, 5, 4, 3, 2, 1, 0] * 2
    assert found.messages == [0, 1.5]
    assert found.steps == [0.75, 2.25]


def test_all_steps_from_one_message() -> None:
    found = course(record(steps=3, refresh="none"))
    assert found.levels == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert found.messages == [0]
    assert found.steps == [0.75, 1.5]


@pytest.mark.parametrize(("every", "steps"), [(1, []), (2, [0.75, 4.25])])
def test_bootstrapping(every: int, steps: list[float]) -> None:
    """A bootstrapping takes two seconds, at whose end the level rises."""
    found = course(record(steps=2 * every, refresh={"name": "bootstrap", "every": every}))
    begin = 0.75 * every
    assert found.bootstraps == [(begin, begin + 2)]
    assert found.messages == [0]
    assert found.steps == steps
    at_end = found.times.index(begin + 2)
    assert (found.levels[at_end - 1], found.levels[at_end]) == (0, 3 * every)


@pytest.mark.parametrize("refresh", ["client", "none", "bootstrap", {"name": "client", "every": 2}])
def test_only_the_first_batch_is_shown(refresh: Any) -> None:
    assert course(record(batches=3, steps=4, refresh=refresh)) == course(record(steps=4, refresh=refresh))
    assert "Shown is the first of 3 batches." in caption(record(batches=3, steps=4, refresh=refresh))
    assert "batches" not in caption(record(steps=4, refresh=refresh))


@pytest.mark.parametrize("name", ["client", "bootstrap"])
def test_of_many_refreshes_the_first_are_shown(name: str) -> None:
    found = course(record(steps=100, refresh=name))
    assert (found.shown, found.refreshes) == (MAX_REFRESHES, 100)
    assert len(draw(record(steps=1000, refresh=name))) < 200_000


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"steps": 2}, "The key holder gave them back: it decrypted"),
        ({"steps": 2, "refresh": "none"}, "One fresh ciphertext had enough of them for the whole run."),
        ({"steps": 2, "refresh": "bootstrap"}, "The server gave them back itself, by bootstrapping"),
        ({"steps": 2, "refresh": {"name": "bootstrap", "every": 2}}, "One fresh ciphertext had enough of them"),
        ({"steps": 1}, "One fresh ciphertext had enough of them"),
    ],
)
def test_the_caption_says_what_a_level_is_and_who_gave_it_back(values: dict[str, Any], words: str) -> None:
    text = caption(record(**values))
    assert text.startswith("A ciphertext's level is the number of times that it can still be rescaled.")
    assert words in text


def test_the_chart_is_an_svg_file_in_the_colours_of_the_page() -> None:
    light, dark = (draw(record(steps=2, refresh="bootstrap"), dark=dark) for dark in (False, True))
    for drawn, colours, others in ((light, LIGHT, DARK), (dark, DARK, LIGHT)):
        assert ElementTree.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"
        for name, colour in vars(colours).items():
            assert colour.encode() in drawn, name
        assert others.level.encode() not in drawn
        assert ALARM.encode() not in drawn
        assert b"<image" not in drawn


@pytest.mark.parametrize("flag", ["simulated", "insecure"])
def test_the_banner_is_on_the_chart(flag: str) -> None:
    assert ALARM.encode() in draw(fake_record(**{flag: True}))


def test_the_same_record_gives_the_same_bytes_whatever_the_users_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = draw(record(steps=2))
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "none"}):
        assert draw(record(steps=2)) == expected
        assert matplotlib.rcParams["font.size"] == 30


def test_a_run_without_a_trace_is_an_empty_chart() -> None:
    empty = fake_record(trace=())
    assert empty.batches == 0
    assert course(empty).times == []
    ElementTree.fromstring(draw(empty))
    assert caption(empty)


def test_levels_are_used_by_networks_and_not_by_updates() -> None:
    assert all(used(record(steps=2, refresh=refresh)) for refresh in ("client", "none", "bootstrap"))
    assert not used(record(steps=2, protocol="update-only"))
    assert not used(fake_record(trace=()))
