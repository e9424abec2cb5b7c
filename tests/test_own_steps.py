"""How many steps a run has where none are asked for."""

from __future__ import annotations

from typing import Any

import pytest
import toy_model

import hefw
from hefw.config import Config
from hefw.running import steps_of

OWN = 2


@pytest.mark.parametrize(("asked", "done"), [({}, OWN), ({"steps": None}, OWN), ({"steps": 3}, 3)])
def test_a_model_has_the_steps_that_it_was_made_for(
    toys: None, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], done: int
) -> None:
    monkeypatch.setattr(toy_model.ToyModel, "steps", OWN, raising=False)
    given = {key: value for key, value in toy_model.CONFIG.items() if key != "steps"}
    record = hefw.generate(**given, backend="simulator", **asked).record
    assert (record.evaluations, record.config["steps"]) == (done, done)


def test_other_models_have_ten() -> None:
    assert steps_of(Config(), object()) == 10
    assert steps_of(Config(steps=4), object()) == 4
