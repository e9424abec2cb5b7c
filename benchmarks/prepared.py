"""What benchmarks run: the backends that can be used here, and programs that are ready to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw import plugins
from hefw.backends.choose import make
from hefw.core.backend import Backend, Evaluator, KeyHolder, KeyManifest
from hefw.core.graph import Graph, Input, features
from hefw.core.lower import Request, lower
from hefw.core.params import CkksParams, Resolved
from hefw.testing.session import Session

Array = NDArray[np.float64]
Run = Callable[[], Any]

#: Each with its options.
BACKENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "tenseal": ("tenseal", {}),
    "tenseal, own calls": ("tenseal", {"loops": False}),
    "openfhe": ("openfhe", {}),
    "openfhe, own calls": ("openfhe", {"loops": False}),
    "pyfhel": ("pyfhel", {}),
    "simulator": ("simulator", {}),
}
#: 128 bits, five levels: what a step of `digits` takes.
PARAMS = CkksParams(16384, (59, 50, 50, 50, 50, 50), (59,), 30.0)
STEP = 16  # of the one rotation key


def params_of(backend: Backend) -> Resolved:
    """The same primes for every library, with two special ones where it takes several: OpenFHE's own calls do not do
    with one."""
    able = backend.capabilities
    count = 2 if able.special_primes > 1 else 1
    return backend.resolve(replace(PARAMS, special_bits=(able.largest_special_bits,) * count))


def backend_of(name: str) -> Backend:
    """A backend in this process, or hosted where its library works in another interpreter only.

    PluginError, with the next step, if its library is nowhere.
    """
    backend, options = BACKENDS[name]
    entry = plugins.registry().entry("backend", backend)
    return make(entry, entry.options.model_validate(options))


class Primitives:
    """A key holder and an evaluator with its keys: relinearisation, conjugation, rotations."""

    def __init__(self, backend: Backend, steps: tuple[int, ...] = (STEP,)) -> None:
        resolved = params_of(backend)
        rotations = dict.fromkeys(steps, resolved.max_level)
        self.keys: KeyHolder = backend.keygen(resolved, KeyManifest(rotations, conjugation=True))
        self.evaluator: Evaluator = backend.evaluator(resolved)
        self.evaluator.load_keys(dict(self.keys.evaluation_keys()))

    def encrypted(self, level: int) -> Any:
        """A fresh ciphertext of random values at a level."""
        return self.evaluator.load(self.as_sent(level))

    def as_sent(self, level: int) -> bytes:
        """The same in bytes."""
        values = np.random.default_rng(level).normal(size=PARAMS.slots)
        return self.keys.encrypt_bytes(values, level, 2.0**30)


def ready(graph: Graph, backend: Backend, images: int = 16, **request: Any) -> Run:
    """A step of a graph at N = 2^14, weights encoded and inputs encrypted."""
    program = lower(graph, backend, Request(ring_dimension=16384, images=images, **request))
    session = Session(program, backend)
    values = _inputs(graph, program.interface.images)
    session.begin(values)
    session.engine.weights.encode_all(session.evaluator)
    ports = program.interface.inputs
    given = {name: session.encrypt(name, values[name]) for name, port in ports.items() if not port.once}
    return lambda: session.engine.run(0, given)


def _inputs(graph: Graph, images: int) -> Mapping[str, Array]:
    rng = np.random.default_rng(0)
    return {
        name: np.eye(features(node))[np.arange(images) % features(node)]
        if node.once
        else rng.normal(size=(images, features(node)))
        for name, node in graph.nodes.items()
        if isinstance(node, Input)
    }
