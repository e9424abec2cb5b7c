"""Hosted backends by their options alone, as another process makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hefw.backends.hosted.backend import HostedBackend


def tenseal(options: Mapping[str, Any] | None = None) -> HostedBackend:
    return HostedBackend("tenseal", "hefw.backends.tenseal.backend:TensealBackend", options)


def faulty(fault: str = "", patience: float = 60.0, **options: Any) -> HostedBackend:
    """The simulator with a fault, "PLACE FAULT"; see `hosted_faults.backend`."""
    return HostedBackend("simulator", "hosted_faults.backend:Faulty", {"fault": fault, **options}, patience=patience)
