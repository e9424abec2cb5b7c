"""Key switching with several special primes, and with small primes: results, noise, keys, and where it is refused."""

from __future__ import annotations

import ctypes
import math
import warnings

import numpy as np
import pytest

from hefw.backends import processor
from hefw.backends.rns import loops
from hefw.backends.rns.form import Form
from hefw.backends.rns.switching import Switching
from hefw.backends.tenseal import native as natives
from hefw.backends.tenseal.backend import TensealBackend
from hefw.backends.tenseal.residues import Residues
from hefw.core.backend import Evaluator, KeyHolder, KeyManifest
from hefw.core.errors import CapabilityError, EnvelopeError, ParameterError
from hefw.core.noise import NoiseModel
from hefw.core.params import CkksParams, Resolved

N = 2048
BACKEND = TensealBackend()
#: Sizes of the chain and of special primes: small, large, mixed; of one special prime to four.
CHAINS = [
    ((50, 50, 50), (50,)),
    ((48, 45, 50, 40), (50, 50)),
    ((46,) * 5, (50, 50, 50)),
    ((60, 60, 60), (60, 60)),
    ((60, 40, 50, 55, 45), (60, 60)),
    ((50, 30, 45, 48), (60, 60)),
    ((45,) * 6, (50,) * 4),
]


def resolved(chain: tuple[int, ...], special: tuple[int, ...]) -> Resolved:
    return BACKEND.resolve(CkksParams(N, chain, special, 30.0, allow_insecure=True))


def parties(params: Resolved, low: int = 1) -> tuple[KeyHolder, Evaluator]:
    holder = BACKEND.keygen(params, KeyManifest({1: params.max_level, 3: low}, conjugation=True))
    evaluator = BACKEND.evaluator(params)
    evaluator.load_keys(dict(holder.evaluation_keys()))
    return holder, evaluator


@pytest.mark.parametrize(("chain", "special"), CHAINS)
def test_every_operation_at_every_level(chain, special) -> None:
    params = resolved(chain, special)
    holder, evaluator = parties(params)
    values = np.random.default_rng(0).normal(size=params.slots)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the loops were tried, and are used
        for level in range(params.max_level, 0, -1):
            ct = holder.encrypt(values, level, 2.0**26)
            weights = [evaluator.encode(values * k, level, 2.0**20) for k in (1, 2, 3)]
            square = evaluator.square(ct)
            results = [
                (evaluator.rotate(ct, 1), np.roll(values, -1)),
                (evaluator.rotate_many(ct, [1, 0, 1])[2], np.roll(values, -1)),
                (evaluator.add_rotations(ct, [1]), values + np.roll(values, -1)),
                (evaluator.conjugate(ct), values),
                (square, values**2),
                (evaluator.multiply_accumulate([(ct, weight) for weight in weights]), 6 * values**2),
            ]
            if level == 1:
                results.append((evaluator.rotate(ct, 3), np.roll(values, -3)))
            for found, wanted in results:
                assert np.abs(holder.decrypt(found) - wanted).max() < 2e-3
            lifted = evaluator.mul_scalar(ct, 1.0, float(params.primes[level]))
            assert np.abs(holder.decrypt(evaluator.rescale(lifted)) - values).max() < 2e-3


@pytest.mark.parametrize(("chain", "special"), CHAINS)
def test_noise_is_that_of_digits_of_several_primes(chain, special) -> None:
    params = resolved(chain, special)
    holder, evaluator = parties(params)
    values = np.random.default_rng(0).uniform(-1, 1, params.slots)
    ct = holder.encrypt(values, params.max_level, 2.0**30)
    error = (holder.decrypt(evaluator.rotate(ct, 1)) - np.roll(holder.decrypt(ct), -1)).real * 2.0**30
    form, divisor = Form(params, params.max_level), math.prod(params.special_primes)
    squares = sum((math.prod(params.primes[k] for k in group) / divisor) ** 2 for group in form.groups)
    assert float(np.std(error)) == pytest.approx(NoiseModel(N).key_switch(squares, centred=True), rel=0.2)


def test_keys_have_what_ciphertexts_of_their_level_meet() -> None:
    params = resolved((48,) * 5, (50, 50))
    holder = BACKEND.keygen(params, KeyManifest({1: 4, 3: 1, 5: 4, 7: 1}))
    lengths = {name: len(blob) for name, blob in holder.evaluation_keys()}
    assert lengths["rotation/1"] == lengths["rotation/5"]
    assert lengths["rotation/3"] == lengths["rotation/7"]
    # Three digits of 5 + 2 primes, and one of 2 + 2.
    assert lengths["rotation/1"] / lengths["rotation/3"] == pytest.approx(21 / 4, rel=0.05)
    one = BACKEND.keygen(resolved((48,) * 5, (50,)), KeyManifest({1: 4}))
    assert len(dict(one.evaluation_keys(["rotation/1"]))["rotation/1"]) > 1.4 * lengths["rotation/1"]


def test_what_is_no_key_of_these_parameters_is_refused() -> None:
    params = resolved((48, 45, 50), (50, 50))
    holder, evaluator = parties(params)
    evaluator.keys["rotation/1"] = params.max_level
    sound = holder._evaluation_key("rotation/1")
    first = 4 + (len(sound) - 4) // 2 - 7 * N  # in the last residues of the first digit
    for payload, message in (
        (holder._evaluation_key("rotation/3"), "hold another key"),
        (sound[:3], "hold another key"),
        (sound[:-1], "another length"),
        (sound + sound[4:], "another length"),
        (sound[:first] + b"\xff" * 7 + sound[first + 7 :], "no residues modulo"),
    ):
        with pytest.raises(EnvelopeError, match=message):
            evaluator._load_key("rotation/1", payload)


def test_a_broken_seed_is_refused_by_seal() -> None:
    holder, evaluator = parties(resolved((48, 45, 50), (50, 50)))
    sound = holder._evaluation_key("rotation/1")
    with pytest.raises(EnvelopeError, match="SEAL cannot read the rotation/1 key"):
        evaluator._load_key("rotation/1", sound[:4] + bytes(20) + sound[24:])


def test_without_loops_several_special_primes_are_refused_and_not_planned(monkeypatch) -> None:
    monkeypatch.setattr(loops, "missing", lambda: "no compiler")
    with pytest.raises(ParameterError, match=r"2 special primes need compiled loops.*\(no compiler\); use one"):
        resolved((48, 45), (50, 50))
    assert len(resolved((48, 45), (50,)).special_primes) == 1


@pytest.mark.parametrize("operation", ["rotate", "square"])
def test_where_memory_is_out_of_reach_it_is_said_at_the_first_use(operation, monkeypatch) -> None:
    holder, evaluator = parties(resolved((48, 45, 50), (50, 50)))
    monkeypatch.setattr(Residues, "usable", lambda self, example: False)
    ct = holder.encrypt(np.ones(N // 2), 2, 2.0**20)
    with pytest.raises(CapabilityError, match=r"2 special primes need hefw's own loops.*set special_bits to one prime"):
        evaluator.rotate(ct, 1) if operation == "rotate" else evaluator.square(ct)


def test_loops_that_switch_wrongly_are_not_used(monkeypatch) -> None:
    holder, evaluator = parties(resolved((48, 45, 50), (50, 50)))
    rotations = Switching.rotations

    def wrong(self, given, keys, outs, more=False) -> None:
        rotations(self, given, keys, outs, more)
        ctypes.c_uint64.from_address(int(outs[0][0, 0]) + 40).value += 1

    monkeypatch.setattr(Switching, "rotations", wrong)
    ct = holder.encrypt(np.ones(N // 2), 2, 2.0**20)
    with pytest.warns(RuntimeWarning, match=natives.WRONG), pytest.raises(CapabilityError, match="special primes need"):
        evaluator.rotate(ct, 1)


@pytest.mark.parametrize("feature", ["avx512ifma", "no such feature"])
def test_the_processor_is_asked_for_what_it_can_do(feature, tmp_path, monkeypatch) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nflags\t\t: fpu sse2 avx512ifma\n")
    monkeypatch.setattr(processor, "CPUINFO", file)
    assert processor.has.__wrapped__(feature) == (feature == "avx512ifma")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "nothing")
    assert not processor.has.__wrapped__(feature)
