"""Time per image of one denoising step of `digits` in every kind of layout, for few images and for thousands.

    python -m benchmarks.layouts    # writes results/layouts.json and docs/images/layouts.svg; 3 to 5 minutes

On tenseal at 128 bits, in one process, by one thread: seconds are that thread's processor time for a step's evaluation,
its weights encoded before as far as memory for them goes. Layouts of few ciphertexts run whole, the fastest of a few
times, and their result is compared with plaintext; so do, twice, those whose matrices are of numbers alone. Of the
others each kind of operation is measured at each level, and multiplied by how often a step has it: `measured` says
which. Fewer images than a request holds take as long as a full one.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.one_core import on_one_core
from hefw.backends.tenseal.backend import TensealBackend
from hefw.core.backend import Ciphertext, Evaluator, KeyHolder, KeyManifest
from hefw.core.graph import Graph
from hefw.core.lower import Request, lower
from hefw.core.program import LinearOp, Program, SquareOp
from hefw.core.runner import Runner, Weights
from hefw.models.digits.model import Digits
from hefw.models.plugin import DigitsOptions
from hefw.plugins import registry
from hefw.record import machine_info
from hefw.report.levels import LIGHT, style, svg

RESULTS = Path(__file__).with_name("results") / "layouts.json"
CHART = Path(__file__).parents[1] / "docs" / "images" / "layouts.svg"
IMAGES = (1, 2, 4, 16, 32, 512, 1024, 8192)
STEPS = 10
RING = 16384
#: Places for images in a ciphertext, and whether two images share each.
LAYOUTS = ((16, False), (16, True), (32, False), (32, True), (512, False), (512, True), (8192, False))
WHOLE = 64  # places up to which a step is run whole
ROUNDS = 3  # times that it is
SAMPLE = 24  # operations of a kind that are measured where it is not
Key = tuple[int, bool]


def measure() -> dict[str, Any]:
    """A row for each layout: seconds of a request, and per image for each number of images; and what was chosen."""
    model = Digits(DigitsOptions())
    graph = model.graph(model.scheduler(registry().load("scheduler", "ddim"), {}), STEPS)
    backend = TensealBackend()
    programs: dict[Key, Program] = {}
    chosen: dict[int, Key] = {}
    planning: dict[int, float] = {}
    for images in IMAGES:
        started = time.process_time()
        program = lower(graph, backend, Request(ring_dimension=RING, images=images))
        planning[images] = time.process_time() - started
        chosen[images] = (program.interface.batch, program.interface.pairs)
        programs[chosen[images]] = program
        print(f"{images} images: {_named(*chosen[images])}, planned in {planning[images]:.1f} s", file=sys.stderr)
    for places, pairs in LAYOUTS:
        if (places, pairs) not in programs:
            request = Request(ring_dimension=RING, images=places * (1 + pairs), places=places, pairs=pairs)
            programs[places, pairs] = lower(graph, backend, request)
    rows = []
    for (places, pairs), program in sorted(programs.items()):
        if places <= WHOLE:
            row = _whole(program, graph, model, backend, ROUNDS)
        elif _numeric(program):
            row = _whole(program, graph, model, backend, 2)
        else:
            row = _in_part(program, backend)
        capacity, seconds = program.interface.images, row["seconds"]
        row |= {
            "places": places,
            "pairs": pairs,
            "images": capacity,
            "modulus_bits": list(program.params.params.modulus_bits),
            "rotation_keys": len(program.interface.keys.rotations),
            "forecast_db": program.interface.forecast_db,
            "counts": dict(program.counts()),
            "seconds_per_image": {count: seconds * -(-count // capacity) / count for count in IMAGES},
        }
        rows.append(row)
        print(f"{_named(places, pairs)}: {seconds:.2f} s a request ({row['measured']})", file=sys.stderr)
    return {
        "what": f"one step of digits, N = {RING}, tenseal, one thread",
        "rows": rows,
        "chosen": {count: {"places": key[0], "pairs": key[1]} for count, key in chosen.items()},
        "planning_seconds": planning,
        "machine": machine_info().model_dump(),
    }


def _numeric(program: Program) -> bool:
    """Whether most products are of matrices of numbers: of residues, not of each ciphertext with each weight."""
    found = [stage.transform for op in program.step if isinstance(op, LinearOp) for stage in op.stages]
    numbers = sum(transform.products for transform in found if transform.numeric)
    return 2 * numbers > sum(transform.products for transform in found)


def _whole(program: Program, graph: Graph, model: Digits, backend: TensealBackend, rounds: int) -> dict[str, Any]:
    """A step as the engine runs it, the fastest of so many times, and how far it is from plaintext."""
    interface = program.interface
    keys = backend.keygen(program.params, interface.keys)
    runner = Runner(program, backend.evaluator(program.params))
    size = 0
    for name, blob in keys.evaluation_keys():
        size += len(blob)
        runner.load_keys({name: blob})
    images = interface.images
    inputs = model.inputs(np.random.default_rng(0).normal(size=(images, 1, 8, 8)), np.arange(images) % 10)
    encrypted = {
        name: [
            runner.evaluator.load(keys.encrypt_bytes(row, port.level, port.scale))
            for row in port.layout.pack(inputs[name])
        ]
        for name, port in interface.inputs.items()
    }
    runner.begin({"label": encrypted["label"]})
    runner.weights.encode_all(runner.evaluator)
    seconds = math.inf
    for _ in range(rounds):
        started = time.process_time()
        result = runner.run(0, {"latent": encrypted["latent"]})["latent"]
        seconds = min(seconds, time.process_time() - started)
    slots = np.stack([keys.decrypt(ct) for ct in result])
    expected = graph.evaluate(0, inputs)[graph.outputs["latent"].node]
    error = interface.outputs["latent"].layout.unpack(slots, images) - expected
    return {
        "measured": "whole",
        "seconds": seconds,
        "max_abs_error": float(np.abs(error).max()),
        "psnr_db": float(20 * np.log10(2 / np.sqrt(np.mean(error**2)))),
        "keys_bytes": size,
    }


def _in_part(program: Program, backend: TensealBackend) -> dict[str, Any]:
    """The sum of a step's operations, of each kind and level a few measured."""
    rotations = dict(list(program.interface.keys.rotations.items())[:1])
    manifest = KeyManifest(rotations, True, program.interface.keys.conjugation)
    keys = backend.keygen(program.params, manifest)
    evaluator = backend.evaluator(program.params)
    for name, blob in keys.evaluation_keys():
        evaluator.load_keys({name: blob})
    weights = Weights(program)
    levels: dict[int, dict[str, float]] = {}
    seconds = 0.0
    for op in program.step:
        if op.level not in levels:
            levels[op.level] = _units(evaluator, keys, op.level, next(iter(rotations), None), program.interface.pairs)
        unit, ciphertexts = levels[op.level], op.layout.ciphertexts
        seconds += op.rescales * ciphertexts * unit["rescale"]
        if isinstance(op, SquareOp):
            seconds += ciphertexts * (unit["square"] + (unit["add_plain"] if op.shift is not None else 0))
        elif isinstance(op, LinearOp):
            seconds += len(op.scalars) * ciphertexts * unit["constant"]
            seconds += 0 if op.bias is None else ciphertexts * (unit["add_plain"] + unit["encode"])
            for stage in op.stages:
                terms = [t for groups in stage.transform.outputs for group in groups for t in group.terms]
                constants = int(np.count_nonzero(stage.transform.constant[[t.weight for t in terms]]))
                seconds += constants * unit["constant"] + (len(terms) - constants) * unit["vector"]
                seconds += 0 if weights.keeps(op) else len(stage.vectors) * unit["encode"]
                seconds += len(stage.transform.rotations) * unit.get("rotate", 0.0)
    return {"measured": f"extrapolated from {SAMPLE} operations of each kind and level", "seconds": seconds}


def _units(evaluator: Evaluator, keys: KeyHolder, level: int, rotation: int | None, pairs: bool) -> dict[str, float]:
    """Seconds of each kind of operation at a level."""
    slots = evaluator.params.slots
    values = np.random.default_rng(level).uniform(-0.1, 0.1, slots)
    scale = 2.0**20

    def each(work: Callable[[], object], count: int = SAMPLE) -> float:
        started = time.process_time()
        work()
        return (time.process_time() - started) / count

    def repeated(work: Callable[[], object]) -> float:
        return each(lambda: [work() for _ in range(SAMPLE)])

    several: list[Ciphertext] = [evaluator.load(keys.encrypt_bytes(values, level, scale)) for _ in range(SAMPLE)]
    ct = several[0]
    vector = evaluator.encode(values, level, scale)
    product = evaluator.mul_plain(ct, vector)
    shift = evaluator.encode(values, level, product.scale)
    numbers = values[:SAMPLE].tolist()
    found = {
        "constant": each(
            lambda: evaluator.sum_of_products(
                (one, evaluator.encode(number, level, scale)) for one, number in zip(several, numbers, strict=True)
            )
        ),
        "vector": each(lambda: evaluator.sum_of_products((one, vector) for one in several)),
        "encode": repeated(lambda: evaluator.encode(values, level, scale)),
        "add_plain": repeated(lambda: evaluator.add_plain(product, shift)),
        "square": repeated(lambda: evaluator.square_parts(ct) if pairs else evaluator.square(ct)),
        "rescale": repeated(lambda: evaluator.rescale(product)) if level else 0.0,
    }
    if rotation is not None and level <= evaluator.keys[f"rotation/{rotation}"]:
        found["rotate"] = repeated(lambda: evaluator.rotate(ct, rotation))
    return found


def chart(figures: dict[str, Any]) -> bytes:
    """Seconds per image over the number of images: a line a layout, a ring around what was chosen."""
    with matplotlib.rc_context(style(LIGHT)):
        figure = Figure((6.4, 3.8), layout="constrained")
        axes = figure.add_subplot()
        for row in figures["rows"]:
            points = {int(count): value for count, value in row["seconds_per_image"].items()}
            dashes = "-" if row["measured"] == "whole" else "--"
            name = _named(row["places"], row["pairs"]) + ("" if dashes == "-" else " (extrapolated)")
            axes.plot(list(points), list(points.values()), dashes, marker=".", label=name)
            mine = [c for c, key in figures["chosen"].items() if (key["places"], key["pairs"]) == _key(row)]
            where = [points[int(count)] for count in mine]
            axes.plot([int(c) for c in mine], where, "o", markersize=11, markerfacecolor="none", color=LIGHT.ink)
        axes.set(xscale="log", yscale="log", xlabel="images wanted", ylabel="seconds an image and step")
        axes.grid()
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", ncols=2, frameon=False)
        return svg(figure)


def _key(row: dict[str, Any]) -> Key:
    return row["places"], row["pairs"]


def _named(places: int, pairs: bool) -> str:
    return f"{places} place{'s' if places > 1 else ''}" + (", two images each" if pairs else "")


def main() -> None:
    """Measure, and write the figures and the chart."""
    on_one_core()
    figures = json.loads(json.dumps(measure()))
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    CHART.write_bytes(chart(figures))
    print(json.dumps(figures["chosen"]))


if __name__ == "__main__":
    main()
