"""Registers the backend `tenseal`."""

from __future__ import annotations

from hefw.hookspecs import BackendOptions, Entry, Install, hookimpl


@hookimpl
def hefw_backends() -> list[Entry]:
    return [
        Entry(
            "tenseal",
            "hefw.backends.tenseal.backend:TensealBackend",
            "Microsoft SEAL through tenseal.sealapi",
            options=BackendOptions,
            requires=("_sealapi_cpp",),
            advice="hefw backends install tenseal",
            distribution="tenseal",
            install=(Install(("tenseal>=0.3.16", "numba>=0.60", "zstandard>=0.22")),),
        )
    ]
