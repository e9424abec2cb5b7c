"""Makes `toy_model` importable, and the toy plugins known to `hefw.generate`."""

from __future__ import annotations

import pytest
from toy_model import toy_registry

from hefw import plugins, running


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry of this process has the toy model; the server's process has not, and needs none."""
    found = toy_registry()
    monkeypatch.setattr(plugins, "registry", lambda: found)
    monkeypatch.setattr(running, "registry", lambda: found)
