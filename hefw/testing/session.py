"""Runs a lowered program as client and server would, in this process."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hefw.core.backend import Backend, Ciphertext, KeyHolder
from hefw.core.graph import Graph
from hefw.core.program import Program
from hefw.core.runner import Runner, Weights

Array = NDArray[np.float64]


class Session:
    """A key holder and an engine with its keys."""

    def __init__(self, program: Program, backend: Backend, weights: Weights | None = None) -> None:
        interface = program.interface
        self.program = program
        self.holder: KeyHolder = backend.keygen(interface.params, interface.keys)
        self.evaluator = backend.evaluator(interface.params)
        self.engine = Runner(program, self.evaluator, weights)
        for name, blob in self.holder.evaluation_keys():
            self.engine.load_keys({name: blob})

    def encrypt(self, name: str, values: Array) -> list[Ciphertext]:
        """(images, features) values as the ciphertexts of an input."""
        port = self.program.interface.inputs[name]
        slots = port.layout.pack(values)
        return [self.evaluator.load(self.holder.encrypt_bytes(s, port.level, port.scale)) for s in slots]

    def begin(self, values: Mapping[str, Array]) -> None:
        """Start a request with its once-a-request inputs."""
        ports = self.program.interface.inputs
        self.engine.begin({name: self.encrypt(name, values[name]) for name, port in ports.items() if port.once})

    def step(self, number: int, values: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs that answer one message, before public factors."""
        interface = self.program.interface
        often = {n: self.encrypt(n, values[n]) for n, port in interface.inputs.items() if not port.once}
        results = self.engine.run(number, often)
        images = len(next(iter(values.values())))
        found = {}
        for name, port in interface.outputs.items():
            assert all((ct.level, ct.scale) == (port.level, port.scale) for ct in results[name])
            slots = [self.holder.decrypt_bytes(self.evaluator.dump(ct)) for ct in results[name]]
            found[name] = port.layout.unpack(np.stack(slots), images)
        return found

    def trajectory(self, values: Mapping[str, Array]) -> list[dict[str, Array]]:
        """The outputs of every message, public factors applied and fed back."""
        current, history = dict(values), []
        self.begin(current)
        interface = self.program.interface
        for number in range(interface.messages):
            found = self.step(number, current)
            for name, port in interface.outputs.items():
                found[name] = found[name] * port.factors[interface.last_step(number)]
                if port.feedback is not None:
                    current[port.feedback] = found[name]
            history.append(found)
        return history


def plain(graph: Graph, values: Mapping[str, Array]) -> list[dict[str, Array]]:
    """What `Session.trajectory` should give."""
    return [
        {name: values[o.node] * o.factors[step] for name, o in graph.outputs.items()}
        for step, values in enumerate(graph.trajectory(values))
    ]


def psnr(found: Array, expected: Array) -> float:
    """In dB, data range 2."""
    return float(20 * np.log10(2 / np.sqrt(np.mean((found - expected) ** 2))))
