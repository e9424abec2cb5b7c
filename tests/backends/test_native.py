"""SEAL's operations by compiled loops on its own memory: its own numbers, and its own calls where that fails."""

from __future__ import annotations

import ctypes
import os
import warnings

import _sealapi_cpp as seal
import numpy as np
import pytest

from hefw.backends.rns import abi, loops
from hefw.backends.rns import threads as helpers
from hefw.backends.rns.switching import Switching, reversed_bits, tables
from hefw.backends.tenseal.backend import TensealBackend
from hefw.backends.tenseal.native import SealNative
from hefw.backends.tenseal.plugin import TensealOptions
from hefw.core.backend import Evaluator, KeyManifest
from hefw.core.errors import CapabilityError, EncodingError
from hefw.core.params import CkksParams

BACKEND = TensealBackend()
PARAMS = BACKEND.resolve(CkksParams(2048, (60, 50, 55), (60,), 30.0, allow_insecure=True))
MANIFEST = KeyManifest({1: 2, 3: 2, 5: 1}, conjugation=True)
SCALE = 2.0**40
SLOTS = 1024


@pytest.fixture(scope="module")
def holder():
    return BACKEND.keygen(PARAMS, MANIFEST)


@pytest.fixture(scope="module")
def keys(holder) -> dict[str, bytes]:
    return dict(holder.evaluation_keys())


@pytest.fixture
def evaluator(keys) -> Evaluator:
    made = BACKEND.evaluator(PARAMS)
    made.load_keys(keys)
    return made


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SLOTS)


@pytest.fixture
def slow(keys, monkeypatch) -> Evaluator:
    """One that goes on with SEAL's own calls."""
    made = BACKEND.evaluator(PARAMS)
    made.load_keys(keys)
    monkeypatch.setattr(made, "_tried", True)
    return made


def test_the_transform_is_the_value_at_each_root_and_its_inverse() -> None:
    prime, size = 12289, 1024
    made = tables((prime,), size)
    constants, roots, quotients, ends = (table[0] for table in made.arrays[:4])
    given = np.random.default_rng(0).integers(0, prime, size).astype(np.uint64)
    found = given.copy()
    loops.forward(found, roots, quotients, ends, prime)
    root, reverse = int(roots[reversed_bits(size)[1]]), reversed_bits(size)
    for place in (0, 1, 77, 1023):
        at = pow(root, 2 * int(reverse[place]) + 1, prime)
        assert int(found[place]) == sum(int(c) * pow(at, k, prime) for k, c in enumerate(given)) % prime
    inverse, inverse_quotients, inverse_ends = (table[0] for table in made.arrays[4:7])
    loops.backward(found, inverse, inverse_quotients, inverse_ends, constants)
    assert np.array_equal(found, given)


def test_relinearisation_is_seals_bit_by_bit_without_centred_digits(holder, evaluator, slow, values) -> None:
    data = holder.encrypt_bytes(values, 2, SCALE)
    wanted = slow.dump(slow.square(slow.load(data)))
    ct = evaluator.load(data)
    assert evaluator._faster(ct)
    evaluator._native.switching.centred = False
    assert evaluator.dump(evaluator.square(ct)) == wanted


@pytest.mark.parametrize("level", [0, 1, 2])
def test_products_squares_and_rescales_are_seals_bit_by_bit(holder, evaluator, slow, values, level) -> None:
    data = [holder.encrypt_bytes(values + k, level, 2.0**20) for k in range(3)]
    results = []
    for made in (evaluator, slow):
        cts = [made.load(item) for item in data]
        pairs = [(cts[k % 3], made.encode(values * k + 1, level, 2.0**20)) for k in range(20)]
        found = [made.multiply_accumulate(pairs[:count]) for count in (1, 2, 7, 8, 9, 16, 19, 20)]
        found += [made.rescale(found[-1])] if level else []
        squares = made.square(cts[0], relinearise=False).handle
        results.append([made.dump(ct) for ct in found] + [[squares[k] for k in range(0, 3 * 2048, 97)]])
    assert results[0] == results[1]


def test_rotations_sums_of_rotations_and_conjugates(holder, evaluator, values) -> None:
    x = values + 1j * values[::-1]
    ct = evaluator.load(holder.encrypt_bytes(x, 2, SCALE))
    turned = evaluator.rotate_many(ct, [3, 0, 1])
    for found, step in zip(turned, (3, 0, 1), strict=True):
        assert np.abs(holder.decrypt(found) - np.roll(x, -step)).max() < 1e-5
    assert np.abs(holder.decrypt(evaluator.conjugate(ct)) - x.conj()).max() < 1e-5
    low = evaluator.drop_level(ct, 1)
    added = evaluator.fold(low, [1, 5, 3])  # a key for level 1 and lower, too
    assert np.abs(holder.decrypt(added) - sum(np.roll(x, -k) for k in (0, 1, 3, 5))).max() < 1e-5
    assert evaluator.counts["rotate"] == 5
    assert evaluator.counts["add"] == 3
    assert not evaluator._keys  # SEAL's own are not kept beside


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_several_threads_give_the_bytes_of_one(holder, evaluator, values, threads) -> None:
    ct = evaluator.load(holder.encrypt_bytes(values, 2, 2.0**20))
    weights = [evaluator.encode(values * k + 1, 2, 2.0**20) for k in range(5)]

    def found() -> list[bytes]:
        done = [*evaluator.rotate_many(ct, [1, 3]), evaluator.fold(ct, [1, 3]), evaluator.conjugate(ct)]
        done += [evaluator.multiply_accumulate([(ct, weight) for weight in weights]), evaluator.square(ct)]
        return [evaluator.dump(each) for each in (*done, evaluator.rescale(done[-1]))]

    wanted = found()
    evaluator.threads = threads
    assert found() == wanted
    assert helpers._helpers.running
    child = os.fork()  # where the others are not
    if not child:
        os._exit(found() != wanted)
    assert os.waitpid(child, 0)[1] == 0
    assert found() == wanted


def test_a_result_that_hides_nothing_is_refused(holder, evaluator, values) -> None:
    ct = evaluator.load(holder.encrypt_bytes(values, 2, SCALE))
    one = evaluator.encode(1.0, 2, 2.0**20)
    minus = evaluator.encode(-1.0, 2, 2.0**20)
    with pytest.raises(EncodingError, match="transparent"):
        evaluator.multiply_accumulate([(ct, one), (ct, minus)])


def results(made: Evaluator, holder, values: np.ndarray) -> list[np.ndarray]:
    ct = made.load(holder.encrypt_bytes(values, 2, SCALE))
    found = [*made.rotate_many(ct, [1, 3]), made.square(ct), made.conjugate(ct)]
    return [holder.decrypt(each).real for each in found]


def check(found: list[np.ndarray], values: np.ndarray) -> None:
    wanted = [np.roll(values, -1), np.roll(values, -3), values**2, values]
    assert all(np.abs(a - b).max() < 1e-4 for a, b in zip(found, wanted, strict=True))


def test_without_numba_the_librarys_own_calls_are_used_with_a_warning(holder, evaluator, values, monkeypatch) -> None:
    monkeypatch.setattr(loops, "missing", lambda: "no module named numba")
    with pytest.warns(
        RuntimeWarning, match=r"compiled loops cannot be used \(no module named numba\): .* install tenseal"
    ):
        found = results(evaluator, holder, values)
    check(found, values)
    assert evaluator._native is None


@pytest.mark.parametrize("name", ["sums", "square", "rescale", "relinearise", "rotations"])
def test_loops_that_give_other_numbers_are_not_used(holder, evaluator, values, monkeypatch, name) -> None:
    own = getattr(Switching, name)

    def wrong(self, *args):
        own(self, *args)
        out = args[-1][0] if name in ("sums", "rotations") else args[-1]
        ctypes.c_uint64.from_address(int(out[0, 0])).value ^= 1

    monkeypatch.setattr(Switching, name, wrong)
    with pytest.warns(RuntimeWarning, match="do not give what SEAL gives"):
        found = results(evaluator, holder, values)
    check(found, values)
    assert evaluator._native is None


def test_nothing_is_said_where_all_is_well(holder, evaluator, values) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(results(evaluator, holder, values), values)
    assert isinstance(evaluator._native, SealNative)


def test_primes_that_the_loops_do_not_take(holder, evaluator, values, monkeypatch) -> None:
    monkeypatch.setattr(abi, "MOST_BITS", 55)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(results(evaluator, holder, values), values)
    assert evaluator._native is None
    assert isinstance(evaluator._whole["rotation/1"], seal.GaloisKeys)


def test_by_own_calls_nothing_else_is_used_or_said(holder, keys, values) -> None:
    backend = TensealBackend(TensealOptions(loops=False))
    assert (backend.capabilities.special_primes, backend.capabilities.centred_digits) == (1, False)
    evaluator = backend.evaluator(PARAMS)
    evaluator.load_keys(keys)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(results(evaluator, holder, values), values)
        ct = evaluator.load(holder.encrypt_bytes(values, 2, 2.0**20))
        assert not evaluator._residues.usable(ct)
    assert evaluator._native is None
    evaluator.threads = 2
    assert evaluator.threads_used == 1
    by_several = backend.resolve(CkksParams(2048, (40, 40), (50, 50), 30.0, allow_insecure=True))
    other, evaluator = backend.keygen(by_several, KeyManifest({1: 1})), backend.evaluator(by_several)
    evaluator.load_keys(dict(other.evaluation_keys()))
    ct = evaluator.load(other.encrypt_bytes(values, 1, 2.0**20))
    with pytest.raises(CapabilityError, match="2 special primes need hefw's own loops"):
        evaluator.rotate(ct, 1)
