"""One denoising step of 16 digits at 128 bits: hefw's engine beside two baselines, interleaved in one run.

    python -m benchmarks.step [--rounds 5] [--out step.json]

- replay: the very library calls that the engine makes, in a flat loop: what hefw itself costs;
- plain chain: the same matrices in a raw loop with a rescale after every layer: what planning gains.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.baselines import PlainChain, Replay
from hefw.backends.tenseal.backend import TensealBackend
from hefw.core.engine import Engine
from hefw.core.lower import lower
from hefw.models.digits.model import Digits
from hefw.models.plugin import DigitsOptions
from hefw.plugins import registry
from hefw.record import machine_info

IMAGES = 16
STEPS = 10


def prepare() -> tuple[Any, ...]:
    """The program, an engine ready to run, its input ciphertexts, and what the step must give."""
    model = Digits(DigitsOptions())
    graph = model.graph(model.scheduler(registry().load("scheduler", "ddim"), {}), STEPS)
    backend = TensealBackend()
    program = lower(graph, backend.resolve)
    interface = program.interface
    keys = backend.keygen(program.params, interface.keys)
    engine = Engine(program, backend.evaluator(program.params))
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
    labels = {
        name: node_bias(graph, name, inputs["label"], program)
        for name in ("z0", "z1", "z2", "z3")
    }
    return program, engine, encrypted, keys, inputs, expected, labels


def node_bias(graph: Any, name: str, onehot: Any, program: Any) -> Any:
    """What the labels add to a region, as slots."""
    term = next(t for t in graph.nodes[name].terms if t.source == "label")
    layout = next(op.layout for op in program.step if op.name == name)
    return layout.pack((term.matrix @ onehot.T).T)


def measure(rounds: int) -> dict[str, Any]:
    """Seconds by contender, medians over interleaved rounds, and the ratios that are claimed."""
    import time

    program, engine, encrypted, keys, inputs, expected, labels = prepare()
    port = program.interface.outputs["latent"]

    def run() -> Any:
        return engine.run(0, {"latent": encrypted["latent"]})["latent"]

    result = run()  # encodes the weights
    replay = Replay(engine, run)
    plain = PlainChain(program, inputs["latent"], labels)
    errors = {
        "hefw": np.abs(port.layout.unpack(np.stack([keys.decrypt(ct).real for ct in result]), IMAGES) - expected).max(),
        "plain chain": np.abs(port.layout.unpack(plain()[1], IMAGES) - expected).max(),
    }
    seconds: dict[str, list[float]] = {"hefw": [], "replay": [], "plain chain": []}
    for _ in range(rounds):
        started = time.perf_counter()
        run()
        seconds["hefw"].append(time.perf_counter() - started)
        seconds["replay"].append(replay())
        seconds["plain chain"].append(plain()[0])
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "what": f"one step of {IMAGES} digits, N = {program.params.params.ring_dimension}, one thread",
        "rounds": rounds,
        "seconds": seconds,
        "median_seconds": medians,
        "max_abs_error_of_update": {name: float(value) for name, value in errors.items()},
        "framework_overhead": statistics.median(
            a / b - 1 for a, b in zip(seconds["hefw"], seconds["replay"], strict=True)
        ),
        "speedup_over_plain_chain": statistics.median(
            a / b for a, b in zip(seconds["plain chain"], seconds["hefw"], strict=True)
        ),
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
