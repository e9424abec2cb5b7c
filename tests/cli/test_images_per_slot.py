"""Where two images share a slot, reports and `hefw inspect` say so in words, and only there."""

from __future__ import annotations

from cli_fakes import fake_record
from test_report import page_of

from hefw import cli_models
from hefw.backends.simulator.backend import SimulatorBackend
from hefw.core.lower import Request, lower
from hefw.inspecting import costs
from hefw.testing.graphs import small_unet

WORDS = "two images a slot"


def test_the_report_says_it() -> None:
    params = fake_record().params.model_dump()
    assert WORDS in page_of(params=params | {"images_per_slot": 2})[1].text
    assert WORDS not in page_of()[1].text


def test_inspect_says_it() -> None:
    for pairs in (False, True):
        request = Request(50, 2048, allow_insecure=True, pairs=pairs)
        found = costs(lower(small_unet(), SimulatorBackend(), request))
        assert found["images_per_slot"] == 1 + pairs
        assert (WORDS in "\n".join(cli_models._costs(found))) == pairs
