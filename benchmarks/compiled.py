"""UNets compiled by `hefw.compile`: sizes, compile time, memory, and one denoising step on ciphertext at 128 bits.

    python -m benchmarks.compiled                        # half an hour; writes results/compiled.json
    python -m benchmarks.compiled --only "plain torch"   # this row anew; the others stay

Every model has a process of its own, so that its peak memory is its own; 1 thread. Seconds of processor time stand
beside those by the clock. The error of a step is that against the compiled module in float64, of the prediction's
latent; weights are random. Networks that `convert` made have a limit of levels, within which their activations are
quadratics and beyond which they are linear; where there is none, every activation is a quadratic. Models that hefw
ships are compiled and saved only: benchmarks/models.py has what they cost on ciphertext.
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
from hefw.config import Config
from hefw.core.files import write_atomically
from hefw.core.graph import Graph
from hefw.core.lower import Request, lower
from hefw.core.memory import peak_rss_bytes
from hefw.models.compiler.trace import Network, timestep_tensor
from hefw.models.convert import Distillation, convert
from hefw.models.schedules import LinearUpdate, linear_updates
from hefw.quality.subject import subject
from hefw.record import machine_info, versions_info
from hefw.testing.session import Session, psnr
from hefw.testing.unets import CONDITIONAL, CONFIGURATIONS, RESNET_DOWN, RESNET_UP, Plain, blocks, polynomial

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
    """All activations quadratic, norms static."""
    return Case(lambda: polynomial(UNet2DModel(**configuration)), *_sizes(configuration), encrypted)


def _converted(
    configuration: dict[str, Any], levels: int, kind: Any = UNet2DModel, attention: str | None = None
) -> Case:
    """SiLU, group normalisation and attention as diffusers has them, converted for so many levels; not distilled."""

    def make() -> nn.Module:
        net = kind(**configuration).eval()
        how = Distillation(iterations=0)
        return convert(
            net, scheduler=_scheduler(), steps=STEPS, levels=levels, attention=attention, distillation=how
        ).eval()

    return Case(make, *_sizes(configuration))


def _sizes(configuration: dict[str, Any]) -> tuple[tuple[int, ...], int | None]:
    size = configuration["sample_size"]
    return (configuration["in_channels"], size, size), configuration.get("num_class_embeds")


def _scheduler() -> DDIMScheduler:
    return DDIMScheduler(clip_sample=False, prediction_type="v_prediction")


CASES = {
    "plain torch": Case(lambda: Plain().eval(), (2, 8, 8)),
    "plain torch, classes": Case(lambda: Plain(3).eval(), (2, 8, 8), 3),
    "UNet2DModel, one resolution": _unet(CONFIGURATIONS["one resolution"]),
    "UNet2DModel, learned time embedding": _unet(CONFIGURATIONS["learned time embedding"]),
    "UNet2DModel, two resolutions, 9 levels": _converted(blocks((8, 16)), 9),
    "UNet2DModel, three resolutions, 9 levels": _converted(blocks((4, 4, 8)), 9),
    "UNet2DModel, resnet blocks, 9 levels": _converted(blocks((4, 8), RESNET_DOWN, RESNET_UP), 9),
    "UNet2DModel, resnet down- and up-sampling, classes, 11 levels": _converted(
        blocks((4, 8), downsample_type="resnet", upsample_type="resnet", num_class_embeds=5), 11
    ),
    "UNet2DModel, attention by its mean, 9 levels": _converted(
        blocks((4,), add_attention=True, attention_head_dim=4), 9, attention="mean"
    ),
    "UNet2DModel of 4 x 4, attention by a linear kernel, 9 levels": _converted(
        blocks((4,), sample_size=4, add_attention=True, attention_head_dim=4), 9, attention="linear kernel"
    ),
    "UNet2DConditionModel": Case(lambda: polynomial(UNet2DConditionModel(**CONDITIONAL)), (4, 8, 8)),
    "UNet2DConditionModel, classes, 9 levels": _converted(
        CONDITIONAL | {"num_class_embeds": 5}, 9, UNet2DConditionModel
    ),
    "UNet2DModel (8, 16), 8 x 8": _unet(blocks((8, 16)), encrypted=False),
    "UNet2DModel (32, 64), 8 x 8": _unet(blocks((32, 64)), encrypted=False),
    "UNet2DModel (32, 64), 16 x 16, 2 layers": _unet(
        blocks((32, 64), sample_size=16, layers_per_block=2), encrypted=False
    ),
    "UNet2DModel (64, 128), 16 x 16": _unet(blocks((64, 128), sample_size=16), encrypted=False),
}

#: Models that hefw ships, by the configuration that chooses them.
SHIPPED = {
    **{
        f"`{name}`": Config(model=name)
        for name in (
            "digits",
            "digits-attention",
            "digits-distilled",
            "digits-shallow",
            "mnist",
            "mnist-2step",
            "mnist-large",
            "mnist-text",
        )
    },
    **{
        f"`digits-silu`, {levels} levels": Config(model={"name": "digits-silu", "levels": levels}) for levels in (9, 19)
    },
}
ALL = [*CASES, *SHIPPED]


@contextmanager
def timed(row: dict[str, Any], what: str) -> Iterator[None]:
    """Seconds by the clock and of the processor, into a row."""
    clock, processor = time.perf_counter(), time.process_time()
    yield
    row[f"{what}_seconds"] = time.perf_counter() - clock
    row[f"{what}_processor_seconds"] = time.process_time() - processor


def measure(name: str) -> dict[str, Any]:
    """The row of one network."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return _shipped(name) if name in SHIPPED else _case(name, CASES[name])


def _case(name: str, case: Case) -> dict[str, Any]:
    net = case.make()
    scheduler = _scheduler()
    row: dict[str, Any] = {"model": name, "weight_bytes": _weight_bytes(net), "before_memory_bytes": peak_rss_bytes()}
    with timed(row, "compile"):
        graph = hefw.compile(net, case.shape, scheduler=scheduler, steps=STEPS, classes=case.classes)
    row |= _saved(graph, row["weight_bytes"])
    if case.encrypted:
        network = Network(net, {}, labelled=case.classes is not None)
        row |= step(graph, network, case, linear_updates(scheduler, STEPS)[0])
    return row


def _shipped(name: str) -> dict[str, Any]:
    """A model's graph, in its own number of steps, as a server gets it."""
    chosen = subject(SHIPPED[name])
    assert chosen.config.steps is not None
    model: Any = chosen.model
    weights = _weight_bytes(model.unet)
    row: dict[str, Any] = {"model": name, "weight_bytes": weights, "before_memory_bytes": peak_rss_bytes()}
    with timed(row, "compile"):
        graph = model.graph(chosen.scheduler(), chosen.config.steps)
    return row | {"shipped": True, "steps": chosen.config.steps} | _saved(graph, weights)


def _weight_bytes(net: nn.Module) -> int:
    """Of all parameters, as 32 bits each."""
    return sum(4 * parameter.numel() for parameter in net.parameters())


def _saved(graph: Graph, weights: int) -> dict[str, Any]:
    """Time and size of the file, and the most memory so far."""
    row: dict[str, Any] = {"compile_memory_bytes": peak_rss_bytes()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.hefw"
        with timed(row, "save"):
            graph.save(path)
        with timed(row, "load"):
            Graph.load(path)
        row["file_bytes"] = path.stat().st_size
    return row | {"file_times_weights": row["file_bytes"] / weights}


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


def rows(names: list[str], out: Path) -> None:
    """Measure these, each in a process of its own, and put every row into the file as soon as it is there."""
    found: dict[str, Any] = {}
    if out.exists():
        found = {row["model"]: row for row in json.loads(out.read_text(encoding="utf-8"))["rows"]}
    for name in names:
        command = [sys.executable, "-m", "benchmarks.compiled", "--one", name]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)
        if done.returncode:
            sys.exit(f"{name}: {done.stderr}")
        found[name] = json.loads(done.stderr.strip().splitlines()[-1])
        print(json.dumps(found[name]), file=sys.stderr, flush=True)
        result = {
            "what": "UNets compiled, and one denoising step of them on ciphertext with tenseal, one thread",
            "machine": machine_info().model_dump(),
            "versions": versions_info(("hefw", "tenseal", "numpy", "torch", "diffusers")),
            "rows": [found[known] for known in ALL if known in found],
        }
        write_atomically(out, (json.dumps(result, indent=2) + "\n").encode())


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only", action="append", choices=ALL, metavar="NAME", help="a row to measure anew")
    parser.add_argument("--one", choices=ALL, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one)), file=sys.stderr)
        return
    rows(given.only or ALL, given.out)


if __name__ == "__main__":
    main()
