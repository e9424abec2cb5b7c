"""What only OpenFHE has: its chains and digits, bootstrapping, sparse packing, one place in a process for all keys."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from openfhe_backend import chosen, python

import hefw
from hefw.backends.openfhe.sizes import own_calls
from hefw.core.backend import KeyManifest
from hefw.core.envelope import Envelope
from hefw.core.errors import CapabilityError, EnvelopeError, ParameterError
from hefw.core.lower import Request, lower
from hefw.core.noise import NoiseModel
from hefw.core.params import CkksParams
from hefw.testing.graphs import small_unet
from hefw.testing.parties import Parties, Precision, make_parties, small_params

INSIDE = [Path(__file__).with_name(name) for name in ("inside.py", "inside_loops.py")]
SMALL = CkksParams(2048, (40, 30, 30, 30), (60,), 30.0, allow_insecure=True)


@pytest.fixture(scope="module")
def parties() -> Parties:
    backend = chosen()
    return make_parties(backend, small_params(backend.capabilities), Precision())


# -- chains ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modulus_bits": (40, 30, 31, 30)}, r"one size for all primes after the first, not \[30, 31, 30\]"),
        ({"modulus_bits": (60, 60, 60)}, "at most 59 bits"),
        ({"modulus_bits": (40, 45, 45)}, "no more than the first; 45 bits"),
        ({"special_bits": (39,)}, r"each of as many bits as the largest other one \(40\); or of 60 bits"),
        ({"modulus_bits": (60, 59, 59, 59)}, r"no key switch with 1 special primes .*one of \[2, 3, 5\]"),
        ({"modulus_bits": (60, 59, 59, 59), "special_bits": (60,) * 6}, r"no key switch with 6 .*\[2, 3, 5\]"),
        ({"bootstrap": (2, 2)}, "needs at least 15 levels"),
        ({"bootstrap": (2, 2), "packed_slots": 2}, "budget .* too much for 2 slots"),
    ],
)
def test_chains_that_openfhe_does_not_take_are_refused(change, message) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        chosen().resolve(replace(SMALL, **change))
    assert "\n" not in str(caught.value)


def test_what_openfhe_finds_insecure_is_refused_in_its_words() -> None:
    """The table of the HE standard allows 438 bits; OpenFHE counts one more for primes above a power of two."""
    at_the_limit = CkksParams(16384, (48, *([30] * 11)), (60,), 30.0)
    assert at_the_limit.log_qp == 438
    with pytest.raises(ParameterError, match=r"OpenFHE refuses .* does not comply with HE standards .*; use fewer"):
        chosen().resolve(at_the_limit)
    assert chosen().resolve(replace(at_the_limit, modulus_bits=(48, *([30] * 10)))).max_level == 10


def test_planned_parameters_are_for_compiled_key_switches_unless_that_is_turned_off() -> None:
    graph = small_unet(1)
    for loops, own in ((True, False), (False, True)):
        backend = chosen(loops=loops)
        assert backend.capabilities.centred_digits == loops
        params = lower(graph, backend, Request(precision_db=40)).interface.params.params
        assert params.security_bits >= 128
        assert own_calls(params) == own


def test_bootstrapping_at_small_rings_is_refused_unless_insecure() -> None:
    with pytest.raises(ParameterError, match="ring dimension 32768 is not secure; allowed: 65536, 131072"):
        chosen().resolve(CkksParams(32768, (41, *([40] * 16)), (60,), 38.0, bootstrap=(2, 2)))


@pytest.mark.parametrize(
    ("chain", "special", "digits"),
    [((40, 30, 30, 30), 1, 4), ((40, 30, 30, 30), 2, 2), ((60, 59, 59, 59, 59), 2, 5), ((60, 59, 59, 59, 59), 3, 3)],
)
def test_more_special_primes_make_fewer_digits(chain, special, digits) -> None:
    params = chosen().resolve(CkksParams(2048, chain, (60,) * special, 30.0, allow_insecure=True))
    holder = chosen().keygen(params, KeyManifest({1: params.max_level}, relinearisation=False))
    ((_, blob),) = holder.evaluation_keys()
    width = sum((prime.bit_length() + 7) // 8 for prime in (*params.primes, *params.special_primes))
    assert len(Envelope.unpack(blob).payload) == 4 + 2 * digits * 2048 * width
    evaluator = chosen().evaluator(params)
    evaluator.load_keys({"rotation/1": blob})
    x = np.random.default_rng(0).uniform(-1, 1, params.slots)
    turned = evaluator.rotate(evaluator.load(holder.encrypt_bytes(x, params.max_level, 2.0**30)), 1)
    assert np.abs(holder.decrypt(turned) - np.roll(x, -1)).max() < 1e-4


@pytest.mark.parametrize("special", [2, 6])
def test_key_switches_are_centred(special) -> None:
    """OpenFHE's own division by special primes leaves an error 2 or 6 times as large, all of it from its mean."""
    params = chosen().resolve(CkksParams(2048, (60, *([59] * 22)), (60,) * special, 30.0, allow_insecure=True))
    x = np.random.default_rng(0).uniform(-1, 1, params.slots)
    square = 0.0
    for _ in range(4):
        holder, evaluator = chosen().keygen(params, KeyManifest({1: 22}, conjugation=True)), chosen().evaluator(params)
        evaluator.load_keys(dict(holder.evaluation_keys()))
        a = evaluator.load(holder.encrypt_bytes(x, 22, 2.0**50))
        before = holder.decrypt(a)
        for found, expected in (
            (evaluator.rotate(a, 1), np.roll(before, -1)),
            (evaluator.rotate_many(a, [0, 1])[1], np.roll(before, -1)),
            (evaluator.conjugate(a), before.conj()),
        ):
            square += float(np.mean((holder.decrypt(found) - expected).real ** 2)) / 12
    assert np.sqrt(square) * 2.0**50 < 1.2 * np.sqrt(special) * NoiseModel(2048).rescale


# -- bytes -------------------------------------------------------------------------------------------------------------


def test_only_residues_travel(parties) -> None:
    for level in range(parties.top + 1):
        width = sum((prime.bit_length() + 7) // 8 for prime in parties.params.primes[: level + 1])
        assert len(Envelope.unpack(parties.send(parties.x, level)).payload) == 1 + 2 * 2048 * width


def test_numbers_that_are_no_residues_are_refused(parties) -> None:
    envelope = Envelope.unpack(parties.send(parties.x, 1))
    beyond = replace(envelope, payload=envelope.payload[:1] + b"\xff" * (len(envelope.payload) - 1)).pack()
    with pytest.raises(EnvelopeError, match="no residues modulo"):
        parties.evaluator.load(beyond)
    longer = replace(envelope, payload=envelope.payload + b"\0").pack()
    with pytest.raises(EnvelopeError, match=r"ciphertext of level 1 has \d+ bytes of residues here"):
        parties.holder.decrypt_bytes(longer)


def test_a_ciphertext_of_three_parts_is_not_taken(parties) -> None:
    wide = parties.evaluator.square(parties.encrypt(parties.x), relinearise=False)
    with pytest.raises(EnvelopeError, match="3 parts"):
        parties.evaluator.load(parties.evaluator.dump(wide))


# -- values ------------------------------------------------------------------------------------------------------------


def test_constants_are_exact_integers(parties) -> None:
    """OpenFHE's own product with a negative float is off by one, which shows at small scales."""
    ev, x = parties.evaluator, parties.x
    a = parties.encrypt(x)
    for value in (-3.0, -1.0, 1.0, 5.0):
        assert parties.error(ev.mul_scalar(a, value, 1.0), value * x) < 1e-4
    for value, scale in ((-1.0, 2.0**62), (1.0, 2.0**64), (-2.5, 2.0**75)):
        assert parties.error(ev.mul_scalar(a, value, scale), value * x) < 1e-4
    high = parties.encrypt(x, scale=2.0**90)
    for value in (-0.75, 0.75, 1e3):
        assert parties.error(ev.add_plain(high, ev.encode(value, parties.top, 2.0**90)), x + value) < 1e-6


@pytest.mark.parametrize("slots", [1, 8, 256])
def test_sparse_packing_is_cyclic_over_its_own_slots(slots) -> None:
    backend = chosen()
    params = backend.resolve(replace(SMALL, packed_slots=slots))
    steps = [step for step in (1, 3) if step < slots]
    holder = backend.keygen(params, KeyManifest(dict.fromkeys(steps, 3), conjugation=True))
    evaluator = backend.evaluator(params)
    evaluator.load_keys(dict(holder.evaluation_keys()))
    rng = np.random.default_rng(0)
    z = rng.uniform(-1, 1, slots) + 1j * rng.uniform(-1, 1, slots)
    a = evaluator.load(holder.encrypt_bytes(z, 3, 2.0**30))
    weight = evaluator.encode(z, 3, 2.0**25)
    for found, expected in [
        (evaluator.rescale(evaluator.square(a)), z**2),
        (evaluator.conjugate(a), z.conj()),
        (evaluator.mul_plain(a, weight), z**2),
        *((evaluator.rotate(a, step), np.roll(z, -step)) for step in steps),
        *zip(evaluator.rotate_many(a, steps), [np.roll(z, -step) for step in steps], strict=True),
    ]:
        assert np.abs(holder.decrypt_bytes(evaluator.dump(found)) - expected).max() < 1e-3
    with pytest.raises(EnvelopeError, match="other parameters"):
        backend.evaluator(backend.resolve(SMALL)).load(holder.encrypt_bytes(z, 3, 2.0**30))


@pytest.mark.secure
def test_a_chain_at_128_bits_keeps_its_precision() -> None:
    params = chosen().resolve(CkksParams(16384, (60, 59, 59, 59, 59), (60, 60), 50.0))
    assert params.params.security_bits >= 128
    holder, evaluator = chosen().keygen(params, KeyManifest({3: 4, 8191: 4})), chosen().evaluator(params)
    evaluator.load_keys(dict(holder.evaluation_keys()))
    rng = np.random.default_rng(0)
    expected, weight = rng.uniform(-1, 1, (2, params.slots))
    ct = evaluator.load(holder.encrypt_bytes(expected, 4, 2.0**50))
    for step in (3, 8191):
        plain = evaluator.encode(weight, ct.level, 2.0**110 / ct.scale)
        ct = evaluator.rescale(evaluator.mul_plain(evaluator.rotate(ct, step), plain))
        ct = evaluator.add_plain(ct, evaluator.encode(0.5, ct.level, ct.scale))
        expected = np.roll(expected, -step) * weight + 0.5
        ct = evaluator.rescale(evaluator.square(ct))
        expected = expected**2
    assert ct.level == 0
    error = holder.decrypt_bytes(evaluator.dump(ct)) - expected
    assert np.sqrt(np.mean(error.real**2)) < 1e-7
    assert np.abs(error).max() < 1e-5


# -- bootstrapping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [8, 64, 1024])
def test_bootstrapping_keeps_its_promise(slots) -> None:
    backend = chosen()
    asked = backend.bootstrap_params(slots, 2, allow_insecure=True)
    params = backend.resolve(asked)
    promised = backend.bootstrapping(params)
    assert (params.slots, promised.level_out, asked.insecure) == (slots, 2, True)
    assert (max(promised.rotations) > slots) == (slots < asked.ring_dimension // 2)
    manifest = KeyManifest(dict.fromkeys(promised.rotations, params.max_level), conjugation=True, bootstrap=True)
    holder, evaluator = backend.keygen(params, manifest), backend.evaluator(params)
    evaluator.load_keys(dict(holder.evaluation_keys()))
    rng = np.random.default_rng(0)
    values = 4 * (rng.uniform(-1, 1, slots) + 1j * rng.uniform(-1, 1, slots))
    ct = evaluator.load(holder.encrypt_bytes(values, 2, promised.scale))
    for _ in range(3):
        ct = evaluator.bootstrap(ct)
        error = holder.decrypt_bytes(evaluator.dump(ct)) - values
        assert np.sqrt(np.mean(np.abs(error) ** 2) / 2) < 3 * promised.error
        ct = evaluator.rescale(evaluator.mul_scalar(ct, 1.0, params.primes[ct.level]))
        assert ct.level == 1
        ct = replace(ct, scale=promised.scale)


def test_keys_for_bootstrapping_are_refused_where_there_is_none(parties) -> None:
    backend = parties.backend
    with pytest.raises(CapabilityError, match="bootstrap is None"):
        backend.bootstrapping(parties.params)
    with pytest.raises(CapabilityError, match="cannot bootstrap"):
        backend.keygen(parties.params, KeyManifest(bootstrap=True))
    blob = dict(parties.holder.evaluation_keys())["conjugation"]
    forged = replace(Envelope.unpack(blob), kind="bootstrap-key").pack()
    with pytest.raises(EnvelopeError, match="bootstrapping was sent"):
        backend.evaluator(parties.params).load_keys({"bootstrap": forged})


def test_parameters_for_bootstrapping_at_128_bits() -> None:
    backend = chosen()
    params = backend.bootstrap_params(8000, 6)
    assert (params.ring_dimension, params.slots, len(params.special_bits)) == (65536, 8192, 6)
    assert params.security_bits >= 128
    assert not params.allow_insecure
    promised = backend.bootstrapping(backend.resolve(params))
    assert (promised.level_in, promised.level_out, promised.scale, promised.magnitude) == (1, 6, 2.0**57, 4.0)
    for slots, levels in ((8192, 60), (131072, 1)):
        with pytest.raises(ParameterError, match="no ring dimension bootstraps"):
            backend.bootstrap_params(slots, levels)
    with pytest.raises(ParameterError, match="must be at least 1"):
        backend.bootstrap_params(0, 1)


# -- the process -------------------------------------------------------------------------------------------------------

IN_A_PROCESS = """
import os
import numpy as np
from hefw.backends.openfhe.backend import OpenfheBackend
from hefw.core.backend import KeyManifest
from hefw.core.params import CkksParams
backend = OpenfheBackend()
params = backend.resolve(CkksParams(2048, (40, 30, 30), (SPECIAL,), 30.0, allow_insecure=True))
holder = backend.keygen(params, KeyManifest({1: 2}))
sent, keys = holder.encrypt_bytes(np.arange(1024) / 1024, 2, 2.0**30), dict(holder.evaluation_keys())
"""


def run(*arguments: str) -> str:
    """What the interpreter that has OpenFHE prints."""
    kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    folders = {"PYTHONPATH": str(Path(hefw.__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"}  # the latter is numpy's
    done = subprocess.run([python(), *arguments], capture_output=True, text=True, env=kept | folders, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def inside() -> dict[str, str]:
    """How each check of INSIDE failed, or ""."""
    found = [json.loads(run(str(path)).splitlines()[-1]) for path in INSIDE]
    return found[0] | found[1]


@pytest.mark.parametrize("name", re.findall(r"^@check\ndef (\w+)\(", "".join(p.read_text() for p in INSIDE), re.M))
def test_beside_the_library(inside, name) -> None:
    assert inside[name] == "", inside[name]


#: OpenFHE's own key switches, and hefw's.
WAYS = pytest.mark.parametrize("special", [60, 50])


@WAYS
def test_one_thread_is_used(special) -> None:
    assert run("-c", f"SPECIAL = {special}\n" + IN_A_PROCESS + "print(len(os.listdir('/proc/self/task')))") == "1"


@WAYS
def test_a_forked_child_goes_on(special) -> None:
    code = """
evaluator = backend.evaluator(params)
evaluator.load_keys(keys)
child = os.fork()
if child == 0:
    evaluator.square(evaluator.rotate(evaluator.load(sent), 1))
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run("-c", f"SPECIAL = {special}\n" + IN_A_PROCESS + code) == "0"


@WAYS
def test_a_server_drops_what_decrypts_and_still_computes(special) -> None:
    code = """
import openfhe
backend.drop_secrets()
evaluator = backend.evaluator(params)
evaluator.load_keys(keys)
evaluator.dump(evaluator.rotate(evaluator.load(sent), 1))
print([n for c in (openfhe, openfhe.openfhe, openfhe.CryptoContext) for n in dir(c) if "rypt" in n or "Private" in n])
try:
    holder.decrypt_bytes(sent)
except AttributeError as error:
    print(error)
"""
    left, refused = run("-c", f"SPECIAL = {special}\n" + IN_A_PROCESS + code).splitlines()
    assert "Decrypt" not in left
    assert "DeserializePrivateKey" not in left
    assert "Decrypt" in refused
