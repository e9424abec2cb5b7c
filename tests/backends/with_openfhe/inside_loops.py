"""Checks of compiled key switches on OpenFHE's memory; run by an interpreter that has it, which needs no pytest.

python inside_loops.py    one line of JSON: each check's name, and how it failed or ""
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass, replace
from unittest.mock import patch

import numpy as np
from checks import check, main

from hefw.backends.openfhe import backend as backends
from hefw.backends.openfhe import chain, context, memory, residues
from hefw.backends.openfhe.backend import OpenfheBackend
from hefw.backends.openfhe.library import openfhe
from hefw.backends.rns.objects import words
from hefw.backends.rns.switching import Switching
from hefw.core.backend import KeyManifest
from hefw.core.errors import CapabilityError, EnvelopeError, ParameterError
from hefw.core.params import CkksParams

BACKEND = OpenfheBackend()
N = 2048
#: Sizes of the chain and of special primes: small ones and large ones, one special prime to four.
CHAINS = [((49, 45, 45, 45), (49,)), ((49,) * 4, (49, 49)), ((49,) * 5, (49,) * 4), ((57, 50, 50, 50), (57, 58))]


def parties(sizes: tuple[int, ...], special: tuple[int, ...], low: int = 1):
    params = BACKEND.resolve(CkksParams(N, sizes, special, 30.0, allow_insecure=True))
    holder = BACKEND.keygen(params, KeyManifest({1: params.max_level, 3: low}, conjugation=True))
    evaluator = BACKEND.evaluator(params)
    evaluator.load_keys(dict(holder.evaluation_keys()))
    return holder, evaluator, np.random.default_rng(0).uniform(-1, 1, params.slots)


def message(error: type[Exception], call) -> str:
    """Of the error that a call raises."""
    try:
        call()
    except error as found:
        return str(found)
    raise AssertionError(f"no {error.__name__}")


def blocks(handle) -> list[np.ndarray]:
    return residues.split(openfhe.Serialize(handle, openfhe.BINARY), N)[1]


@check
def every_operation_at_every_level() -> None:
    for sizes, special in CHAINS:
        holder, evaluator, x = parties(sizes, special)
        for level in range(len(sizes) - 1, 0, -1):
            ct = evaluator.load(holder.encrypt_bytes(x, level, 2.0**30))
            weights = [evaluator.encode(value, level, 2.0**20) for value in (x, 2 * x, 0.5)]
            results = [
                (evaluator.rotate(ct, 1), np.roll(x, -1)),
                (evaluator.rotate_many(ct, [1, 0, 1])[2], np.roll(x, -1)),
                (evaluator.fold(ct, [1]), x + np.roll(x, -1)),
                (evaluator.conjugate(ct), x),
                (evaluator.square(ct), x**2),
                (evaluator.mul(ct, ct), x**2),
                (evaluator.multiply_accumulate([(ct, weight) for weight in weights]), 3 * x**2 + x / 2),
                (evaluator.rescale(evaluator.mul_scalar(ct, 1.0, float(evaluator.params.primes[level]))), x),
            ]
            results += [(evaluator.rotate(ct, 3), np.roll(x, -3))] if level == 1 else []
            for found, wanted in results:
                assert np.abs(holder.decrypt_bytes(evaluator.dump(evaluator.relinearise(found))) - wanted).max() < 1e-4


@check
def sums_squares_and_rescales_are_openfhes_bit_by_bit() -> None:
    holder, evaluator, x = parties(*CHAINS[0])
    for level in range(1, 4):
        made = evaluator._openfhe
        ct = evaluator.load(holder.encrypt_bytes(x, level, 2.0**30))
        weights = [evaluator.encode(value, level, 2.0**20) for value in (x, 1.5, x - 2)]
        products = [evaluator._product_with_plain(ct.handle, weight.handle) for weight in weights]
        total = made.EvalAdd(made.EvalAdd(products[0], products[1]), products[2])
        found = evaluator.multiply_accumulate([(ct, weight) for weight in weights])
        total.SetNoiseScaleDeg(2)
        pairs = [
            (found.handle, total),
            (evaluator.rescale(found).handle, made.Rescale(total)),
            (evaluator.square(ct, relinearise=False).handle, made.EvalMultNoRelin(ct.handle, ct.handle)),
        ]
        for ours, theirs in pairs:
            assert all(map(np.array_equal, blocks(ours), blocks(theirs)))


@check
def several_threads_give_the_bytes_of_one() -> None:
    holder, evaluator, x = parties(*CHAINS[1])
    ct = evaluator.load(holder.encrypt_bytes(x, 3, 2.0**30))
    weights = [evaluator.encode(x + k, 3, 2.0**20) for k in range(5)]

    def found() -> list[bytes]:
        done = [*evaluator.rotate_many(ct, [1, 1]), evaluator.fold(ct, [1]), evaluator.conjugate(ct)]
        done += [evaluator.multiply_accumulate([(ct, weight) for weight in weights]), evaluator.square(ct)]
        return [evaluator.dump(each) for each in (*done, evaluator.rescale(done[-1]))]

    wanted = found()
    evaluator.threads = 2
    assert found() == wanted
    assert evaluator.threads_used == 2


@check
def residues_are_where_they_are_looked_for() -> None:
    found = memory.layout()
    assert found is not None
    holder, evaluator, x = parties(*CHAINS[0])
    for level in range(4):
        handle = evaluator.load(holder.encrypt_bytes(x, level, 2.0**30)).handle
        rows = [at for part in found.ciphertext(handle) for at in part]
        assert all(np.array_equal(words(at, (N,)), block) for at, block in zip(rows, blocks(handle), strict=True))
        assert len(rows) == 2 * (level + 1) == len(blocks(handle))
        assert len(found.plaintext(evaluator.encode(x, level, 2.0**20).handle)) == level + 1


@dataclass(frozen=True)
class Elsewhere(memory.Layout):
    """One by which copies are found, which OpenFHE does not go on with."""

    def ciphertext(self, handle) -> list[list[int]]:
        copies = residues.split(openfhe.Serialize(handle, openfhe.BINARY), memory.RING_DIMENSION)[1]
        KEPT.extend(np.array(copy) for copy in copies)
        rows = [copy.ctypes.data for copy in KEPT[-len(copies) :]]
        return [rows[: len(rows) // 2], rows[len(rows) // 2 :]]


KEPT: list[np.ndarray] = []


@check
def a_layout_that_openfhe_does_not_go_on_with_is_not_used() -> None:
    own = memory.layout()
    wrong = Elsewhere(own.polynomials, own.vector, own.size, own.plain)
    memory.layout.cache_clear()
    try:
        with patch.object(memory, "_layouts", lambda *_: iter([wrong])), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            made = OpenfheBackend()
            assert KEPT
            assert made.capabilities == backends.OWN_CALLS
            assert "keeps its residues where hefw does not find them" in str(said[-1].message)
            asked = CkksParams(N, (48, 40), (50,), 30.0, allow_insecure=True)
            refused = message(ParameterError, lambda: made.resolve(asked))
        assert "need compiled loops, which cannot be used here (this build" in refused
        assert "ask for 60 bits" in refused
    finally:
        memory.layout.cache_clear()
    assert memory.layout() == own


@check
def without_a_compiler_openfhes_own_calls_are_planned_with_a_warning() -> None:
    with patch.object(backends, "find_spec", lambda name: None), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert OpenfheBackend().capabilities == backends.OWN_CALLS
    assert "no module named llvmlite and numba" in str(said[-1].message)
    with patch.object(chain, "missing", lambda: "no compiler"):
        asked = CkksParams(N, (48, 41), (50,), 30.0, allow_insecure=True)
        assert "(no compiler); ask for 60 bits" in message(ParameterError, lambda: BACKEND.resolve(asked))


@check
def loops_that_give_other_numbers_are_refused() -> None:
    params = BACKEND.resolve(CkksParams(N, *CHAINS[1], 30.0, allow_insecure=True))
    for name in ("sums", "square", "rescale", "rotations"):
        own = getattr(Switching, name)

        def wrong(self, *arguments, own=own, name=name):
            own(self, *arguments)
            out = arguments[-1][0] if name in ("sums", "rotations") else arguments[-1]
            words(int(out[0, 0]), (N,))[5] ^= np.uint64(1)

        with patch.object(Switching, name, wrong):
            assert "set the backend's option loops to false" in message(
                CapabilityError, lambda: BACKEND.evaluator(params)
            )


@check
def keys_of_another_form_are_refused() -> None:
    holder, evaluator, _ = parties((49, 45, 45), (49, 49))
    sound = holder._evaluation_key("rotation/1")
    for payload, wanted in (
        (holder._evaluation_key("rotation/3"), "hold another key"),
        (sound[:-1], "another length"),
        (sound[:-7] + b"\xff" * 7, "no residues modulo"),
    ):
        assert wanted in message(EnvelopeError, lambda payload=payload: evaluator._load_key("rotation/1", payload))


@check
def a_number_is_what_it_is_modulo_each_prime() -> None:
    _holder, evaluator, _x = parties(*CHAINS[0])
    shared = context.context(evaluator.params)
    for value in (3, -3, 2**70 + 5):
        number = memory.Number(value)
        for level in (0, 2, 1):
            rows = number.rows(shared, level)
            assert len(rows) == level + 1
            for at, prime in zip(rows.tolist(), shared.params.primes[: level + 1], strict=True):
                assert set(words(at, (N,)).tolist()) == {value % prime}


@check
def no_digit_of_a_key_has_the_errors_of_another() -> None:
    holder, _, _ = parties(*CHAINS[0])
    drawn = [holder._error() for _ in range(20)]
    assert not any(np.array_equal(one, other) for one, other in itertools.pairwise(drawn))
    assert 3.0 < np.std(np.stack(drawn)) < 3.4  # OpenFHE's Gaussian
    assert abs(np.mean(np.stack(drawn))) < 0.1


@check
def special_primes_are_others_than_the_chains() -> None:
    for sizes, special in CHAINS:
        params = BACKEND.resolve(CkksParams(N, sizes, special, 30.0, allow_insecure=True))
        assert len({*params.primes, *params.special_primes}) == len(sizes) + len(special)
        assert all(q.bit_length() == bits for q, bits in zip(params.special_primes, special, strict=True))
    asked = CkksParams(N, (49, 45), (49,), 30.0, allow_insecure=True)
    for change, wanted in (
        ({"special_bits": (44,)}, "at most 4, each of as many bits as the largest other one (49)"),
        ({"special_bits": (50,) * 5}, "at most 4"),
        ({"special_bits": (60, 50)}, None),
        ({"bootstrap": (1, 1)}, "bootstrapping is by OpenFHE's own special primes of 60 bits, not [49]"),
    ):
        changed = replace(asked, **change)
        if wanted is None:
            assert BACKEND.resolve(changed).special_primes[1].bit_length() == 50
        else:
            assert wanted in message(ParameterError, lambda changed=changed: BACKEND.resolve(changed))


if __name__ == "__main__":
    main()
