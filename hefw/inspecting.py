"""What a compiled model is and what it costs on a backend, in numbers, without running it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hefw.core.graph import Affine, Graph, Node, Polynomial, features, sources
from hefw.core.program import Program


@dataclass(frozen=True)
class Region:
    """A node of the graph: what it reads, entries of its value for one image, and nonzero weights of its matrices."""

    name: str
    kind: str
    shape: tuple[int, ...]
    reads: tuple[str, ...]
    entries: int
    weights: int


def regions(graph: Graph) -> list[Region]:
    """All nodes in order."""
    return [
        Region(name, _kind(node), node.shape, sources(node), features(node), _weights(node))
        for name, node in graph.nodes.items()
    ]


def costs(program: Program) -> dict[str, Any]:
    """Depth, levels, operations of a step, and sizes in bytes of what a program needs."""
    interface, params = program.interface, program.params.params
    keys = interface.keys
    return {
        "backend": program.params.backend,
        "ring_dimension": params.ring_dimension,
        "modulus_bits": list(params.modulus_bits),
        "special_bits": list(params.special_bits),
        "security_bits": params.security_bits,
        "images_per_request": interface.images,
        "images_per_slot": 2 if interface.pairs else 1,
        "depth": interface.depth,
        "levels": program.params.max_level,
        "affine_regions_and_squares": interface.regions,
        "operations_per_step": dict(sorted(program.counts().items())),
        "rotations_per_step": program.counts()["rotate"],
        "rotation_keys": len(keys.rotations),
        "key_bytes": key_bytes(program),
        "weight_plaintexts": program.weight_count,
        "weight_bytes": program.weight_bytes,
        "forecast_db": round(interface.forecast_db, 1),
    }


def key_bytes(program: Program) -> int:
    """Of all evaluation keys in memory, at most: every key switch at the whole modulus, residues of 8 bytes.

    A key has two polynomials a digit, over all primes and special primes; backends send less where they compress.
    """
    params, keys = program.params.params, program.interface.keys
    primes, special = len(params.modulus_bits), len(params.special_bits)
    digits = -(-primes // special)
    count = len(keys.rotations) + keys.relinearisation + keys.conjugation
    return count * digits * 2 * (primes + special) * params.ring_dimension * 8


def record(graph: Graph, program: Program | None) -> dict[str, Any]:
    """Everything, for JSON."""
    return {
        "digest": graph.digest,
        "metadata": dict(graph.metadata),
        "steps": graph.steps,
        "timesteps": list(graph.timesteps),
        "regions": [asdict(region) for region in regions(graph)],
        "costs": None if program is None else costs(program),
    }


def _kind(node: Node) -> str:
    if isinstance(node, Polynomial):
        return f"polynomial of degree {len(node.coefficients) - 1}"
    return {"Input": "input", "Affine": "affine", "Sum": "sum"}[type(node).__name__]


def _weights(node: Node) -> int:
    return sum(term.matrix.count for term in node.terms) if isinstance(node, Affine) else 0
