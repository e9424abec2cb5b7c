"""The benchmark of one update step: what it computes, and what it makes of times."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hefw.bench.published import PARTS, Step

ROOT = Path(__file__).parents[2]

sys.path.insert(0, str(ROOT))
try:
    from benchmarks import update, ways
finally:
    sys.path.remove(str(ROOT))


def test_measured_updates_are_those_of_the_scheduler() -> None:
    scheduler = type(ways.SCHEDULER).from_config(ways.SCHEDULER.config)
    scheduler.set_timesteps(ways.STEPS)
    for done, timestep in zip(ways.updates(ways.WARM_UP + 3), scheduler.timesteps, strict=False):
        stepped = scheduler.step(torch.from_numpy(done.prediction), timestep, torch.from_numpy(done.latent))
        if done.step >= ways.WARM_UP:
            np.testing.assert_allclose(done.expected, stepped.prev_sample, atol=1e-9)
    assert done.step == ways.WARM_UP + 2


def fake(seconds: list[float], error: float, measured: int) -> ways.Way:
    """A way that takes so long in each round, and is wrong by `error` where it computed anything."""
    times = iter(seconds)

    def way(done: ways.Update) -> Step:
        latent = done.expected + error
        latent[0] = np.nan
        each = dict.fromkeys(PARTS, next(times) / len(PARTS))
        return Step(each, latent, 100, measured, 100, extrapolated=measured < 100)

    return way


def test_rows_have_medians_fastest_rounds_and_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    contenders = {
        "published full": fake([40.0], 1e-3, 10),
        "published sparse": fake([4.0, 2.0, 1.0], 1e-2, 100),
        "fast": fake([0.5, 0.25, 0.125], 1e-6, 100),
    }
    rows = {row["way"]: row for row in update.with_ratios(update.interleaved(contenders, ways.updates(3)))}
    fast = rows["fast"]
    assert (fast["median_seconds"], fast["fastest_seconds"]) == pytest.approx((0.25, 0.125))
    assert fast["median_seconds_by_part"] == pytest.approx(dict.fromkeys(PARTS, 0.05))
    assert fast["times_faster"]["published full"] == pytest.approx({"median": 160, "fastest": 320})
    assert fast["times_faster"]["published sparse"] == pytest.approx({"median": 8, "fastest": 8})
    assert fast["max_abs_error"] == pytest.approx(1e-6)
    assert not fast["extrapolated"]
    full = rows["published full"]
    assert full["extrapolated"]
    assert (full["measured_entries"], full["encrypted_entries"]) == (10, 100)
    order = [line.split(", ")[1].split(":")[0] for line in capsys.readouterr().err.splitlines()]
    assert order == [*contenders, *2 * ["published sparse", "fast"]]


def test_what_a_library_prints_is_kept_from_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    with update.no_output():
        os.write(1, b"advice")
    os.write(1, b"figures")
    assert capfd.readouterr().out == "figures"


@pytest.mark.secure
@pytest.mark.parametrize(("noise_prediction", "ciphertexts"), [("plaintext", 2), ("encrypted", 4)])
def test_hefw_does_the_same_update_between_two_parties(noise_prediction: str, ciphertexts: int) -> None:
    *warm_up, last = ways.updates(ways.WARM_UP + 1)
    step = ways.Hefw("full", noise_prediction, warm_up)(last)
    np.testing.assert_allclose(step.latent, last.expected, atol=1e-3)
    assert np.abs(step.latent - last.expected).max() > 1e-12  # it was encrypted
    assert tuple(step.seconds) == PARTS
    assert min(step.seconds.values()) > 0
    assert (step.encrypted_elements, step.ciphertexts, step.extrapolated) == (last.latent.size, ciphertexts, False)
