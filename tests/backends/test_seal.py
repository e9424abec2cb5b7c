"""What only SEAL has: its limits on parameters, its parts and transparent results, its padded lengths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hefw.backends.tenseal.backend import TensealBackend
from hefw.core.errors import EncodingError, EnvelopeError, ParameterError
from hefw.core.params import CkksParams
from hefw.testing.parties import Parties, Precision, make_parties, small_params


@pytest.fixture(scope="module")
def parties() -> Parties:
    backend = TensealBackend()
    return make_parties(backend, small_params(backend.capabilities), Precision())


def test_parameters_that_seal_lacks_are_refused(parties) -> None:
    resolve, asked = parties.backend.resolve, parties.params.params
    with pytest.raises(ParameterError, match=r"\[20, "):  # there are not so many primes of 20 bits
        resolve(CkksParams(32768, (20,) * 12, (20,), 15.0, allow_insecure=True))
    with pytest.raises(ParameterError, match=r"no ring dimension 65536; allowed: 1024, .*32768"):
        resolve(CkksParams(65536, (60,), (60,), 40.0))
    with pytest.raises(ParameterError, match="at most 4 special primes"):
        resolve(replace(asked, special_bits=(60,) * 5))
    with pytest.raises(ParameterError, match="at least as large"):
        resolve(replace(asked, special_bits=(30,)))


def test_primes_have_exactly_the_sizes_asked_for(parties) -> None:
    primes = (*parties.params.primes, *parties.params.special_primes)
    assert [prime.bit_length() for prime in primes] == [40, 30, 30, 30, 60]


def test_a_ciphertext_of_three_parts_is_not_taken(parties) -> None:
    wide = parties.evaluator.square(parties.encrypt(parties.x), relinearise=False)
    with pytest.raises(EnvelopeError, match="3 parts"):
        parties.evaluator.load(parties.evaluator.dump(wide))


def test_all_rotation_keys_have_one_length(parties) -> None:
    lengths = {len(blob) for name, blob in parties.holder.evaluation_keys() if name.startswith("rotation/")}
    assert len(lengths) == 1


def test_transparent_results_are_errors_of_hefw(parties) -> None:
    ev, a = parties.evaluator, parties.encrypt(parties.x)
    zeros = ev.encode(np.zeros(parties.slots), parties.top, parties.scale)
    for operation in (
        lambda: ev.mul_plain(a, zeros),
        lambda: ev.mul_scalar(a, 0.0, parties.scale),
        lambda: ev.multiply_accumulate([(a, zeros)]),
        lambda: ev.sub(a, a),
        lambda: ev.add(ev.negate(a), a),
        lambda: ev.add_into(ev.negate(a), a),
    ):
        with pytest.raises(EncodingError, match="transparent"):
            operation()
