"""The conformance kit, and what it does not ask: threads, forks, real parameters."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hefw.core.backend import Backend, KeyManifest
from hefw.core.errors import CapabilityError, ParameterError
from hefw.core.params import CkksParams
from hefw.testing import BackendConformance
from hefw.testing.parties import Parties, make_parties, small_params

from hefw_lattigo import residues
from hefw_lattigo.backend import LattigoBackend


class TestLattigo(BackendConformance):
    @pytest.fixture
    def backend(self) -> Backend:
        return LattigoBackend()


@pytest.fixture(scope="module")
def parties() -> Parties:
    backend = LattigoBackend()
    return make_parties(backend, small_params(backend.capabilities), TestLattigo.precision)


def test_products_of_residues_are_exact() -> None:
    rng, primes = np.random.default_rng(0), residues.column([2**61 - 1, 2**60 - 93, 2**30 + 3, 786433])
    edges = np.stack([[0, 1, p - 1, p // 2, p // 2 + 1] for p in primes[:, 0]])
    many = np.concatenate([edges, rng.integers(0, primes, size=(4, 20000))], axis=1)
    a, b = rng.permuted(many, axis=1), rng.permuted(many, axis=1)
    expected = a.astype(object) * b.astype(object) % primes.astype(object)
    assert (residues.multiply(a, b, primes) == expected).all()
    summed = residues.dot([(a, b)] * 300, primes)
    assert (summed == 300 * expected % primes.astype(object)).all()
    assert (residues.multiply(edges, edges, primes) == edges.astype(object) ** 2 % primes.astype(object)).all()


def test_threads_share_an_evaluator(parties: Parties) -> None:
    evaluator, ct = parties.evaluator, parties.encrypt(parties.x)
    with ThreadPoolExecutor(4) as threads:
        turned = list(threads.map(lambda step: evaluator.rotate(evaluator.square(ct), step), [1, 5] * 8))
    for step, found in zip([1, 5] * 8, turned, strict=True):
        assert parties.error(found, np.roll(parties.x, -step) ** 2) < parties.precision.worst


def test_a_forked_child_is_refused_by_name(parties: Parties) -> None:
    ct = parties.encrypt(parties.x)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            parties.evaluator.rotate(ct, 1)
        except CapabilityError as error:
            os._exit(0 if "'lattigo' cannot be used in a process that was forked" in str(error) else 2)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("special_bits", [(60, 60), (30,)])
def test_special_primes_that_lattigo_is_not_given(special_bits: tuple[int, ...]) -> None:
    params = CkksParams(8192, (50, 40), special_bits, 40.0)
    with pytest.raises(ParameterError, match="lattigo takes one special prime, at least as large as the others"):
        LattigoBackend().resolve(params)


@pytest.mark.parametrize("ring_dimension", [16384, 65536])
def test_a_square_and_a_rotation_at_128_bits(ring_dimension: int) -> None:
    backend = LattigoBackend()
    params = backend.resolve(CkksParams(ring_dimension, (60, 40, 40), (60,), 40.0))
    assert params.params.security_bits >= 128
    holder, evaluator = backend.keygen(params, KeyManifest({3: 2})), backend.evaluator(params)
    evaluator.load_keys(dict(holder.evaluation_keys()))
    x = np.random.default_rng(0).uniform(-1, 1, params.slots)
    ct = evaluator.load(holder.encrypt_bytes(x, params.max_level, 2.0**40))
    ct = evaluator.rotate(evaluator.rescale(evaluator.square(ct)), 3)
    assert np.abs(holder.decrypt_bytes(evaluator.dump(ct)) - np.roll(x, -3) ** 2).max() < 1e-6
