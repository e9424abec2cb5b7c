"""Registers the backend `tenseal`."""

from __future__ import annotations

from pydantic import StrictBool

from hefw.hookspecs import BackendOptions, Entry, Install, hookimpl


class TensealOptions(BackendOptions):
    """Options of the backend `tenseal`."""

    loops: StrictBool = True  # compiled by hefw, on SEAL's memory; false: nothing but SEAL's own calls


@hookimpl
def hefw_backends() -> list[Entry]:
    return [
        Entry(
            "tenseal",
            "hefw.backends.tenseal.backend:TensealBackend",
            "Microsoft SEAL through tenseal.sealapi",
            options=TensealOptions,
            requires=("_sealapi_cpp",),
            advice="hefw backends install tenseal",
            distribution="tenseal",
            install=(Install(("tenseal>=0.3.16", "numba>=0.60", "zstandard>=0.22")),),
        )
    ]
