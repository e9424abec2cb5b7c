"""Graphs: one file and back, and every malformed one refused by a message that names the place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from core_graphs import denoiser, identity, matrix, random_graph, samples
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from hefw.core.errors import GraphError
from hefw.core.graph import Affine, Graph, Input, LinearTerm, Output, Polynomial, Sum


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_file_keeps_digest_and_function(tmp_path_factory, seed) -> None:
    graph = random_graph(seed)
    path = tmp_path_factory.mktemp("g") / "a.graph"
    graph.save(path)
    loaded = Graph.load(path)
    assert loaded.digest == graph.digest
    x = {name: np.random.default_rng(seed).uniform(-1, 1, (2, 8)) for name in graph.inputs}
    for step in range(graph.steps):
        old, new = graph.evaluate(step, x), loaded.evaluate(step, x)
        assert old.keys() == new.keys()
        assert all(np.array_equal(old[name], new[name]) for name in old)


def test_arrays_that_are_not_contiguous_are_kept(tmp_path) -> None:
    graph = denoiser()
    region = graph.nodes["z0"]
    assert isinstance(region, Affine)
    strided = np.asfortranarray(region.bias)
    graph = replace(graph, nodes={**graph.nodes, "z0": replace(region, bias=strided)})
    graph.save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph").nodes["z0"]
    assert isinstance(loaded, Affine)
    assert np.array_equal(loaded.bias, region.bias)


def test_a_file_keeps_everything_else(tmp_path) -> None:
    graph = denoiser()
    graph.save(tmp_path / "g")
    loaded = Graph.load(tmp_path / "g")
    assert loaded.timesteps == graph.timesteps
    assert loaded.metadata == graph.metadata
    assert {n: a.tolist() for n, a in loaded.calibration.items()} == {n: a.tolist() for n, a in samples().items()}
    assert loaded.outputs["latent"].feedback == "latent"
    assert loaded.inputs == graph.inputs
    assert [p.name for p in tmp_path.iterdir()] == ["g"]


def test_the_digest_covers_weights_structure_and_schedule_but_not_metadata() -> None:
    graph = denoiser()
    node = graph.nodes["z0"]
    assert isinstance(node, Affine)
    moved = {**graph.nodes, "z0": replace(node, bias=node.bias + 1e-3)}
    others = [replace(graph, nodes=moved), replace(graph, timesteps=(9, 5, 1)), denoiser(seed=1)]
    assert len({g.digest for g in (graph, *others)}) == 4
    assert replace(graph, metadata={"x": 1}).digest == graph.digest


def test_steps_feed_back() -> None:
    graph = denoiser(steps=2)
    history = graph.trajectory(samples())
    second = {**samples(), "latent": history[0]["update"] * graph.outputs["latent"].factors[0]}
    assert np.array_equal(history[1]["update"], graph.evaluate(1, second)["update"])


def test_perturb_sees_every_value_and_changes_what_follows() -> None:
    graph = denoiser()
    seen: list[str] = []

    def zero(name: str, value: np.ndarray) -> np.ndarray:
        seen.append(name)
        return value * 0

    values = graph.evaluate(0, samples(), zero)
    assert seen == list(graph.nodes)
    assert not values["update"].any()


def test_a_missing_input_is_named() -> None:
    with pytest.raises(GraphError, match="'label' is missing; given: latent"):
        denoiser().evaluate(0, {"latent": samples()["latent"]})


def term(source: str = "x", **changes: Any) -> LinearTerm:
    return LinearTerm(source, changes.pop("matrix", identity(4)), **changes)


def affine(name: str = "z", **changes: Any) -> Affine:
    fields = {"shape": (4,), "terms": (term(),), "bias": np.zeros((1, 4))}
    return Affine(name, **{**fields, **changes})


def one(
    *nodes: Any, outputs: dict[str, Output] | None = None, timesteps: tuple[int, ...] = (5,), **extra: Any
) -> Graph:
    everything = {"x": Input("x", (4,)), **{node.name: node for node in nodes}}
    last = list(everything)[-1]
    return Graph(everything, {"o": Output(last, np.ones(1))} if outputs is None else outputs, timesteps, **extra)


def test_the_plain_case_is_a_graph() -> None:
    assert one(affine(), Polynomial("p", (4,), "z", np.ones((3, 4))), Sum("s", (4,), ("p", "z"))).steps == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: one(affine(terms=(term("later"),))), "'z' reads 'later', which does not exist before it"),
        (lambda: one(affine(bias=np.zeros((2, 4)))), r"bias of 'z' .*\(1 or 1, 4\)"),
        (lambda: one(affine(bias=np.full((1, 4), np.nan))), "bias of 'z' must be finite"),
        (lambda: one(affine(terms=(term(matrix=identity(3)),))), r"'z' on 'x' must be \(4, 4\), it is \(3, 3\)"),
        (lambda: one(affine(terms=(term(factors=np.ones(2)),))), "'x' of 'z': factors need 1"),
        (lambda: one(affine(terms=(term(factors=np.array([np.nan])),))), "'x' of 'z': factors"),
        (
            lambda: one(affine(terms=(term(matrix=matrix(np.random.default_rng(0), 4, 4), factors=np.ones(1)),))),
            "'x' of 'z': factors need 1 finite numbers and an identity matrix",
        ),
        (lambda: one(Polynomial("p", (4,), "x", np.ones((3, 5)))), "coefficients of 'p'"),
        (lambda: one(Polynomial("p", (4,), "x", np.ones((0, 4)))), "coefficients of 'p'"),
        (lambda: one(Polynomial("p", (4,), "x", np.full((3, 4), np.inf))), "coefficients of 'p' must be finite"),
        (lambda: one(Polynomial("p", (2,), "x", np.ones((3, 2)))), "'p'.*its source"),
        (lambda: one(Polynomial("p", (1, 2, 2), "x", np.ones((3, 4)))), "'p'.*its source"),
        (lambda: one(affine(shape=(2,), bias=np.zeros((1, 2)), terms=()), Sum("s", (4,), ("x", "z"))), "sum 's'"),
        (lambda: one(Sum("s", (4,), ())), "sum 's'"),
        (lambda: one(affine(shape=(-4,), terms=())), r"'z' has the shape \(-4,\)"),
        (lambda: one(affine(shape=(0,), terms=(), bias=np.zeros((1, 0)))), r"'z' has the shape \(0,\)"),
        (lambda: one(outputs={}), "at least one step and one output"),
        (lambda: one(timesteps=(), outputs={"o": Output("x", np.ones(0))}), "at least one step"),
        (lambda: one(outputs={"o": Output("y", np.ones(1))}), "output 'o' is 'y'"),
        (lambda: one(outputs={"o": Output("x", np.ones(2))}), "output 'o' needs 1 finite factors"),
        (lambda: one(outputs={"o": Output("x", np.array([np.nan]))}), "output 'o' needs 1 finite"),
        (lambda: one(outputs={"o": Output("x", np.ones(1), "z")}), "'o' feeds back into 'z'"),
        (
            lambda: one(
                affine(shape=(2,), bias=np.zeros((1, 2)), terms=()), outputs={"o": Output("z", np.ones(1), "x")}
            ),
            "'o' of 2 entries feeds back into 'x' of 4",
        ),
        (lambda: one(calibration={"y": np.ones((2, 4))}), "calibration of 'y'"),
        (lambda: one(calibration={"x": np.ones((2, 3))}), "calibration of 'x'"),
        (lambda: one(calibration={"x": np.full((2, 4), np.nan)}), "calibration of 'x'"),
        (lambda: Graph({"a": Input("b", (1,))}, {"o": Output("a", np.ones(1))}, (0,)), "'b' is filed under 'a'"),
    ],
)
def test_a_bad_graph_is_refused_by_name(make, message) -> None:
    with pytest.raises(GraphError, match=message):
        make()


# -- files --------------------------------------------------------------------------------------------------------


def structure(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with safe_open(str(path), framework="np") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        return json.loads(file.metadata()["hefw"]), tensors


def write(path: Path, found: Any, tensors: dict[str, np.ndarray]) -> Path:
    safetensors.numpy.save_file(tensors, str(path), metadata={"hefw": json.dumps(found)})
    return path


@pytest.fixture
def saved(tmp_path) -> Path:
    denoiser().save(tmp_path / "good")
    return tmp_path / "good"


def test_files_that_are_not_graphs(tmp_path, saved) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").write_bytes(b"")
    safetensors.numpy.save_file({"a": np.ones(2)}, str(tmp_path / "other"))
    for name in ("missing", "text", "empty"):
        with pytest.raises(GraphError, match=f"{name} is not a readable graph file"):
            Graph.load(tmp_path / name)
    with pytest.raises(GraphError, match=r"not a hefw graph; make one with Graph.save"):
        Graph.load(tmp_path / "other")
    with pytest.raises(GraphError, match="not a readable graph file"):
        Graph.load(tmp_path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_truncated_and_changed_files_are_refused_or_valid(tmp_path_factory, data) -> None:
    folder = tmp_path_factory.mktemp("g")
    denoiser().save(folder / "good")
    content = bytearray((folder / "good").read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / "bad").write_bytes(content)
    try:
        Graph.load(folder / "bad")  # a digit of a factor may have changed: a valid graph, of another digest
    except GraphError as error:
        assert "bad" in str(error) or "'" in str(error)  # noqa: PT017


def edits() -> list[tuple[str, Any]]:
    def edit(path: str, value: Any) -> tuple[str, Any]:
        return path, value

    return [
        edit("format", 99),
        edit("nodes", None),
        edit("nodes", {}),
        edit("nodes/0/kind", "Magic"),
        edit("nodes/0/shape", "abc"),
        edit("nodes/0/shape", [2.5]),
        edit("nodes/0/shape", [10**30]),
        edit("nodes/0/name", 7),
        edit("nodes/2/bias", "no such tensor"),
        edit("nodes/2/terms", 5),
        edit("nodes/2/terms/0/source", "nowhere"),
        edit("nodes/2/terms/0/source", "label"),
        edit("nodes/2/terms/0/rows", "z0.bias"),
        edit("nodes/2/terms/0/rows", "z0.bias.which"),
        edit("nodes/2/terms/0/weights", "z0.bias"),
        edit("nodes/2/terms/0/weights", "z0.0.rows"),
        edit("nodes/2/bias/which", "z0.0.rows"),
        edit("nodes/2/bias/columns", "output.latent"),
        edit("nodes/2/shape", [2**30, 2**30]),
        edit("nodes/2/shape", [2**26]),
        edit("outputs", []),
        edit("outputs/latent", None),
        edit("timesteps", 3),
        edit("timesteps", ["a", "b", "c"]),
        edit("calibration", []),
        edit("metadata", [1]),
    ]


@pytest.mark.parametrize(("where", "value"), edits(), ids=lambda v: str(v))
def test_malformed_structures_are_graph_errors(saved, where, value) -> None:
    found, tensors = structure(saved)
    *parents, last = where.split("/")
    place: Any = found
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place[key]
    place[int(last) if isinstance(place, list) else last] = value
    with pytest.raises(GraphError):
        Graph.load(write(saved.with_name("bad"), found, tensors))


@pytest.mark.parametrize("found", [None, [], 3, "x", {}])
def test_json_that_is_no_structure(tmp_path, found) -> None:
    with pytest.raises(GraphError, match="not a valid graph"):
        Graph.load(write(tmp_path / "bad", found, {"a": np.ones(1)}))


def test_deep_json_is_no_crash(tmp_path) -> None:
    path = tmp_path / "deep"
    safetensors.numpy.save_file({"a": np.ones(1)}, str(path), metadata={"hefw": "[" * 200_000})
    with pytest.raises(GraphError):
        Graph.load(path)


def test_tensors_of_other_types_are_refused_or_read(saved) -> None:
    found, tensors = structure(saved)
    tensors["z0.bias"] = tensors["z0.bias"].astype(np.float16)
    assert Graph.load(write(saved.with_name("half"), found, tensors)).steps == 3
    tensors["z0.bias"] = np.zeros(4, dtype=np.uint8)
    with pytest.raises(GraphError, match="bias of 'z0'"):
        Graph.load(write(saved.with_name("bad"), found, tensors))


def test_a_failed_save_leaves_nothing_behind(tmp_path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(OSError, match=r"."):
        denoiser().save(target)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_the_format_before_is_refused_with_what_to_do(saved) -> None:
    found, tensors = structure(saved)
    with pytest.raises(
        GraphError, match="graph format 1 is not supported; this hefw reads format 2: compile the model ag"
    ):
        Graph.load(write(saved.with_name("old"), {**found, "format": 1}, tensors))
