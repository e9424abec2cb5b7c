"""Registers the backend `pyfhel`."""

from __future__ import annotations

from hefw.hookspecs import BackendOptions, Entry, Install, hookimpl


@hookimpl
def hefw_backends() -> list[Entry]:
    return [
        Entry(
            "pyfhel",
            "hefw.backends.pyfhel.backend:PyfhelBackend",
            "Microsoft SEAL through Pyfhel",
            options=BackendOptions,
            requires=("Pyfhel",),
            advice="hefw backends install pyfhel",
            distribution="pyfhel",
            install=(
                Install(
                    ("pyfhel==3.5.0",),
                    environment={"CMAKE_TOOLCHAIN_FILE": "hefw.backends.pyfhel:offline.cmake"},
                    note="compiled from source, about 5 minutes; needs a C++17 compiler",
                ),
            ),
        )
    ]
