"""Registers the backend `openfhe`."""

from __future__ import annotations

from pydantic import StrictBool

from hefw.hookspecs import BackendOptions, Entry, Install, hookimpl


class OpenfheOptions(BackendOptions):
    """Options of the backend `openfhe`."""

    loops: StrictBool = True  # key switches compiled by hefw; false: OpenFHE's own


@hookimpl
def hefw_backends() -> list[Entry]:
    return [
        Entry(
            "openfhe",
            "hefw.backends.openfhe.backend:OpenfheBackend",
            "OpenFHE: hoisted rotations, several special primes, bootstrapping",
            options=OpenfheOptions,
            requires=("openfhe",),
            advice="hefw backends install openfhe",
            distribution="openfhe",
            install=(  # each release holds compiled code for one Python only, though pip takes it for any
                Install(("openfhe==1.6.1.0.22.4", "numba>=0.60"), python="3.10", minimum_glibc=(2, 35)),
                Install(("openfhe==1.6.1.0.24.4", "numba>=0.60"), python="3.12", minimum_glibc=(2, 38)),
            ),
        )
    ]
