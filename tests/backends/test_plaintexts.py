"""Plaintexts of SEAL as bytes: their residues, or what SEAL saves; never one for the other, or one that is damaged."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import numpy as np
import pytest

from hefw.backends.tenseal import plaintexts as module
from hefw.backends.tenseal.backend import TensealBackend
from hefw.backends.tenseal.context import Context, saved
from hefw.backends.tenseal.plaintexts import HEADER, MAGIC, Plaintexts, Stored
from hefw.backends.tenseal.pointers import Place
from hefw.core.backend import Evaluator, KeyManifest, Plaintext
from hefw.core.errors import EnvelopeError
from hefw.core.params import CkksParams

BACKEND = TensealBackend()
GIVEN = CkksParams(2048, (60, 50, 55), (60,), 30.0, allow_insecure=True)
PARAMS = BACKEND.resolve(GIVEN)
SCALE = 2.0**20
SLOTS, SIZE = 1024, 2048


@pytest.fixture(scope="module")
def holder():
    return BACKEND.keygen(PARAMS, KeyManifest({}))


@pytest.fixture
def evaluator() -> Evaluator:
    return BACKEND.evaluator(PARAMS)


@pytest.fixture
def hidden(monkeypatch) -> Evaluator:
    """One whose library keeps residues of plaintexts out of reach."""
    monkeypatch.setattr(module, "places", lambda *_: [])
    return BACKEND.evaluator(PARAMS)


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SLOTS)


def again(evaluator: Evaluator, pt: Plaintext) -> Plaintext:
    return evaluator.load_plaintext(evaluator.dump_plaintext(pt), pt.level, pt.scale)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_what_is_read_is_what_was_written_without_a_copy(evaluator, values, level) -> None:
    pt = evaluator.encode(values, level, SCALE)
    data = evaluator.dump_plaintext(pt)
    found = evaluator.load_plaintext(memoryview(data), level, SCALE)
    assert isinstance(found.handle, Stored)
    assert (found.level, found.scale) == (level, SCALE)
    assert np.shares_memory(found.handle.residues, np.frombuffer(data, np.uint8))
    assert evaluator.dump_plaintext(found) == data
    made = evaluator._plaintexts.object(found.handle)
    assert saved(made.save) == saved(pt.handle.save)
    assert made is evaluator._plaintexts.object(found.handle)


def test_numbers_that_do_not_lie_as_they_should_are_copied(evaluator, values) -> None:
    data = evaluator.dump_plaintext(evaluator.encode(values, 1, SCALE))
    found = evaluator.load_plaintext(memoryview(b"x" + data)[1:], 1, SCALE)
    assert found.handle.residues.flags.aligned
    assert evaluator.dump_plaintext(found) == data


@pytest.mark.parametrize("native", [True, False], ids=["loops", "SEAL's own calls"])
def test_every_operation_takes_it(holder, evaluator, values, monkeypatch, native) -> None:
    monkeypatch.setattr(evaluator, "_tried", not native)
    ct = evaluator.load(holder.encrypt_bytes(values, 2, SCALE))
    encoded = [evaluator.encode(values * k + 1, 2, SCALE) for k in range(3)]
    read = [again(evaluator, pt) for pt in encoded]
    results = []
    for one, two, three in (encoded, read):
        found = [evaluator.multiply_accumulate([(ct, one), (ct, two), (ct, three)]), evaluator.mul_plain(ct, one)]
        found += [evaluator.add_plain(ct, two), evaluator.add_plain_into(evaluator.negate(ct), three)]
        low = evaluator.drop_plain_level(one, 1)
        found += [evaluator.mul_plain(evaluator.drop_level(ct, 1), low)]
        results.append([evaluator.dump(each) for each in found])
    assert results[0] == results[1]
    assert (evaluator._native is not None) is native


def test_a_weight_that_loops_alone_read_is_never_made_seals(holder, evaluator, values) -> None:
    ct = evaluator.load(holder.encrypt_bytes(values, 2, SCALE))
    read = [again(evaluator, evaluator.encode(values + k, 2, SCALE)) for k in range(2)]
    evaluator.multiply_accumulate([(ct, pt) for pt in read])
    assert [pt.handle.object for pt in read] == [None, None]


@pytest.mark.parametrize(("level", "scale"), [(0, SCALE), (2, SCALE), (1, 2 * SCALE)])
@pytest.mark.parametrize("reachable", [True, False])
def test_another_level_or_scale_is_refused(evaluator, request, values, level, scale, reachable) -> None:
    made = evaluator if reachable else request.getfixturevalue("hidden")
    data = made.dump_plaintext(made.encode(values, 1, SCALE))
    with pytest.raises(EnvelopeError, match=f"a plaintext that is not of level {level} and scale"):
        made.load_plaintext(data, level, scale)


def test_one_of_other_primes_is_refused(evaluator, values) -> None:
    other = BACKEND.evaluator(BACKEND.resolve(replace(GIVEN, modulus_bits=(60, 50, 54))))
    data = other.dump_plaintext(other.encode(values, 2, SCALE))
    with pytest.raises(EnvelopeError, match="a plaintext that is not of level 2"):
        evaluator.load_plaintext(data, 2, SCALE)


@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("above", [0, 1, 2**63])
def test_residues_that_are_not_below_their_prime_are_refused(evaluator, values, row, above) -> None:
    data = evaluator.dump_plaintext(evaluator.encode(values, 2, SCALE))
    for column in (0, 77, SIZE - 1):
        residues = np.frombuffer(data, np.uint64, offset=HEADER.size).reshape(3, SIZE).copy()
        residues[row, column] = PARAMS.primes[row] - 1
        evaluator.load_plaintext(data[: HEADER.size] + residues.tobytes(), 2, SCALE)
        residues[row, column] = PARAMS.primes[row] + above
        with pytest.raises(EnvelopeError, match="residues that are not below their prime"):
            evaluator.load_plaintext(data[: HEADER.size] + residues.tobytes(), 2, SCALE)


def test_another_length_is_refused(evaluator, values) -> None:
    data = evaluator.dump_plaintext(evaluator.encode(values, 1, SCALE))
    for wrong in (data[: HEADER.size], data[:-1], data[:-8], data + b"\0", data + bytes(8 * SIZE)):
        with pytest.raises(EnvelopeError, match=f"a plaintext of {len(wrong)} bytes, not {len(data)}"):
            evaluator.load_plaintext(wrong, 1, SCALE)


def test_a_damaged_beginning_is_refused(evaluator, values) -> None:
    data = evaluator.dump_plaintext(evaluator.encode(values, 1, SCALE))
    assert data.startswith(MAGIC)
    for place in range(HEADER.size):
        wrong = bytearray(data)
        wrong[place] ^= 1
        with pytest.raises(EnvelopeError):
            evaluator.load_plaintext(wrong, 1, SCALE)
    for wrong in (b"", MAGIC, data[: HEADER.size - 1], np.zeros((0, 3)).data, np.zeros((9, 9)).data):
        with pytest.raises(EnvelopeError, match="SEAL cannot read the plaintext"):
            evaluator.load_plaintext(wrong, 1, SCALE)


def test_out_of_reach_seals_own_bytes_are_written_and_read(hidden, values) -> None:
    pt = hidden.encode(values, 1, SCALE)
    assert hidden.dump_plaintext(pt) == saved(pt.handle.save)
    found = again(hidden, pt)
    assert saved(found.handle.save) == saved(pt.handle.save)
    assert saved(hidden.drop_plain_level(found, 0).handle.save) == saved(hidden.encode(values, 0, SCALE).handle.save)


def test_what_was_written_the_other_way_is_read_or_refused(evaluator, values, request) -> None:
    pt = evaluator.encode(values, 1, SCALE)
    data = evaluator.dump_plaintext(pt)
    hidden = request.getfixturevalue("hidden")
    with pytest.raises(EnvelopeError, match="out of reach"):
        hidden.load_plaintext(data, 1, SCALE)
    found = evaluator.load_plaintext(hidden.dump_plaintext(pt), 1, SCALE)
    assert evaluator.dump_plaintext(found) == data


def test_out_of_reach_seals_own_calls_go_on_with_a_warning(holder, hidden, values) -> None:
    ct = hidden.load(holder.encrypt_bytes(values, 2, SCALE))
    weights = [again(hidden, hidden.encode(values + k, 2, SCALE)) for k in range(2)]
    with pytest.warns(RuntimeWarning, match="residues of plaintexts where hefw does not find them"):
        found = hidden.multiply_accumulate([(ct, pt) for pt in weights])
    assert np.abs(holder.decrypt(found) - values * (2 * values + 1)).max() < 1e-2
    assert hidden._native is None


def test_a_place_that_seal_does_not_read_is_not_used(monkeypatch) -> None:
    elsewhere = np.zeros((2, SIZE), np.uint64)

    class Wrong(Place):
        def address(self, thing) -> int:
            return elsewhere.ctypes.data

    assert Plaintexts(Context(PARAMS)).place is not None
    monkeypatch.setattr(module, "places", lambda *_: [Wrong(0)])
    assert Plaintexts(Context(PARAMS)).place is None


def test_the_place_is_that_of_all_levels(evaluator, values) -> None:
    place = evaluator._plaintexts.place
    for level in range(3):
        pt = evaluator.encode(values, level, SCALE)
        words = (ctypes.c_uint64 * SIZE).from_address(place.address(pt.handle))
        assert [words[k] for k in (0, 1, SIZE - 1)] == [pt.handle[k] for k in (0, 1, SIZE - 1)]
