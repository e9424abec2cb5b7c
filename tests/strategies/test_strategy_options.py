"""Options of the strategies, as a configuration gives them: what is not allowed is one clear line."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from hefw import plugins
from hefw.config import Config
from hefw.core.errors import ConfigError

NAMES = ("full", "min_distortion", "random", "roi", "sparse")
NEITHER = (
    "give one of mask (the path of an image, white = encrypted) and box ([top, left, bottom, right] as shares of "
    "height and width)"
)
EDGES = (
    "give [top, left, bottom, right] as shares of height and width from 0 to 1, for example [0.25, 0.25, 0.75, 0.75]"
)
EMPTY = "the box is empty; give [top, left, bottom, right] with top < bottom and left < right"


def resolved(name: str, **options: Any) -> Any:
    return Config(strategy={"name": name, **options}).resolve()["strategy"]


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("min_distortion", {"threshold": 1.5}, "option 'threshold' = 1.5 is not allowed: give a number from 0 to 1"),
        (
            "min_distortion",
            {"threshold": -1e-9},
            "option 'threshold' = -1e-09 is not allowed: give a number from 0 to 1",
        ),
        ("sparse", {"threshold": "low"}, "option 'threshold' = 'low' is not allowed: give a number from 0 to 1"),
        ("sparse", {"threshold": True}, "option 'threshold' = True is not allowed: give a number from 0 to 1"),
        ("sparse", {"fraction": 50}, "option 'fraction' = 50 is not allowed: give a number from 0 to 1"),
        ("random", {"fraction": None}, "option 'fraction' = None is not allowed: give a number from 0 to 1"),
        ("random", {"seed": -1}, "option 'seed' = -1 is not allowed: input should be greater than or equal to 0"),
        ("random", {"threshold": 0.1}, "unknown option 'threshold'; Known: fraction, seed"),
        (
            "min_distortion",
            {"threshold": 0.01, "fraction": 0.5},
            "options {'threshold': 0.01, 'fraction': 0.5} are not allowed: give threshold or fraction, not both",
        ),
        ("roi", {}, f"options {{}} are not allowed: {NEITHER}"),
        (
            "roi",
            {"mask": "m.png", "box": [0, 0, 1, 1]},
            f"options {{'mask': 'm.png', 'box': [0, 0, 1, 1]}} are not allowed: {NEITHER}",
        ),
        ("roi", {"mask": 7}, "option 'mask' = 7 is not allowed: input should be a valid string"),
        ("roi", {"box": [8, 8, 24, 24]}, f"option 'box' = [8, 8, 24, 24] is not allowed: {EDGES}"),
        ("roi", {"box": [0, 0, 1]}, f"option 'box' = [0, 0, 1] is not allowed: {EDGES}"),
        ("roi", {"box": "all"}, f"option 'box' = 'all' is not allowed: {EDGES}"),
        ("roi", {"box": {"top": 0}}, f"option 'box' = {{'top': 0}} is not allowed: {EDGES}"),
        ("roi", {"box": [0.5, 0, 0.5, 1]}, f"option 'box' = [0.5, 0, 0.5, 1] is not allowed: {EMPTY}"),
        ("roi", {"box": [0, 0.6, 1, 0.5]}, f"option 'box' = [0, 0.6, 1, 0.5] is not allowed: {EMPTY}"),
    ],
)
def test_what_is_not_allowed_is_said_in_one_line(name: str, options: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolved(name, **options)
    assert str(error.value) == f"strategy {name!r}: {line}"


def test_a_number_that_is_none_is_refused() -> None:
    """From Python: a configuration has no such numbers."""
    options = plugins.registry().entry("strategy", "min_distortion").options
    with pytest.raises(ValueError, match="give a number from 0 to 1"):
        options.model_validate({"threshold": float("nan")})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("full", {}),
        ("min_distortion", {}),
        ("min_distortion", {"threshold": 0}),
        ("min_distortion", {"fraction": 1}),
        ("sparse", {"threshold": 0.05}),
        ("random", {"fraction": 0.25, "seed": 3}),
        ("roi", {"box": [0, 0, 1, 0.5]}),
    ],
)
def test_a_configuration_makes_the_strategy(name: str, options: dict[str, Any]) -> None:
    chosen = resolved(name, **options)
    made = plugins.registry().load("strategy", name)(chosen.options)
    assert made.select(np.random.default_rng(0).normal(size=(4, 8, 8))).any()
    assert made.packed == (name == "sparse")
    assert chosen.entry.options.model_validate(chosen.options.model_dump()) == chosen.options


def test_all_are_registered_and_none_needs_anything() -> None:
    rows = {row.name: row.unavailable for row in plugins.registry().listing() if row.kind == "strategy"}
    assert {name: rows[name] for name in NAMES} == dict.fromkeys(NAMES)


def test_the_base_install_is_enough() -> None:
    """Neither their listing nor their selection imports what the base package does not need."""
    script = """if True:
        import sys
        from hefw.strategies import plugin
        assert "numpy" not in sys.modules
        import numpy as np
        from hefw import plugins
        given = {"roi": {"box": [0, 0, 1, 1]}}
        for name in plugins.registry().names("strategy"):
            entry = plugins.registry().entry("strategy", name)
            made = plugins.registry().load("strategy", name)(entry.options(**given.get(name, {})))
            made.select(np.ones((1, 4, 4)))
        print(sorted({"torch", "diffusers", "scipy", "PIL", "skimage", "sklearn"} & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
