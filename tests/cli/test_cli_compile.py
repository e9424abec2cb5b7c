"""`hefw compile` and `hefw inspect`: a saved UNet to a file, what is in it, and one line for whatever is wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel
from torch import nn

from hefw import cli
from hefw.core.graph import Affine, Graph, Input, LinearTerm, Output, Polynomial
from hefw.core.sparse import SparseMatrix
from hefw.inspecting import regions
from hefw.models.digits.train import BUNDLED

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A graph of one region and one square, as a file."""
    identity = SparseMatrix.diagonal(np.ones(4))
    square = np.zeros((3, 4))
    square[1:] = 1
    nodes = {
        "latent": Input("latent", (1, 2, 2)),
        "z": Affine("z", (1, 2, 2), (LinearTerm("latent", identity),), np.zeros((1, 4))),
        "a": Polynomial("a", (1, 2, 2), "z", square),
        "update": Affine("update", (1, 2, 2), (LinearTerm("a", identity),), np.zeros((1, 4))),
    }
    graph = Graph(nodes, {"latent": Output("update", np.ones(2))}, (5.0, 1.0), {"latent": np.ones((2, 4))})
    graph.save(tmp_path / "small.hefw")
    return tmp_path / "small.hefw"


def test_digits_are_compiled_and_inspected(tmp_path, capfd) -> None:
    out = tmp_path / "digits.hefw"
    assert cli.run(["compile", str(BUNDLED), "--out", str(out), "--steps", "4"]) == 0
    told = capfd.readouterr()
    assert f"wrote {out}" in told.err
    assert told.out == ""
    graph = Graph.load(out)
    assert graph.steps == 4
    assert graph.metadata["model"] == "DigitsUNet"
    assert cli.run(["inspect", str(out)]) == 0
    shown = capfd.readouterr().out
    assert "activations.0" in shown
    assert "depth 9" in shown
    assert "images a request" in shown


def test_the_saved_scheduler_is_taken_and_another_may_be_asked_for(tmp_path, capfd) -> None:
    for options in ([], ["--scheduler", "euler"], ["--scheduler", "ddim", "--option", "timestep_spacing=trailing"]):
        assert cli.run(["compile", str(BUNDLED), "--out", str(tmp_path / "m"), "--steps", "3", *options]) == 0
        capfd.readouterr()
    assert Graph.load(tmp_path / "m").timesteps[0] == 999.0


def test_all_figures_come_as_json(small, capfd) -> None:
    assert cli.run(["inspect", str(small), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert [region["kind"] for region in told["regions"]] == ["input", "affine", "polynomial of degree 2", "affine"]
    assert told["costs"]["depth"] == 3
    assert told["costs"]["key_bytes"] > 0
    assert told["digest"] == Graph.load(small).digest


def test_without_a_backend_the_regions_alone_are_listed(small, capfd) -> None:
    assert cli.run(["inspect", str(small), "--backend", "none"]) == 0
    shown = capfd.readouterr().out
    assert "depth" not in shown
    assert [region.weights for region in regions(Graph.load(small))] == [0, 4, 0, 4]


def test_a_model_that_has_no_program_says_why(small, tmp_path, capfd) -> None:
    dataclasses.replace(Graph.load(small), calibration={}).save(tmp_path / "bare")
    assert cli.run(["inspect", str(tmp_path / "bare")]) == 0
    assert "no program on simulator: the graph has no calibration inputs" in capfd.readouterr().out


def test_the_graph_is_drawn_alike_each_time(small, tmp_path, capfd) -> None:
    pictures = [tmp_path / "a.svg", tmp_path / "b.svg", tmp_path / "a.png"]
    for path in pictures:
        assert cli.run(["inspect", str(small), "--backend", "none", f"--{path.suffix[1:]}", str(path)]) == 0
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    assert "latent" in pictures[0].read_text()
    assert pictures[2].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["compile", "nowhere"], "no UNet can be loaded from 'nowhere'"),
        (["compile", "."], "no UNet can be loaded from '.'"),
        (["compile", str(BUNDLED), "--steps", "0"], "--steps 0 is not allowed"),
        (["compile", str(BUNDLED), "--out", "."], "--out '.' is a folder"),
        (["compile", str(BUNDLED), "--scheduler", "dim"], "did you mean 'ddim'"),
        (["compile", str(BUNDLED), "--scheduler", "ddpm"], "stochastic"),
        (["compile", str(BUNDLED), "--option", "clip_sample=true"], "clip_sample"),
        (["inspect", "nowhere"], "nowhere is not a readable graph file"),
        (["inspect", "{small}", "--backend", "tensela"], "did you mean 'tenseal'"),
        (["inspect", "{small}", "--precision-db", "much"], "--precision-db 'much' is not allowed"),
    ],
)
def test_bad_input_is_one_line(arguments, expected, small, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run([text.format(small=small) for text in arguments]) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert expected in error


def test_a_network_as_anyone_trains_it_is_refused_by_its_place(tmp_path, capfd) -> None:
    torch.manual_seed(0)
    net = UNet2DModel(
        8, 1, 1, block_out_channels=(4,), layers_per_block=1, norm_num_groups=2, add_attention=False,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",)
    )  # fmt: skip
    assert any(isinstance(part, nn.SiLU) for part in net.modules())
    net.save_pretrained(tmp_path / "pipeline" / "unet")
    DDIMScheduler(clip_sample=False).save_pretrained(tmp_path / "pipeline" / "scheduler")
    assert cli.run(["compile", str(tmp_path / "pipeline"), "--out", str(tmp_path / "m")]) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert "module 'down_blocks.0.resnets.0.norm1': operator 'group_norm'" in error
    assert not (tmp_path / "m").exists()
