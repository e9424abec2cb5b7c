"""Registers the backend `openfhe`."""

from __future__ import annotations

from hefw.hookspecs import Entry, hookimpl


@hookimpl
def hefw_backends() -> list[Entry]:
    return [
        Entry(
            "openfhe",
            "hefw.backends.openfhe.backend:OpenfheBackend",
            "OpenFHE: hoisted rotations, several special primes, bootstrapping",
            requires=("openfhe",),
            advice="hefw backends install openfhe",
            distribution="openfhe",
        )
    ]
