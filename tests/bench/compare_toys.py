"""Toys that every process of a comparison finds: a plugin by an entry point, in a folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from toy_model import HalfStrategy, ToyModel, ToyScheduler

from hefw.backends.simulator.backend import SimulatorBackend
from hefw.core.backend import KeyHolder, KeyManifest
from hefw.core.graph import Graph
from hefw.core.params import Resolved
from hefw.hookspecs import Entry, hookimpl

TESTS = Path(__file__).parents[1]
ONCE = 5.0  # seconds
#: 24 cells: 3 backends x 4 strategies x 2 models, on a small insecure ring.
MATRIX = """
backends: [simulator, tenseal, {name: simulator, hosted: true}]
strategies: [full, half, {name: random, fraction: 0.5}, {name: roi, box: [0, 0, 0.5, 1]}]
models: [toy, toy-judged]
schedulers: toy
steps: 1
labels: 0-2
params: {ring_dimension: 4096, precision_db: 60}
allow_insecure: true
repeats: 1
reports: false
limits: {seconds: 60}
"""


class JudgedToy(ToyModel):
    """Whose pictures are read by their brightest corner."""

    name = "toy-judged"

    def judge(self, images: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.asarray(images.reshape(len(images), -1)[:, :3].argmax(1), dtype=np.int64)


class Stuck(ToyModel):
    """Never ends, takes 300 MB, and would remove its temporary folder at its end."""

    name = "toy-stuck"

    def graph(self, scheduler: Any, steps: int) -> Graph:
        if "hefw.bench.possible" not in sys.orig_argv:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
            if place := os.environ.get("HEFW_TEST_CHILD"):
                Path(place).write_text(str(child.pid))
            (Path(tempfile.mkdtemp()) / "model").touch()
            self.ballast = np.ones(300_000_000, dtype=np.uint8)
            time.sleep(600)
        return super().graph(scheduler, steps)


class Crashing(ToyModel):
    """Takes its whole process with it."""

    name = "toy-crashing"

    def graph(self, scheduler: Any, steps: int) -> Graph:
        if "hefw.bench.possible" not in sys.orig_argv:
            print("out of luck", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().graph(scheduler, steps)


class Impossible(ToyModel):
    """Cannot even be made."""

    def __init__(self, options: object) -> None:
        raise RuntimeError("this toy is broken")


class SlowOnce(SimulatorBackend):
    """Takes its time where it makes keys for the first time on a machine."""

    name = "toy-slow-once"

    def keygen(self, params: Resolved, manifest: KeyManifest) -> KeyHolder:
        made = Path(os.environ["HEFW_TEST_MADE"])
        if not made.exists():
            time.sleep(ONCE)
            made.touch()
        return super().keygen(params, manifest)


class Plugin:
    @hookimpl
    def hefw_backends(self) -> list[Entry]:
        return [Entry("toy-slow-once", "compare_toys:SlowOnce", "a simulator that is slow once")]

    @hookimpl
    def hefw_models(self) -> list[Entry]:
        return [
            Entry("toy", "toy_model:ToyModel", "a toy"),
            Entry("toy-judged", "compare_toys:JudgedToy", "a toy with a classifier"),
            Entry("toy-stuck", "compare_toys:Stuck", "a toy that never ends"),
            Entry("toy-crashing", "compare_toys:Crashing", "a toy that dies"),
            Entry("toy-broken", "compare_toys:Impossible", "a toy that cannot be made"),
        ]

    @hookimpl
    def hefw_schedulers(self) -> list[Entry]:
        return [Entry("toy", "toy_model:ToyScheduler", "a toy")]

    @hookimpl
    def hefw_strategies(self) -> list[Entry]:
        return [Entry("half", "toy_model:HalfStrategy", "the upper half in plaintext")]


PLUGIN = Plugin()
__all__ = ["MATRIX", "PLUGIN", "HalfStrategy", "ToyScheduler", "environment", "hefw", "start"]


def environment(folder: Path) -> dict[str, str]:
    """The variables of a process that finds the toys; writes their distribution into `folder`."""
    info = folder / "hefw_compare_toys-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hefw-compare-toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hefw]\ntoys = compare_toys:PLUGIN\n")
    places = [str(folder), str(TESTS), str(TESTS / "bench"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }


def start(words: list[str], folder: Path, variables: dict[str, str]) -> subprocess.Popen[str]:
    """`hefw` with these words in a process of its own, in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-m", "hefw", *words],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def hefw(words: list[str], folder: Path, variables: dict[str, str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the same, at its end."""
    process = start(words, folder, variables)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err
