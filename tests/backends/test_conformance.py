"""Our own backends keep the same conventions as a stranger's, by the same tests."""

from __future__ import annotations

import pytest

from hefw.backends.simulator.backend import SimulatorBackend
from hefw.backends.tenseal.backend import TensealBackend
from hefw.backends.tenseal.plugin import TensealOptions
from hefw.core.backend import Backend
from hefw.testing import BackendConformance


class TestSimulator(BackendConformance):
    @pytest.fixture
    def backend(self) -> Backend:
        return SimulatorBackend()


class TestTenseal(BackendConformance):
    @pytest.fixture
    def backend(self) -> Backend:
        return TensealBackend()


class TestTensealOwnCalls(BackendConformance):
    @pytest.fixture
    def backend(self) -> Backend:
        return TensealBackend(TensealOptions(loops=False))
