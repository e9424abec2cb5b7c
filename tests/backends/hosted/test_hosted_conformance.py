"""A backend in worker processes passes the same kit as one in this process."""

from __future__ import annotations

import hosted_backends
import pytest

from hefw.backends.hosted.backend import HostedBackend
from hefw.testing import BackendConformance

TENSEAL = hosted_backends.tenseal()


class TestTensealHosted(BackendConformance):
    @pytest.fixture
    def backend(self) -> HostedBackend:
        return TENSEAL

    @pytest.fixture
    def target(self) -> str:
        return "hosted_backends:tenseal"
