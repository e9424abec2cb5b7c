"""OpenFHE passes the conformance kit: in this process, or hosted where this interpreter cannot import it.

Once with compiled key switches, once by its own.
"""

from __future__ import annotations

import openfhe_backend
import pytest

from hefw.core.backend import Backend
from hefw.core.params import CkksParams
from hefw.testing import BackendConformance
from hefw.testing.parties import Precision


class TestOpenfhe(BackendConformance):
    @pytest.fixture
    def backend(self) -> Backend:
        return openfhe_backend.chosen()

    @pytest.fixture
    def target(self) -> str:
        return "openfhe_backend:make"


class TestOwnCalls(BackendConformance):
    #: One special prime leaves a mean of a half in each coefficient after a key switch: twice the model's noise on
    #: average, and by chance of the key up to several times that, in few slots.
    precision = Precision(noise=8.0)

    @pytest.fixture
    def backend(self) -> Backend:
        return openfhe_backend.chosen(loops=False)

    @pytest.fixture
    def target(self) -> str:
        return "openfhe_backend:make_own"

    @pytest.fixture
    def program_params(self) -> CkksParams:
        """The kit's own have a first prime of 60 bits, for which OpenFHE takes two special primes."""
        return CkksParams(2048, (60, 50, 50, 50, 50, 50), (60, 60), 40.0, allow_insecure=True)
