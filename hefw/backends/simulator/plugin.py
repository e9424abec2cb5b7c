"""Registers the backend `simulator`."""

from __future__ import annotations

from hefw.hookspecs import BackendOptions, Entry, hookimpl


@hookimpl
def hefw_backends() -> list[Entry]:
    return [
        Entry(
            "simulator",
            "hefw.backends.simulator.backend:SimulatorBackend",
            "no encryption: levels, scales, noise and costs in numpy, for planning and fast tests",
            options=BackendOptions,
        )
    ]
