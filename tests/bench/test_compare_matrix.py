"""`hefw compare`: what a matrix means, and one line for one that is wrong, with nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hefw import cli
from hefw.bench import matrix as matrices
from hefw.bench.expansion import Cell, expand, label, varying
from hefw.bench.schedule import jobs
from hefw.config import Config
from hefw.core.errors import ConfigError

Call = Callable[..., SimpleNamespace]


def cells(text: dict[str, Any]) -> tuple[Cell, ...]:
    return expand(matrices.parse(text))


def names(text: dict[str, Any]) -> list[str]:
    found = cells(text)
    keys = varying(found)
    return [label(cell.facts, keys) for cell in found]


# -- what it means -----------------------------------------------------------------------------------------------------


def test_lists_are_axes_and_all_else_is_the_same_in_every_cell() -> None:
    found = cells({"backends": ["tenseal", "simulator"], "models": ["digits", "mnist"], "steps": 5, "labels": "0-3"})
    assert [(cell.config.backend.name, cell.config.model.name) for cell in found] == [
        ("tenseal", "digits"),
        ("tenseal", "mnist"),
        ("simulator", "digits"),
        ("simulator", "mnist"),
    ]
    assert {cell.config.steps for cell in found} == {5}
    assert {cell.config.labels for cell in found} == {(0, 1, 2, 3)}
    assert len({cell.digest for cell in found}) == 4


def test_options_of_plugins_and_parameters_are_axes_by_their_dotted_names() -> None:
    found = cells(
        {
            "strategy": "min_distortion",
            "strategy.threshold": [0, 0.1],
            "params.precision_db": [40, 60],
            "params": {"ring_dimension": 16384},
            "params.modulus_bits": [[60, 40, 40]],
        }
    )
    assert [cell.config.strategy.options["threshold"] for cell in found] == [0, 0, 0.1, 0.1]
    assert [cell.config.params.precision_db for cell in found] == [40, 60, 40, 60]
    assert {cell.config.params.ring_dimension for cell in found} == {16384}
    assert {cell.config.params.modulus_bits for cell in found} == {(60, 40, 40)}


def test_exclude_leaves_out_and_include_adds_completed_by_single_values() -> None:
    assert names(
        {
            "backends": ["tenseal", "simulator"],
            "strategies": ["full", {"name": "random", "fraction": 0.5}],
            "steps": 2,
            "exclude": [{"backend": "simulator", "strategy": ["random"]}],
            "include": [{"backend": "openfhe", "strategy": "full", "batch": [1, 4]}],
        }
    ) == [
        "tenseal, full, digits, batch auto",
        "tenseal, random (fraction 0.5), digits, batch auto",
        "simulator, full, digits, batch auto",
        "openfhe, full, digits, batch 1",
        "openfhe, full, digits, batch 4",
    ]


def test_a_digest_is_of_the_configuration_without_seed_and_folder() -> None:
    one, other = Cell(Config(seed=1, out="a")), Cell(Config(seed=2, out="b"))
    assert one.digest == other.digest
    assert one.digest != Cell(Config(seed=1, steps=3)).digest
    assert one.digest != Cell(Config(), "published full").digest


def test_published_ways_stand_beside_once_for_each_thing_drawn() -> None:
    found = names({"strategies": ["full", "sparse"], "protocol": "update-only", "steps": [2, 4], "published": ["full"]})
    assert [name for name in found if "published" in name] == [
        "published full, digits, noise prediction plaintext, steps 2",
        "published full, digits, noise prediction plaintext, steps 4",
    ]


def test_rounds_take_every_cell_in_turn_and_go_back_and_forth() -> None:
    found = cells({"steps": [1, 2, 3]})
    order = [(job.cell.config.steps, job.seed, job.repeat) for job in jobs(found, 2, (5, 6))]
    assert order == [
        *[(steps, 5, 0) for steps in (1, 2, 3)],
        *[(steps, 6, 0) for steps in (3, 2, 1)],
        *[(steps, 5, 1) for steps in (1, 2, 3)],
        *[(steps, 6, 1) for steps in (3, 2, 1)],
    ]


@pytest.mark.parametrize("name", matrices.presets())
def test_presets_have_cells_that_are_not_the_same(name: str) -> None:
    found = expand(matrices.load(matrices.preset(name)))
    assert len(found) > 1
    assert len({cell.digest for cell in found}) == len(found)


def test_there_are_the_presets_that_the_command_names() -> None:
    assert set(matrices.presets()) == {"backends", "models", "paper", "quick", "strategies"}


# -- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["there is nothing to compare", "backends: [tenseal, openfhe]"]),
        ("repeats: 3", ["there is nothing to compare"]),
        ("[1, 2]", ["allowed: a mapping of keys to values"]),
        ("backends: [tenseal", ["is malformed", "line "]),
        ("backends: tenseal\nbackends: openfhe", ["key 'backends' is given twice"]),
        ("backend: tenseal\nbackends: [openfhe]", ["'backend' is given twice"]),
        ("backend_s: [tenseal]", ["unknown axis 'backend_s'", "did you mean 'backends'"]),
        ("params.precission_db: [40]", ["unknown axis 'params.precission_db'", "did you mean 'precision_db'"]),
        ("strategies: [full]\nstrategy.treshold: [0.1]", ["unknown axis 'strategy.treshold'", "no strategy of this"]),
        ("backends: [tensela]", ["unknown backend 'tensela'", "did you mean 'tenseal'"]),
        ("models: [{name: digits, wieghts: x}]", ["model 'digits': unknown option 'wieghts'"]),
        ("steps: [0]", ["steps: 0 is not allowed", "1 to 1000"]),
        ("steps: [2, two]", ["steps: 'two' is not allowed"]),
        ("labels: ['0-3', '9-1']", ["range '9-1' runs backwards"]),
        ("backends: []", ["backends: there is no value"]),
        ("backends: [tenseal, openfhe, tenseal]", ["backends: 'tenseal' is there twice"]),
        ("backends: [tenseal, {name: tenseal}]", ["is there twice"]),
        ("seeds: [1, 2, 1]\nsteps: [1]", ["seeds: 1 is there twice"]),
        ("seed: [1, 2]", ["'seed' cannot be an axis", "seeds: [0, 1]"]),
        ("out: here", ["'out' cannot be an axis", "--out"]),
        ("twin: [true, false]", ["'twin' cannot be an axis"]),
        ("steps: [1]\nrepeats: 0", ["repeats: 0 is not allowed", "1 to 1000"]),
        ("steps: [1]\nrepeats: true", ["repeats: True is not allowed"]),
        ("steps: [1]\nlimits: {seconds: -1}", ["limits.seconds: -1 is not allowed"]),
        ("steps: [1]\nlimits: {hours: 1}", ["unknown key 'limits.hours'", "seconds"]),
        ("steps: [1]\naudit: 1", ["audit: 1 is not allowed"]),
        ("steps: [1]\npublished: [fulll]", ["published:", "did you mean 'full'"]),
        ("steps: [1, 2]\nexclude: [{steps: 3}]", ["exclude 1 {steps: 3} leaves out no cell"]),
        ("steps: [1, 2]\nexclude: [{}]", ["exclude 1 is empty"]),
        ("steps: [1, 2]\nexclude: [{steps: [1, 2]}]", ["exclude leaves out all of 2 cells"]),
        ("steps: [1, 2]\nexclude: [{repeats: 2}]", ["exclude 1: unknown axis 'repeats'"]),
        (
            "steps: [1, 2]\nexclude: [{steps: 1}]\ninclude: [{steps: 1}]",
            ["include 1 {steps: 1}", "exclude 1 leaves out"],
        ),
        ("steps: [1, 2]\ninclude: [{steps: 2}]", ["include 1 gives a cell that the axes gave already"]),
        ("steps: [1, 2]\ninclude: [{backend: openfhe}]", ["include 1 names no steps", "1, 2"]),
        (
            f"steps: {list(range(1, 101))}\nlabels: {list(range(100))}",
            ["10,000 cells (100 steps x 100 labels) are more than 200", "--most-cells 10000"],
        ),
    ],
)
def test_a_wrong_matrix_is_one_line_and_nothing_is_written(
    call: Call, tmp_path: Path, text: str, parts: list[str]
) -> None:
    (tmp_path / "matrix.yaml").write_text(text)
    result = call("matrix.yaml", "--out", "results")
    assert result.code == 2
    assert result.out == ""
    (line,) = result.err.splitlines()
    assert line.startswith("error: matrix 'matrix.yaml'")
    for part in parts:
        assert part in line
    assert [path.name for path in tmp_path.iterdir()] == ["matrix.yaml"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ((), ["give a matrix or a preset", "quick"]),
        (("matrix.yaml", "--preset", "quick"), ["not both"]),
        (("none.yaml",), ["matrix 'none.yaml' does not exist"]),
        (("matrix.txt",), ["matrix 'matrix.txt' is of an unknown kind", ".yaml"]),
        (("--preset", "quik"), ["unknown preset 'quik'", "did you mean 'quick'"]),
        (("matrix.yaml", "--repeats", "none"), ["--repeats 'none' is not allowed"]),
        (("matrix.yaml", "--most-cells", "1"), ["2 cells (2 steps) are more than 1", "--most-cells 2"]),
        (("matrix.yaml", "--out", "file/results"), ["cannot write into 'file/results'", "'file' is a file"]),
    ],
)
def test_wrong_words_are_one_line(call: Call, tmp_path: Path, words: tuple[str, ...], parts: list[str]) -> None:
    (tmp_path / "matrix.yaml").write_text("steps: [1, 2]")
    (tmp_path / "matrix.txt").write_text("steps: [1, 2]")
    (tmp_path / "file").write_text("mine")
    result = call(*words)
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    for part in parts:
        assert part in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "matrix.txt", "matrix.yaml"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def call(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """`hefw compare` with these words, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def calling(*words: str) -> SimpleNamespace:
        capfd.readouterr()
        code = cli.run(["compare", *words])
        captured = capfd.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return calling


def test_a_matrix_of_many_cells_is_counted_before_it_is_made() -> None:
    with pytest.raises(ConfigError, match="1,000,000,000 cells"):
        matrices.parse(
            {key: list(range(1, 1001)) for key in ("steps", "batch")}
            | {"params.precision_db": [k / 20 for k in range(500, 1500)]}
        )
