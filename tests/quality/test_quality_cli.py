"""`hefw quality`: options, files, the page of all models, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from quality_toys import config

from hefw import cli
from hefw.quality import survey
from hefw.quality.run import Asked
from hefw.quality.survey import SurveyRecord


@pytest.fixture
def file(judged_toys: None, tmp_path: Path) -> str:
    """A configuration of the toy, as JSON, which is YAML."""
    path = tmp_path / "toy.yaml"
    path.write_text(json.dumps(config().to_dict()))
    return str(path)


def test_figures_go_into_a_folder_and_in_words_to_the_terminal(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found"
    arguments = [file, "--samples", "20", "--steps", "2, 3", "--simulated", "2", "--seed", "4", "--out", str(out)]
    assert cli.run(["quality", *arguments]) == 0
    record = json.loads((out / "quality.json").read_text())
    assert [(item["kind"], item["steps"]) for item in record["sets"][1:]] == [
        ("twin", 2),
        ("twin", 3),
        ("simulated", 2),
    ]
    assert record["seed"] == 4
    words = ["--samples", "20", "--steps", "2,3", "--seed", "4", "--simulated", "2", "--encrypted", "0"]
    assert record["command"].split() == ["hefw", "quality", file, *words]
    printed = capsys.readouterr()
    assert printed.out.startswith("Twin, 2 steps: of 20 pictures")
    assert f"wrote {out / 'quality.html'}" in printed.err


def test_json_goes_to_stdout_alone(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found"
    arguments = [file, "--model", "pictures", "--samples", "20", "--simulated", "0", "--json", "--out", str(out)]
    assert cli.run(["quality", *arguments]) == 0
    text = capsys.readouterr().out
    assert text == (out / "quality.json").read_text()
    assert json.loads(text)["model"] == "pictures"
    assert "--model pictures" in json.loads(text)["command"]


def test_all_models_are_judged_and_one_that_fails_is_named(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "all"
    arguments = [file, "--all", "--samples", "20", "--simulated", "0", "--out", str(out)]
    assert cli.run(["quality", *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.err.strip().splitlines()[-1] == "error: model 'broken' was not judged: no weights; make some"
    record = SurveyRecord.model_validate_json((out / "all.json").read_text())
    assert [item.model for item in record.models] == ["exploding", "pictures", "toy"]
    assert set(record.failed) == {"broken"}
    assert record.models[2].command.startswith(f"hefw quality {file} --model toy --samples 20")
    page = (out / "all.html").read_text(encoding="utf-8")
    for item in record.models:
        assert f'href="{item.model}/quality.html"' in page
        assert json.loads((out / item.model / "quality.json").read_text())["sets"]
        assert f"{item.model}: Twin, 3 steps" in printed.out
    assert "no weights; make some" in page


def test_an_interrupted_survey_leaves_whole_files_only(
    judged_toys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the second model is judged: the first has its folder, and there is no page of all."""
    calls: list[str] = []

    def interrupted(config: Any, *rest: Any, **more: Any) -> Any:
        calls.append(config.model.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(config, *rest, **more)

    whole = survey.quality
    monkeypatch.setattr(survey, "judged_models", lambda: ["toy", "pictures"])
    monkeypatch.setattr(survey, "quality", interrupted)
    with pytest.raises(KeyboardInterrupt):
        survey.survey(config(), Asked(samples=20, simulated=0), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]
    assert sorted(path.name for path in (tmp_path / "toy").iterdir()) == ["quality.html", "quality.json", "quality.png"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--samples", "1"], "--samples 1 is not allowed; allowed: an integer from 2"),
        (["--samples", "64", "--simulated", "0"], "--samples 64 is too few"),
        (["--samples", "ten"], "--samples 'ten' is not allowed; allowed: an integer from 2"),
        (["--steps", "0"], "--steps 0 is not allowed"),
        (["--steps", "5,x"], "--steps 'x' is not allowed; allowed: an integer from 1 to 1000"),
        (["--encrypted", "-1"], "--encrypted -1"),
        (["--simulated", "many"], "--simulated 'many'"),
        (["--seed", "-1"], "--seed -1"),
        (["--backend", "tensela"], "did you mean 'tenseal'"),
        (["--model", "digit"], "did you mean 'digits'"),
        (["--model", "stable-diffusion"], "stable-diffusion"),
        (["--all", "--model", "digits"], "leave one of the two out"),
        (["--backend", "simulator", "--encrypted", "2"], "backend 'simulator' encrypts nothing"),
        (["missing.yaml"], "does not exist"),
        (["--out", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["quality", *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert part in error
