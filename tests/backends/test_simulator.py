"""The simulator's primes are those that a library would take."""

from __future__ import annotations

import pytest

from hefw.backends.simulator.backend import SimulatorBackend
from hefw.core.errors import ParameterError
from hefw.core.params import CkksParams


def test_primes_are_distinct_ntt_primes_of_their_sizes() -> None:
    params = SimulatorBackend().resolve(CkksParams(4096, (40, 30, 30, 30), (60,), 30.0, allow_insecure=True))
    primes = (*params.primes, *params.special_primes)
    assert len(set(primes)) == 5
    for prime, bits in zip(primes, (40, 30, 30, 30, 60), strict=True):
        assert prime % (2 * 4096) == 1
        assert prime.bit_length() == bits


def test_primes_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ParameterError, match="20 bits"):
        SimulatorBackend().resolve(CkksParams(32768, (20,) * 12, (20,), 15.0, allow_insecure=True))
