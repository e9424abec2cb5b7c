"""One denoising step of 16 digits at 128 bits: hefw's engine beside two baselines, interleaved in one run.

    python -m benchmarks.step [--rounds 5] [--out step.json]

- replay: the very calls of the library, and of loops on its memory, that the engine makes, in a flat loop: what hefw
  itself costs;
- raw loop: each matrix by itself as diagonals with baby and giant steps, and a rescale after every layer;
- plain chain: hefw's own transforms (layouts, merged sources, folds), but a rescale after every layer: what the short
  modulus chain alone gains.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from operator import truediv
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.baselines import PlainChain, Replay, layers_of_graph, layers_of_program
from hefw.backends.tenseal.backend import TensealBackend
from hefw.core.graph import Affine
from hefw.core.layout import Layout
from hefw.core.lower import lower
from hefw.core.normalise import centre_squares, normalise
from hefw.core.runner import Runner
from hefw.models.digits.model import Digits
from hefw.models.plugin import DigitsOptions
from hefw.plugins import registry
from hefw.record import machine_info

IMAGES = 16
PAIRS = 8  # of hefw and its own calls, in each round
STEPS = 10


def prepare() -> tuple[Any, ...]:
    """The program, an engine ready to run, its input ciphertexts, and what the step must give."""
    model = Digits(DigitsOptions())
    graph = model.graph(model.scheduler(registry().load("scheduler", "ddim"), {}), STEPS)
    backend = TensealBackend()
    program = lower(graph, backend)
    interface = program.interface
    keys = backend.keygen(program.params, interface.keys)
    engine = Runner(program, backend.evaluator(program.params))
    for name, blob in keys.evaluation_keys():
        engine.load_keys({name: blob})
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(IMAGES, 1, 8, 8))
    inputs = model.inputs(latents, np.arange(IMAGES) % 10)
    encrypted = {}
    for name, port in interface.inputs.items():
        slots = port.layout.pack(inputs[name])
        encrypted[name] = [engine.evaluator.load(keys.encrypt_bytes(row, port.level, port.scale)) for row in slots]
    engine.begin({"label": encrypted["label"]})
    output = graph.outputs["latent"].node
    expected = graph.evaluate(0, inputs)[output]
    return model, graph, program, engine, encrypted, keys, inputs, expected


def measure(rounds: int) -> dict[str, Any]:
    """Processor seconds by contender, medians over interleaved rounds, and the ratios that are claimed."""
    _, graph, program, engine, encrypted, keys, inputs, expected = prepare()
    port = program.interface.outputs["latent"]
    n = program.params.params.ring_dimension
    flat = centre_squares(normalise(graph))
    labels = {
        node.name: (term.matrix @ inputs["label"].T).T
        for node in flat.nodes.values()
        if isinstance(node, Affine)
        for term in node.terms
        if term.source == "label"
    }

    def run() -> Any:
        return engine.run(0, {"latent": encrypted["latent"]})["latent"]

    result = run()  # encodes the weights
    replay = Replay(engine, run)
    separate, layouts = layers_of_graph(flat, labels, n // 2)
    raw = PlainChain(n, separate, layouts["latent"].pack(inputs["latent"]))
    plain = PlainChain(n, layers_of_program(program, labels), port.layout.pack(inputs["latent"]))

    def error(layout: Layout, slots: Any) -> float:
        return float(np.abs(layout.unpack(slots, IMAGES) - expected).max())

    errors = {
        "hefw": error(port.layout, np.stack([keys.decrypt(ct).real for ct in result])),
        "raw loop": error(layouts["latent"], raw()[1]),
        "plain chain": error(port.layout, plain()[1]),
    }
    seconds: dict[str, list[float]] = {"hefw": [], "replay": [], "raw loop": [], "plain chain": []}
    for _ in range(rounds):
        for _ in range(PAIRS):
            started = time.process_time()
            run()
            seconds["hefw"].append(time.process_time() - started)
            seconds["replay"].append(replay())
        seconds["raw loop"].append(raw()[0])
        seconds["plain chain"].append(plain()[0])

    def ratio(a: str, b: str) -> float:
        # Of the fastest rounds: a busy machine only ever adds time.
        return min(seconds[a]) / min(seconds[b])

    return {
        "what": f"one step of {IMAGES} digits, N = {n}, one thread, processor time",
        "rounds": rounds,
        "seconds": seconds,
        "median_seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "max_abs_error_of_update": errors,
        # A hundredth is less than what a machine varies by: each is compared with the one right after it.
        "framework_overhead": statistics.median(map(truediv, seconds["hefw"], seconds["replay"])) - 1,
        "speedup_over_raw_loop": ratio("raw loop", "hefw"),
        "speedup_over_plain_chain": ratio("plain chain", "hefw"),
        "machine": machine_info().model_dump(),
    }


def main() -> None:
    """Print the figures, and write them to a file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    figures = measure(arguments.rounds)
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
