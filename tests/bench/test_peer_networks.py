"""Peers are given the networks that hefw evaluates."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
try:
    from benchmarks import runs
    from benchmarks.peers import digits
    from benchmarks.peers.nets import Network, Stack
    from benchmarks.peers.process import Worker, WorkerError
    from benchmarks.peers.regions import Regions
    from benchmarks.peers.worker import errors
finally:
    sys.path.pop(0)


def test_a_stack_is_the_torch_module() -> None:
    stack = Stack(channels=3, side=4, convolutions=3)
    images = stack.images(2)
    found = Network(stack)(torch.from_numpy(images), torch.zeros(2)).numpy()
    np.testing.assert_allclose(found, stack.reference(images), rtol=1e-12, atol=1e-12)
    assert stack.digest() == Stack(3, 4, 3).digest() != Stack(3, 4, 2).digest()


def test_digits_as_matrices_is_its_step_without_the_latents_own_term(tmp_path: Path) -> None:
    path = tmp_path / "digits.npz"
    digits.write(path, images=2)
    regions = Regions.load(path)
    assert regions.digest() == digits.regions(2).digest()
    values = {"latent": regions.inputs}
    for name, step in regions.steps.items():
        if step.square is not None:
            values[name] = values[step.square] ** 2
        else:
            values[name] = sum(values[source] @ matrix.T for source, matrix in step.terms) + step.bias
    np.testing.assert_allclose(values["update"], regions.expected, atol=1e-9)
    graph = digits.graph()
    whole = graph.evaluate(0, digits.inputs(2))[graph.outputs["latent"].node]
    own = (whole - regions.expected) / regions.inputs
    np.testing.assert_allclose(own, own.flat[0], rtol=1e-6)


def test_errors_are_those_of_arrays() -> None:
    found = errors(np.array([1.0, 2.0]), np.array([1.0, 5.0]))
    assert found["max_abs_error"] == 3
    assert found["rms_error"] == pytest.approx(np.sqrt(4.5))


WORKER = """
import sys, time
from benchmarks.peers.worker import work

class Sleeper:
    def __init__(self, images):
        self.images = int(images)
    def prepare(self):
        print("a library's own words")
        return {"images": self.images}
    def run(self):
        sum(range(3_000_000))
    def finish(self):
        return {"rms_error": 0.0}

work(Sleeper)
"""


def test_a_worker_is_measured_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    with Worker([sys.executable, "-c", WORKER, "7"]) as worker:
        assert worker.ready() == {"images": 7}
        run = worker.run()
        assert worker.end() == {"rms_error": 0.0}
    assert run.memory_bytes > 1e6
    assert run.seconds > 0


def test_a_worker_that_ends_is_told_with_its_last_words() -> None:
    with Worker([sys.executable, "-c", "raise SystemExit('no keys today')"]) as worker, pytest.raises(WorkerError) as e:
        worker.ready()
    assert "no keys today" in str(e.value)


def test_runs_are_compared_by_their_own_baselines(tmp_path: Path) -> None:
    def run(name: str, baseline: float, rotate: float) -> Path:
        items = [
            {"fullname": f"benchmarks/test_baseline.py::{runs.BASELINE}", "stats": {"median": baseline}},
            {"fullname": "benchmarks/test_primitives.py::test_rotate[stride 2]", "stats": {"median": rotate}},
        ]
        path = tmp_path / name
        path.write_text(json.dumps({"benchmarks": items}))
        return path

    table = runs.table([run("0001_a.json", 1.0, 3.0), run("0002_b.json", 2.0, 3.0)])
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert (r"test_primitives.py::test_rotate\[stride 2]", "3", "1.5", "0.50") in rows
    with pytest.raises(SystemExit, match="test_baseline"):
        runs.relative({"benchmarks": []})
