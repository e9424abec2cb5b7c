"""A generation of 32 digits at 128 bits, one image a slot in two requests beside two a slot in one, by turns.

    python -m benchmarks.pairs                        # writes results/pairs.json
    python -m benchmarks.pairs --steps 2 --out try.json

Counted is the evaluation on ciphertext, in processor time of the one thread that does it: on a core of its own that is
wall time, and it stays what it is where others use the machine. Both ways draw the same pictures; how far they are from
those in plaintext stands beside the times.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.one_core import on_one_core
from hefw.backends.tenseal.backend import TensealBackend
from hefw.core.graph import Graph
from hefw.core.lower import Request, lower
from hefw.models.digits.model import Digits
from hefw.models.plugin import DigitsOptions
from hefw.plugins import registry
from hefw.record import machine_info
from hefw.testing.session import Session, psnr

RESULTS = Path(__file__).with_name("results") / "pairs.json"
IMAGES = 32

Array = NDArray[np.float64]


class Way:
    """One program for all images, `pairs` or not, in as many requests as they take."""

    def __init__(self, graph: Graph, inputs: Mapping[str, Array], pairs: bool, precision_db: float) -> None:
        started = time.process_time()
        self.program = lower(
            graph, TensealBackend(), Request(precision_db, images=IMAGES if pairs else IMAGES // 2, pairs=pairs)
        )
        self.planned = time.process_time() - started
        size = self.program.interface.images
        self.parts = [{name: array[k : k + size] for name, array in inputs.items()} for k in range(0, IMAGES, size)]
        self.session = Session(self.program, TensealBackend())
        self.session.engine.weights.encode_all(self.session.evaluator)
        self.once = [self._encrypted(part, once=True) for part in self.parts]
        self.seconds: list[float] = []

    def step(self, number: int) -> None:
        """One step of every request, each fed back."""
        interface, spent = self.program.interface, 0.0
        for part, once in zip(self.parts, self.once, strict=True):
            if len(self.parts) > 1 or not number:
                self.session.engine.begin(once)
            often = self._encrypted(part, once=False)
            started = time.process_time()
            results = self.session.engine.run(number, often)
            spent += time.process_time() - started
            for name, port in interface.outputs.items():
                slots = np.stack([self.session.holder.decrypt(ct) for ct in results[name]])
                images = len(part["latent"])
                part[str(port.feedback)] = port.layout.unpack(slots, images) * port.factors[number]
        self.seconds.append(spent)

    def figures(self, expected: Array) -> dict[str, Any]:
        """Of all steps so far."""
        interface, params = self.program.interface, self.program.params.params
        found = np.concatenate([part["latent"] for part in self.parts])
        return {
            "images_per_request": interface.images,
            "requests": len(self.parts),
            "ring_dimension": params.ring_dimension,
            "modulus_bits": [*params.modulus_bits, *params.special_bits],
            "operations_per_request_and_step": dict(sorted(self.program.counts().items())),
            "forecast_db": round(interface.forecast_db, 1),
            "psnr_db": round(psnr(found, expected), 1),
            "seconds_per_step": [round(seconds, 3) for seconds in self.seconds],
            "seconds_per_image": round(sum(self.seconds) / IMAGES, 4),
            "planning_seconds": round(self.planned, 1),
        }

    def _encrypted(self, values: Mapping[str, Array], once: bool) -> dict[str, Any]:
        ports = self.program.interface.inputs
        return {name: self.session.encrypt(name, values[name]) for name, port in ports.items() if port.once == once}


def measure(steps: int, precision_db: float) -> dict[str, Any]:
    """Both ways, step by step in turns."""
    model = Digits(DigitsOptions())
    graph = model.graph(model.scheduler(registry().load("scheduler", "ddim"), {}), steps)
    latents = np.random.default_rng(0).normal(size=(IMAGES, *model.latent_shape))
    inputs = model.inputs(latents, np.arange(IMAGES) % model.labels)
    output = graph.outputs["latent"]
    expected = graph.trajectory(inputs)[-1][output.node] * output.factors[-1]
    ways = {"one a slot": Way(graph, inputs, False, precision_db), "two a slot": Way(graph, inputs, True, precision_db)}
    for number in range(steps):
        for way in ways.values():
            way.step(number)
    figures = {name: way.figures(expected) for name, way in ways.items()}
    return {
        "what": f"{IMAGES} digits, {steps} steps, tenseal, {precision_db:g} dB asked for, one thread; processor time",
        "ways": figures,
        "gain": figures["one a slot"]["seconds_per_image"] / figures["two a slot"]["seconds_per_image"],
        "machine": machine_info().model_dump(),
    }


def main() -> None:
    """Write the figures to a file, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--precision-db", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    on_one_core()
    text = json.dumps(measure(arguments.steps, arguments.precision_db), indent=2)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
