"""OpenFHE passes the conformance kit."""

from __future__ import annotations

import pytest

from hefw.backends.openfhe.backend import OpenfheBackend
from hefw.core.params import CkksParams
from hefw.testing import BackendConformance


class TestOpenfhe(BackendConformance):
    @pytest.fixture
    def backend(self) -> OpenfheBackend:
        return OpenfheBackend()

    @pytest.fixture
    def program_params(self) -> CkksParams:
        """The kit's own have a first prime of 60 bits, for which OpenFHE takes two special primes."""
        return CkksParams(2048, (60, 50, 50, 50, 50, 50), (60, 60), 40.0, allow_insecure=True)
