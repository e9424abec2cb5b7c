"""Programs by a cache: what was planned once need not be planned again."""

from __future__ import annotations

from collections.abc import Sequence

from hefw import cache as caching
from hefw.cache import Cache
from hefw.core import codec
from hefw.core.backend import Backend
from hefw.core.errors import LoweringError
from hefw.core.graph import Graph
from hefw.core.lower import Request, lower
from hefw.core.memory import ciphertexts_budget, weights_budget
from hefw.core.program import Program

PROGRAM, WEIGHTS = "program", "weights"


def program_of(graph: Graph, backend: Backend, request: Request, cache: Cache | None) -> Program:
    """The program of a graph, as `lower` makes it: from the cache if it was made before."""
    if cache is None:
        return lower(graph, backend, request)
    key = program_digest(graph, backend, request)
    data = cache.get(PROGRAM, key)
    if data is not None:
        try:
            program: Program = codec.decode(data, Program)
            if program.interface.graph_digest == graph.digest:
                return program
        except LoweringError:
            pass
        cache.damaged(PROGRAM, key)
    program = lower(graph, backend, request)
    cache.put(PROGRAM, key, codec.parts(program))
    return program


def program_digest(graph: Graph, backend: Backend, request: Request) -> str:
    """Of all that a program depends on: the library decides the primes; memory the layouts and images in a request."""
    provenance = backend.provenance()
    library = (backend.name, provenance.library, provenance.version, backend.capabilities)
    return caching.digest(graph.digest, request, library, weights_budget(), ciphertexts_budget())


class CachedWeights:
    """A program's encoded weights in a cache: a `WeightStore`."""

    def __init__(self, cache: Cache, graph: Graph, backend: Backend, request: Request) -> None:
        self._cache = cache
        self._key = program_digest(graph, backend, request)

    def load(self) -> codec.Buffer | None:
        """None if they are not there, or damaged."""
        return self._cache.get(WEIGHTS, self._key)

    def save(self, parts: Sequence[codec.Buffer]) -> None:
        """If they are not too large for the cache."""
        self._cache.put(WEIGHTS, self._key, parts)

    def damaged(self) -> None:
        """Drop them."""
        self._cache.damaged(WEIGHTS, self._key)
