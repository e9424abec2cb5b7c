"""`hefw generate` as it is, with the built-in plugins: refusals of what does not go together, and runs that repeat."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hefw
from hefw import cli
from hefw.config import Config
from hefw.record import RunRecord

Call = Callable[[str], SimpleNamespace]

PROMPTS = "--model stable-diffusion --option pretrained=pipe --backend simulator"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a small pipeline like Stable Diffusion 1.x, a picture and a mask that fits no latent."""
    from hefw.testing.pipelines import tiny_pipeline

    path = tmp_path_factory.mktemp("cli")
    tiny_pipeline().save_pretrained(path / "pipe")
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(path / "sketch.png")
    Image.fromarray(np.full((7, 9), 255, np.uint8)).save(path / "mask.png")
    (path / "text.png").write_text("no picture")
    return path


@pytest.fixture
def call(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """`hefw generate` with these words."""
    monkeypatch.chdir(folder)

    def calling(words: str) -> SimpleNamespace:
        capfd.readouterr()
        code = cli.run(["generate", *shlex.split(words)])
        captured = capfd.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return calling


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        # prompts and labels
        ("--prompt 'a cat'", ["model 'digits' takes labels, not prompt", "--labels 0-9"]),
        ("--negative-prompt blurred", ["model 'digits' takes labels, not negative_prompt"]),
        ("--guidance-scale 3", ["model 'digits' takes labels, not guidance_scale"]),
        ("--strength 0.5", ["strength 0.5 is given without init_image", "--init-image FILE"]),
        (f"{PROMPTS} --prompt a --init-image sketch.png --mask m.png", ["model 'stable-diffusion' takes no mask"]),
        ("--labels 3,10", ["label 10 is not one of model 'digits'; allowed 0-9"]),
        (PROMPTS, ["model 'stable-diffusion' needs a prompt", "--prompt 'a cat'"]),
        (f"{PROMPTS} --labels 3", ["model 'stable-diffusion' takes a prompt, not labels"]),
        (f"{PROMPTS} --labels 3 --prompt 'a cat'", ["model 'stable-diffusion' takes a prompt, not labels"]),
        ("--model stable-diffusion --prompt a", ["option 'pretrained' is missing"]),
        (f"{PROMPTS} --prompt a --strength 0.5", ["strength 0.5 is given without init_image"]),
        (f"{PROMPTS} --prompt a --init-image none.png", ["init_image 'none.png' does not exist", "a picture"]),
        (f"{PROMPTS} --prompt a --init-image text.png", ["init_image 'text.png' is no picture", "PNG or JPEG"]),
        (
            f"{PROMPTS} --prompt a --init-image sketch.png --strength 0.01",
            ["strength 0.01 of 10 steps is less than one step", "at least 0.1"],
        ),
        # protocols
        (f"{PROMPTS} --prompt a --protocol end-to-end", ["has no graph", "use protocol: update-only"]),
        (f"{PROMPTS} --prompt a --refresh none", ["refresh: none is for protocol: end-to-end", "leave it out"]),
        ("--protocol update-only --refresh bootstrap", ["refresh: bootstrap is for protocol: end-to-end"]),
        ("--protocol update-only --every 2", ["refresh: every 2 is for protocol: end-to-end", "leave it out"]),
        ("--protocol update-only --batch 3", ["batch is for protocol: end-to-end", "leave it out"]),
        ("--noise-prediction plaintext", ["noise_prediction: plaintext is for protocol: update-only"]),
        # strategies
        (
            "--strategy min_distortion --option strategy.threshold=1.5",
            ["strategy 'min_distortion': option 'threshold' = 1.5 is not allowed: give a number from 0 to 1"],
        ),
        (
            "--strategy roi --option strategy.mask=mask.png",
            ["mask 'mask.png' is 7x9 (height x width), the latent 8x8", "resize the mask"],
        ),
        (
            "--protocol update-only --strategy roi --option strategy.mask=mask.png",
            ["mask 'mask.png' is 7x9 (height x width), the latent 8x8", "resize the mask"],
        ),
        # schedulers
        (
            "--scheduler ddim --option scheduler.clip_sample=true",
            ["DDIMScheduler is not linear", "(clip_sample=True)", "clip_sample=False"],
        ),
        (
            "--protocol update-only --scheduler ddim --option scheduler.thresholding=true",
            ["DDIMScheduler is not linear", "(thresholding=True)", "thresholding=False"],
        ),
        ("--scheduler ddpm", ["DDPMScheduler is stochastic", "protocol 'update-only'"]),
        ("--option scheduler.timestep_spacing=leading", ["unknown option 'timestep_spacing'", "--scheduler ddim"]),
        # what only the server's plan shows is said in the same words
        ("--refresh none --steps 30", ["30 steps a message take a modulus", "ask for fewer steps a message"]),
        ("--param ring_dimension=4096", ["do not fit a modulus that is secure at ring dimension 4096"]),
        ("--option hosted=true", ["unknown option 'hosted'", "backend 'tenseal' has 'hosted'", "backend.hosted=VALUE"]),
    ],
)
def test_what_does_not_go_together_is_one_line(call: Call, folder: Path, words: str, parts: list[str]) -> None:
    result = call(f"{words} --out refused")
    assert result.code == 2
    assert result.out == ""
    (line,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert result.err.endswith(f"{line}\n")
    assert "making keys" not in result.err
    assert not line.startswith("error: the server refused")
    for part in parts:
        assert part in line
    assert len(line) < 400
    assert not (folder / "refused").exists()


RUNS = {
    "end-to-end": "--labels 3,1 --steps 2 --backend simulator --strategy random",
    "update-only": "--protocol update-only --labels 3 --steps 4 --backend simulator --scheduler pndm --strategy sparse "
    "--noise-prediction plaintext",
    "noise": "--protocol update-only --labels 3 --steps 3 --backend simulator --scheduler ddpm --seed 5",
    "prompts": f"{PROMPTS} --prompt 'a cat on a dog' --prompt 'a red horse' --negative-prompt 'a dog' --steps 4 "
    "--guidance-scale 3 --strategy min_distortion --no-twin",
    "picture": f"{PROMPTS} --prompt 'a cat' --init-image sketch.png --strength 0.5 --steps 4 --scheduler ddim",
}


def shades(path: Path) -> np.ndarray[Any, np.dtype[np.int64]]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.int64)


@pytest.mark.parametrize("words", RUNS.values(), ids=RUNS.keys())
def test_the_command_in_the_report_repeats_the_run(call: Call, folder: Path, words: str) -> None:
    first = call(f"{words} --out first --json")
    assert first.code == 0, first.err
    record = RunRecord.model_validate_json(first.out)
    command = Config(**record.config).command()
    assert command.startswith("hefw generate ")
    kept = shades(folder / "first" / "images.png")
    assert len(np.unique(kept)) > 8
    second = call(command.removeprefix("hefw generate "))
    assert second.code == 0, second.err
    again = json.loads((folder / "first" / "run.json").read_text())
    assert again["config"] == record.config
    assert again["model"] == record.model.model_dump()
    assert np.abs(shades(folder / "first" / "images.png") - kept).max() <= 1  # noise of encryption rounds otherwise
    assert "SIMULATED" in second.err


def test_progress_of_both_parties(call: Call) -> None:
    """PLMS evaluates the network once more than there are steps, and progress counts that."""
    err = call(f"{PROMPTS} --prompt 'a cat' --steps 4 --out progress").err.splitlines()
    assert "network in plaintext 5/5, evaluation 5 of 5" in err
    assert any(line.startswith("evaluating 5/5, message 5 of 5") for line in err)
    assert "plaintext twin 5/5, evaluation 5 of 5" in err


def test_the_server_view_has_one_latent_a_message() -> None:
    """Not what a multistep scheduler sends of earlier steps besides."""
    result = hefw.generate(
        labels="3", steps=3, scheduler="dpm-solver++", backend="simulator", params={"precision_db": 40}, twin=False
    )
    names = {entry.item for entry in result.record.ledger.entries}
    assert {"latent-1", "prediction-1"} & names
    assert len(result.server_view) == result.record.messages == 3
