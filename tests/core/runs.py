"""Runs a lowered program as client and server would, in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache

import numpy as np
from core_graphs import denoiser
from numpy.typing import NDArray

from hefw.backends.simulator.backend import SimulatorBackend
from hefw.backends.tenseal.backend import TensealBackend
from hefw.core.backend import Backend, Ciphertext, KeyHolder
from hefw.core.engine import Engine, Weights
from hefw.core.graph import Graph
from hefw.core.lower import Request, lower
from hefw.core.params import CkksParams
from hefw.core.program import Program

Array = NDArray[np.float64]
BACKENDS: dict[str, Backend] = {"simulator": SimulatorBackend(), "tenseal": TensealBackend()}
SMALL = CkksParams(2048, (60, 50, 50, 50, 50, 50), (60,), 40.0, allow_insecure=True)


@cache
def small_program(backend: str = "simulator") -> Program:
    """The denoiser on a ring that is small and insecure."""
    return lower(denoiser(), BACKENDS[backend].resolve, Request(params=SMALL))


class Session:
    """A key holder and an engine with its keys."""

    def __init__(self, program: Program, backend: Backend, weights: Weights | None = None) -> None:
        interface = program.interface
        self.program = program
        self.holder: KeyHolder = backend.keygen(interface.params, interface.keys)
        self.evaluator = backend.evaluator(interface.params)
        self.engine = Engine(program, self.evaluator, weights)
        for name, blob in self.holder.evaluation_keys():
            self.engine.load_keys({name: blob})

    def encrypt(self, name: str, values: Array) -> list[Ciphertext]:
        port = self.program.interface.inputs[name]
        slots = port.layout.pack(values)
        return [self.evaluator.load(self.holder.encrypt_bytes(s, port.level, port.scale)) for s in slots]

    def begin(self, values: Mapping[str, Array]) -> None:
        ports = self.program.interface.inputs
        self.engine.begin({name: self.encrypt(name, values[name]) for name, port in ports.items() if port.once})

    def step(self, number: int, values: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of one step, before public factors."""
        interface = self.program.interface
        often = {n: self.encrypt(n, values[n]) for n, port in interface.inputs.items() if not port.once}
        results = self.engine.run(number, often)
        images = len(next(iter(values.values())))
        found = {}
        for name, port in interface.outputs.items():
            assert all((ct.level, ct.scale) == (port.level, port.scale) for ct in results[name])
            slots = [self.holder.decrypt_bytes(self.evaluator.dump(ct)).real for ct in results[name]]
            found[name] = port.layout.unpack(np.stack(slots), images)
        return found

    def trajectory(self, values: Mapping[str, Array]) -> list[dict[str, Array]]:
        """The outputs of every step, public factors applied and fed back."""
        current, history = dict(values), []
        self.begin(current)
        for number in range(self.program.interface.steps):
            found = self.step(number, current)
            for name, port in self.program.interface.outputs.items():
                found[name] = found[name] * port.factors[number]
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
    return float(20 * np.log10(2 / np.sqrt(np.mean((found - expected) ** 2))))


def difference(after: Counter[str], before: Counter[str]) -> Counter[str]:
    return Counter({k: after[k] - before[k] for k in after if after[k] != before[k]})
