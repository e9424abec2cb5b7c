"""`hefw quality` on the simulator: figures, file, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hefw import cli


def test_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "q.json"
    arguments = ["quality", "--samples", "60", "--steps", "5", "--encrypted", "3", "--backend", "simulator"]
    assert cli.run([*arguments, "--out", str(out)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    (plain,) = printed["plaintext"]
    assert (plain["steps"], plain["samples"], plain["diverged"]) == (5, 60, 0)
    assert plain["accuracy"] >= 0.95
    assert plain["largest_preactivation"] < 6
    assert 10 < printed["held_out_distance"] < 25
    encrypted = printed["encrypted"]
    assert encrypted["simulated"] is True
    assert encrypted["samples"] == encrypted["label_agreement_with_twin"] == 3
    assert encrypted["psnr_db"] >= 50


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--samples", "1"], "--samples 1"),
        (["--steps", "0"], "--steps 0 is not allowed"),
        (["--samples", "ten"], "--samples 'ten' is not allowed; allowed: an integer from 2"),
        (["--steps", "5,x"], "--steps 'x' is not allowed; allowed: an integer from 1 to 1000"),
        (["--encrypted", "-1"], "--encrypted -1"),
        (["--backend", "tensela"], "did you mean 'tenseal'"),
        (["missing.yaml"], "does not exist"),
        (["--out", "/proc/nowhere/q.json"], "/proc/nowhere"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["quality", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert part in error
    assert "\n" not in error
