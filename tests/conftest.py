"""Makes `toy_model` importable, and the toy plugins known to `hefw.generate`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from toy_model import toy_registry

from hefw import plugins, running

os.environ["HEFW_CACHE"] = "off"  # a test depends on nothing that another one left


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry of this process has the toy model; the server's process has not, and needs none."""
    found = toy_registry()
    monkeypatch.setattr(plugins, "registry", lambda: found)
    monkeypatch.setattr(running, "registry", lambda: found)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small networks are slower on many threads."""
    import torch  # not every test needs it

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
