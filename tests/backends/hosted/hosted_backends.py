"""Hosted backends by their options alone, as another process makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hefw import environments
from hefw.backends.hosted.backend import HostedBackend


def tenseal(options: Mapping[str, Any] | None = None) -> HostedBackend:
    return HostedBackend("tenseal", "hefw.backends.tenseal.backend:TensealBackend", options)


def openfhe(options: Mapping[str, Any] | None = None) -> HostedBackend:
    """Under the interpreter of its managed environment."""
    found = environments.find("openfhe")
    assert found is not None, "openfhe has no managed environment; run: hefw backends install openfhe"
    return HostedBackend("openfhe", "hefw.backends.openfhe.backend:OpenfheBackend", options, (str(found.python),))
