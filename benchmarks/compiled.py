"""UNets compiled by `hefw.compile`: sizes, compile time, memory, and one denoising step on ciphertext at 128 bits.

    python -m benchmarks.compiled                        # minutes; writes results/compiled.json
    python -m benchmarks.compiled --only "plain torch" --out try.json

Every model has a process of its own, so that its peak memory is its own; 1 thread. Seconds of processor time stand
beside those by the clock. The error of a step is that against the module in float64, of the prediction's latent.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel, UNet2DModel
from torch import nn

import hefw
from hefw.backends.tenseal.backend import TensealBackend
from hefw.core.graph import Graph
from hefw.core.lower import Request, lower
from hefw.core.memory import peak_rss_bytes
from hefw.models.compiler.trace import Network, timestep_tensor
from hefw.models.digits.train import load
from hefw.models.schedules import LinearUpdate, linear_updates
from hefw.record import machine_info, versions_info
from hefw.testing.session import Session, psnr
from hefw.testing.unets import CONDITIONAL, CONFIGURATIONS, Plain, blocks, polynomial

RESULTS = Path(__file__).with_name("results") / "compiled.json"
STEPS = 10
PRECISION_DB = 40.0
IMAGES = 4


@dataclass(frozen=True)
class Case:
    """A network, the shape of its sample, its labels, and whether a step is run on ciphertext."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int | None = None
    encrypted: bool = True


def _unet(configuration: dict[str, Any], *, encrypted: bool = True) -> Case:
    size, channels = configuration["sample_size"], configuration["in_channels"]
    shape = (channels, size, size)
    classes = configuration.get("num_class_embeds")
    return Case(lambda: polynomial(UNet2DModel(**configuration)), shape, classes, encrypted)


CASES = {
    "plain torch": Case(lambda: Plain().eval(), (2, 8, 8)),
    "plain torch, classes": Case(lambda: Plain(3).eval(), (2, 8, 8), 3),
    "UNet2DModel, one resolution": _unet(CONFIGURATIONS["one resolution"]),
    "UNet2DModel, learned time embedding": _unet(CONFIGURATIONS["learned time embedding"]),
    "UNet2DConditionModel": Case(lambda: polynomial(UNet2DConditionModel(**CONDITIONAL)), (4, 8, 8)),
    "UNet2DConditionModel, classes": Case(
        lambda: polynomial(UNet2DConditionModel(**CONDITIONAL, num_class_embeds=5)), (4, 8, 8), 5
    ),
    "digits": Case(lambda: load()[0], (1, 8, 8), 10),
    "UNet2DModel (8, 16), 8 x 8": _unet(blocks((8, 16)), encrypted=False),
    "UNet2DModel (32, 64), 8 x 8": _unet(blocks((32, 64)), encrypted=False),
    "UNet2DModel (32, 64), 16 x 16, 2 layers": _unet(
        blocks((32, 64), sample_size=16, layers_per_block=2), encrypted=False
    ),
    "UNet2DModel (64, 128), 16 x 16": _unet(blocks((64, 128), sample_size=16), encrypted=False),
}


@contextmanager
def timed(row: dict[str, Any], what: str) -> Iterator[None]:
    """Seconds by the clock and of the processor, into a row."""
    clock, processor = time.perf_counter(), time.process_time()
    yield
    row[f"{what}_seconds"] = time.perf_counter() - clock
    row[f"{what}_processor_seconds"] = time.process_time() - processor


def measure(name: str) -> dict[str, Any]:
    """The row of one model."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    case = CASES[name]
    net = case.make()
    weights = sum(4 * parameter.numel() for parameter in net.parameters())
    row: dict[str, Any] = {"model": name, "weight_bytes": weights, "before_memory_bytes": peak_rss_bytes()}
    scheduler = DDIMScheduler(clip_sample=False, prediction_type="v_prediction")
    with timed(row, "compile"):
        graph = hefw.compile(net, case.shape, scheduler=scheduler, steps=STEPS, classes=case.classes)
    row["compile_memory_bytes"] = peak_rss_bytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.hefw"
        with timed(row, "save"):
            graph.save(path)
        with timed(row, "load"):
            Graph.load(path)
        row["file_bytes"] = path.stat().st_size
    row["file_times_weights"] = row["file_bytes"] / weights
    if case.encrypted:
        network = Network(net, {}, labelled=case.classes is not None)
        row |= step(graph, network, case, linear_updates(scheduler, STEPS)[0])
    return row


def step(graph: Graph, network: Network, case: Case, update: LinearUpdate) -> dict[str, Any]:
    """One denoising step at 128 bits on tenseal, beside the module."""
    row: dict[str, Any] = {}
    backend = TensealBackend()
    with timed(row, "plan"):
        program = lower(graph, backend, Request(precision_db=PRECISION_DB))
    interface = program.interface
    params = interface.params.params
    row |= {
        "ring_dimension": params.ring_dimension,
        "modulus_bits": [*params.modulus_bits, *params.special_bits],
        "security_bits": params.security_bits,
        "levels": interface.params.max_level,
        "depth": interface.depth,
        "rotations": program.counts()["rotate"],
        "rotation_keys": len(interface.keys.rotations),
        "images_a_request": interface.batch,
    }
    rng = np.random.default_rng(0)
    images = min(IMAGES, interface.batch)
    inputs = {"latent": rng.normal(size=(images, int(np.prod(case.shape))))}
    private = []
    if case.classes is not None:
        labels = np.arange(images) % case.classes
        inputs["label"] = np.eye(case.classes)[labels]
        private.append(torch.from_numpy(labels))
    session = Session(program, backend)
    with timed(row, "begin"):
        session.begin(inputs)
    with timed(row, "first_step"):  # weights are encoded
        session.step(0, inputs)
    with timed(row, "step"):
        found = session.step(0, inputs)["latent"]
    latent = torch.from_numpy(inputs["latent"]).reshape(images, *case.shape)
    with torch.no_grad():
        predicted = network(latent, timestep_tensor(update.timestep, images), *private).numpy().reshape(images, -1)
    expected = update.predictions[0] * predicted + update.sample * inputs["latent"]
    error = found * update.predictions[0] - expected
    return row | {
        "max_error": float(np.abs(error).max()),
        "rms_error": float(np.sqrt(np.mean(error**2))),
        "rms_latent": float(np.sqrt(np.mean(expected**2))),
        "psnr_db": psnr(expected + error, expected),
        "memory_bytes": peak_rss_bytes(),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only", action="append", choices=sorted(CASES))
    parser.add_argument("--one", choices=sorted(CASES), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one)), file=sys.stderr)
        return
    rows = []
    for name in given.only or CASES:
        command = [sys.executable, "-m", "benchmarks.compiled", "--one", name]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)
        if done.returncode:
            sys.exit(f"{name}: {done.stderr}")
        rows.append(json.loads(done.stderr.strip().splitlines()[-1]))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        given.out.write_text(
            json.dumps(
                {
                    "what": "UNets compiled, and one denoising step of them on ciphertext, one thread",
                    "machine": machine_info().model_dump(),
                    "versions": versions_info(("hefw", "tenseal", "numpy", "torch", "diffusers")),
                    "rows": rows,
                },
                indent=2,
            )
            + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
