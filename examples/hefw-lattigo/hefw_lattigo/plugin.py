"""Registers the backend `lattigo`."""

from __future__ import annotations

from hefw.hookspecs import Entry, hookimpl


@hookimpl
def hefw_backends() -> list[Entry]:
    return [
        Entry(
            "lattigo",
            "hefw_lattigo.backend:LattigoBackend",
            "Lattigo through orion-v2-lattigo and orion-v2-evaluator",
            requires=("lattigo", "orion_evaluator"),
            advice="pip install hefw-lattigo",
            distribution="hefw-lattigo",
        )
    ]
