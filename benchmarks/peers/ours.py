"""hefw on the same networks: compiled, planned and run as ever, by an engine that takes bytes and gives bytes.

    python -m benchmarks.peers.ours BACKEND NETWORK IMAGES PRECISION_DB

NETWORK: a name of `nets.STACKS`, or `digits`.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import torch

import hefw
from benchmarks.peers import digits
from benchmarks.peers.nets import STACKS, Network
from benchmarks.peers.worker import errors, work
from hefw.backends.choose import make
from hefw.core.graph import Graph
from hefw.core.lower import Request, lower
from hefw.plugins import registry

RING_DIMENSION = 16384
CALIBRATION = 20  # images, others than those that are measured
MOST_CHECKED = 1024  # images that are decrypted


class Prediction:
    """A scheduler whose next latent is the network's prediction: nothing but the network is evaluated."""

    init_noise_sigma = 1.0

    def set_timesteps(self, count: int) -> None:
        self.timesteps = torch.arange(count)

    def scale_model_input(self, latent: torch.Tensor, timestep: Any) -> torch.Tensor:
        return latent

    def step(self, prediction: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor]:
        return (prediction,)


class Hefw:
    """Both sides in this process, but what a backend in another interpreter does there."""

    def __init__(self, backend: str, network: str, images: str, precision: str) -> None:
        registered = registry()
        entry = registered.entry("backend", backend)
        self.backend = make(entry, entry.options())
        self.network, self.asked = network, int(images)
        self.precision = float(precision)
        self.results: list[bytes] = []

    def prepare(self) -> dict[str, Any]:
        started = time.perf_counter()
        graph, digest = self._graph()
        compiled = time.perf_counter()
        request = Request(self.precision, ring_dimension=RING_DIMENSION, images=self.asked)
        self.program = program = lower(graph, self.backend, request)
        planned = time.perf_counter()
        interface = program.interface
        self.images = min(self.asked, interface.images)
        self.engine = self.backend.engine(program, threads=1)
        self.holder = self.backend.keygen(interface.params, interface.keys)
        sent = 0
        for name, blob in self.holder.evaluation_keys():
            sent += len(blob)
            self.engine.load_keys({name: blob})
        made = time.perf_counter()
        self.engine.prepare()
        encoded = time.perf_counter()
        inputs = self._inputs(graph)
        self.expected = graph.evaluate(0, {name: values[:MOST_CHECKED] for name, values in inputs.items()})
        self.output = graph.outputs["latent"].node
        encrypted = {}
        for name, port in interface.inputs.items():
            slots = port.layout.pack(inputs[name])
            encrypted[name] = [self.holder.encrypt_bytes(row, port.level, port.scale) for row in slots]
        self.latent = encrypted.pop("latent")
        self.engine.begin(encrypted)
        params = interface.params.params
        assert params.security_bits >= 128
        return {
            "images": self.images,
            "keys_bytes": sent,
            "rotation_keys": len(interface.keys.rotations),
            "upload_bytes": sum(map(len, self.latent)),
            "modulus_bits": [*params.modulus_bits, *params.special_bits],
            "compile_seconds": compiled - started,
            "plan_seconds": planned - compiled,
            "keygen_seconds": made - planned,
            "encode_seconds": encoded - made,
            "layout": f"{interface.batch} places{', two images each' if interface.pairs else ''}",
            "counts": dict(program.counts()),
            "digest": digest,
        }

    def run(self) -> None:
        self.results = self.engine.run(0, {"latent": self.latent})["latent"]

    def finish(self) -> dict[str, Any]:
        port = self.program.interface.outputs["latent"]
        slots = np.stack([self.holder.decrypt_bytes(data) for data in self.results])
        found = port.layout.unpack(slots, min(self.images, MOST_CHECKED))
        used = dict(self.engine.figures().counts)
        self.engine.close()
        return {
            "download_bytes": sum(map(len, self.results)),
            "counts_of_all_runs": used,
            **errors(found, self.expected[self.output][: len(found)]),
        }

    def _graph(self) -> tuple[Graph, str]:
        if self.network == "digits":
            return digits.graph(), digits.regions(1).digest()
        stack = STACKS[self.network]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of its trace
            graph = hefw.compile(
                Network(stack),
                stack.shape,
                scheduler=Prediction(),
                steps=1,
                calibration=stack.images(CALIBRATION, seed=2),
            )
        return graph, stack.digest()

    def _inputs(self, graph: Graph) -> dict[str, Any]:
        if self.network == "digits":
            return digits.inputs(self.images)
        return {"latent": STACKS[self.network].images(self.images).reshape(self.images, -1)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    work(Hefw)
