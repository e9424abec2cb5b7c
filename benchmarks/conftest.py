"""Fixtures of the benchmarks."""

from __future__ import annotations

import pytest

from benchmarks.prepared import BACKENDS, Primitives, backend_of
from hefw.core.backend import Backend


@pytest.fixture(scope="session", params=BACKENDS)
def primitives(request: pytest.FixtureRequest) -> Primitives:
    """Of every backend that is installed."""
    return Primitives(backend_of(request.param))


@pytest.fixture(scope="session")
def tenseal() -> Backend:
    """The backend of whatever is not measured on all."""
    return backend_of("tenseal")
