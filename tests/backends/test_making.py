"""Evaluation keys that hefw makes: what each digit hides, how it is sent, and its uniform part."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from hefw.backends.rns import making, uniform
from hefw.backends.rns.form import Form
from hefw.backends.rns.keys import read, second_part, written
from hefw.backends.rns.making import Maker
from hefw.backends.rns.switching import coefficients, residues, tables, turned
from hefw.backends.rns.uniform import SEED_BYTES, SPARE
from hefw.backends.simulator.backend import SimulatorBackend
from hefw.core.errors import EnvelopeError
from hefw.core.params import CkksParams, Resolved

N, MOST_ERROR = 1024, 20


def resolved(chain: tuple[int, ...], special: tuple[int, ...]) -> Resolved:
    return SimulatorBackend().resolve(CkksParams(N, chain, special, 30.0, allow_insecure=True))


def product(a: np.ndarray, b: np.ndarray, prime: int) -> np.ndarray:
    return (a.astype(object) * b.astype(object) % prime).astype(np.uint64)


@pytest.mark.parametrize(("chain", "special"), [((50, 45, 45, 45), (50,)), ((45,) * 5, (48, 48)), ((60, 55), (60,))])
@pytest.mark.parametrize("replaced", ["turned", "squared"])
def test_a_digit_is_a_small_error_and_what_is_replaced_times_the_special_primes(chain, special, replaced) -> None:
    params, rng = resolved(chain, special), np.random.default_rng(0)
    primes = (*params.primes, *params.special_primes)
    made = tables(primes, N)
    plain, errors = rng.integers(-1, 2, N), []

    def error() -> np.ndarray:
        errors.append(rng.integers(-MOST_ERROR, MOST_ERROR + 1, N))
        return errors[-1]

    secret = [residues(made, k, plain) for k in range(len(primes))]
    maker = Maker(params, secret[0], error)
    assert np.array_equal(maker.coefficients(secret[0]), plain)
    level = params.max_level - 1
    digits = maker.turned(5, level) if replaced == "turned" else maker.squared(level)
    form = Form(params, level)
    assert len(digits) == len(form.groups) == len(errors)
    for digit, group, drawn in zip(digits, form.groups, errors, strict=True):
        second = second_part(digit.seed, form, N)
        for row, first, other in zip(form.rows, digit.residues, second, strict=True):
            prime = primes[row]
            hidden = (first.astype(object) + product(other, secret[row], prime)) % prime
            if row in group:
                own = secret[row][turned(5, N)] if replaced == "turned" else product(secret[row], secret[row], prime)
                hidden = (hidden - own.astype(object) * math.prod(params.special_primes)) % prime
            assert np.array_equal(coefficients(made, row, hidden.astype(np.uint64)), drawn)
    assert len({digit.seed for digit in digits}) == len(digits)


def test_what_was_written_is_read_and_nothing_else() -> None:
    params = resolved((45, 45, 45), (48, 48))
    secret = residues(
        tables((*params.primes, *params.special_primes), N), 0, np.random.default_rng(0).integers(-1, 2, N)
    )
    digits = Maker(params, secret, lambda: np.zeros(N, np.int64)).turned(3, 2)
    form = Form(params, 2)
    payload = written(3, digits, form)
    for one, other in zip(digits, read("rotation/1", 3, payload, N, form), strict=True):
        assert one.seed == other.seed
        assert all(map(np.array_equal, one.residues, other.residues))
    for changed, message in (
        (payload[:3], "hold another key"),
        (written(5, digits, form), "hold another key"),
        (payload[:-1], "another length"),
        (written(3, digits, form)[:-6] + b"\xff" * 6, "no residues modulo"),
    ):
        with pytest.raises(EnvelopeError, match=message):
            read("rotation/1", 3, changed, N, form)


def test_uniform_residues_depend_on_the_seed_and_on_the_number_of_the_prime() -> None:
    primes = {0: 12289, 1: 12289, 7: 2**50 - 27}
    found = uniform.uniform(bytes(SEED_BYTES), primes, N)
    assert np.array_equal(found, uniform.uniform(bytes(SEED_BYTES), primes, N))
    assert np.array_equal(found[1:], uniform.uniform(bytes(SEED_BYTES), {1: 12289, 7: 2**50 - 27}, N))
    others = uniform.uniform(b"\1" * SEED_BYTES, primes, N)
    for row in (found[1], others[0]):
        assert np.mean(row == found[0]) < 0.01
    assert [int(row.max()) < prime for row, prime in zip(found, primes.values(), strict=True)] == [True] * 3


@pytest.mark.parametrize("modulus", [2**60 - 2**55, 2**60 - 1, 3])
def test_uniform_residues_are_equally_likely(modulus) -> None:
    """Of the first, one word in 32 is refused: more than are drawn to spare."""
    size = 2**14
    assert (2**64 % modulus) * (size + SPARE) > SPARE * 2**64 or modulus != 2**60 - 2**55
    (found,) = uniform.uniform(hashlib.sha256(b"seed").digest(), {0: modulus}, size)
    counts, _ = np.histogram(found.astype(float) / modulus, bins=3, range=(0, 1))
    assert found.dtype == np.uint64
    assert len(found) == size
    assert np.abs(counts - size / 3).max() < 4 * np.sqrt(size)


def test_seeds_come_from_the_operating_system(monkeypatch) -> None:
    params = resolved((45, 45), (48,))
    secret = residues(tables((*params.primes, *params.special_primes), N), 0, np.ones(N, np.int64))
    maker = Maker(params, secret, lambda: np.zeros(N, np.int64))
    monkeypatch.setattr(making.secrets, "token_bytes", lambda size: b"s" * size)
    assert {digit.seed for digit in maker.turned(3, 1)} == {b"s" * SEED_BYTES}
