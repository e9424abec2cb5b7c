"""Pyfhel keeps the conventions of all backends."""

from __future__ import annotations

import pytest

from hefw.backends.pyfhel.backend import PyfhelBackend
from hefw.core.backend import Backend
from hefw.testing import BackendConformance


class TestPyfhel(BackendConformance):
    @pytest.fixture
    def backend(self) -> Backend:
        return PyfhelBackend()
