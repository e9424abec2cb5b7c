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

#: SEAL-like libraries, the fastest first.
BACKENDS = ("tenseal", "openfhe", "pyfhel", "simulator")
#: 128 bits, five levels: what a step of `digits` takes. OpenFHE switches keys with two special primes at least.
PARAMS = CkksParams(16384, (60, 50, 50, 50, 50, 50), (60,), 30.0)
SPECIAL_BITS = (60, 60)
STEP = 16  # of the one rotation key


def params_of(backend: Backend) -> Resolved:
    """The same primes for every library, as its key switching takes them."""
    several = backend.capabilities.special_primes > 1
    return backend.resolve(replace(PARAMS, special_bits=SPECIAL_BITS) if several else PARAMS)


def backend_of(name: str) -> Backend:
    """A backend in this process, or hosted where its library works in another interpreter only.

    PluginError, with the next step, if its library is nowhere.
    """
    entry = plugins.registry().entry("backend", name)
    return make(entry, entry.options())


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
