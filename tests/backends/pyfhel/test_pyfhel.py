"""Pyfhel keeps the conventions of all backends."""

from __future__ import annotations

import pytest

from hefw.backends.pyfhel.backend import PyfhelBackend
from hefw.core.backend import Backend
from hefw.testing import BackendConformance
from hefw.testing.parties import Precision


class TestPyfhel(BackendConformance):
    # Pyfhel encrypts by a public key only. That ends in a division by a prime, whose rounding is all of a fresh
    # ciphertext's noise: on the kit's ring 3.3 times that of the symmetric encryption in the model.
    precision = Precision(noise=4.0)

    @pytest.fixture
    def backend(self) -> Backend:
        return PyfhelBackend()
