"""One configuration and seed on every library at 128 bits: the same pictures, by changing one word."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import hefw
from hefw.run import Result

pytestmark = [pytest.mark.secure, pytest.mark.timeout(900)]

BACKENDS = {
    "tenseal": "tenseal",
    "openfhe": "openfhe",
    "pyfhel": "pyfhel",
    "tenseal hosted": {"name": "tenseal", "hosted": True},
}
STEPS = 2


@cache
def drawn(backend: str, refresh: str = "client") -> Result:
    precision = {"client": 60.0, "none": 40.0}[refresh]
    return hefw.generate(
        backend=BACKENDS[backend], labels="0-3", steps=STEPS, refresh=refresh, params={"precision_db": precision}
    )


def grey(result: Result) -> np.ndarray:
    return np.clip(np.rint((result.images + 1) * 127.5), 0, 255)


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_is_near_its_plaintext_twin(backend) -> None:
    record = drawn(backend).record
    assert record.params.security_bits == 128
    assert record.max_abs_error <= 1e-2
    assert record.ledger.server_plaintext_fraction == 0


def test_pictures_differ_by_two_grey_levels_at_most() -> None:
    pictures = np.stack([grey(drawn(backend)) for backend in BACKENDS])
    assert (pictures.max(axis=0) - pictures.min(axis=0)).max() <= 2


@pytest.mark.parametrize("backend", ["tenseal", "openfhe"])
def test_all_steps_from_one_message(backend) -> None:
    record = drawn(backend, "none").record
    assert record.messages == 1
    assert record.params.security_bits == 128
    assert record.psnr_db >= 40
    assert {item.operation.partition("@")[2] for item in record.trace} >= {str(k + 1) for k in range(STEPS)}


def test_the_record_says_who_did_what() -> None:
    own, hosted = drawn("tenseal").record.processes, drawn("openfhe").record.processes
    assert len({process.process for process in own}) == 2, "two parties, a process each"
    assert len({process.process for process in hosted}) == 4, "and a worker each where the library lives elsewhere"
    for processes in (own, hosted):
        assert [p.party for p in processes] == ["key holder", "key holder", "server", "server"]
    assert {p.library for p in hosted} == {"hefw", "openfhe"}
    assert {p.python.rpartition(".")[0] for p in hosted if p.library == "openfhe"} <= {"3.10", "3.12"}
