"""What only OpenFHE has: its chains and digits, its one place for all keys, hoisting, bootstrapping, sparse packing."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from hefw.backends.openfhe.backend import OpenfheBackend
from hefw.core.backend import KeyManifest
from hefw.core.envelope import Envelope
from hefw.core.errors import CapabilityError, EnvelopeError, LevelError, ParameterError
from hefw.core.layout import periodic
from hefw.core.linear import LinearCost, SparseMatrix, transform
from hefw.core.params import CkksParams
from hefw.testing.parties import Parties, Precision, make_parties, small_params

SMALL = CkksParams(2048, (40, 30, 30, 30), (60,), 30.0, allow_insecure=True)


def module(name):
    """A module of the backend that needs the library; imported late, so that its absence fails tests one by one."""
    return import_module(f"hefw.backends.openfhe.{name}")


@pytest.fixture(scope="module")
def parties() -> Parties:
    backend = OpenfheBackend()
    return make_parties(backend, small_params(backend.capabilities), Precision())


# -- chains ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modulus_bits": (40, 30, 31, 30)}, r"one size for all primes after the first, not \[30, 31, 30\]"),
        ({"modulus_bits": (60, 60, 60)}, "at most 59 bits"),
        ({"modulus_bits": (40, 45, 45)}, "no more than the first; 45 bits"),
        ({"special_bits": (59,)}, r"special primes have 60 bits, not \[59\]"),
        ({"modulus_bits": (60, 59, 59, 59)}, r"no key switch with 1 special primes .*one of \[2, 3, 5\]"),
        ({"modulus_bits": (60, 59, 59, 59), "special_bits": (60,) * 6}, r"no key switch with 6 .*\[2, 3, 5\]"),
        ({"bootstrap": (2, 2)}, "needs at least 15 levels"),
        ({"bootstrap": (2, 2), "packed_slots": 2}, "budget .* too much for 2 slots"),
    ],
)
def test_chains_that_openfhe_does_not_take_are_refused(change, message) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        OpenfheBackend().resolve(replace(SMALL, **change))
    assert "\n" not in str(caught.value)


def test_what_openfhe_finds_insecure_is_refused_in_its_words() -> None:
    """The table of the HE standard allows 438 bits; OpenFHE counts one more for primes above a power of two."""
    at_the_limit = CkksParams(16384, (48, *([30] * 11)), (60,), 30.0)
    assert at_the_limit.log_qp == 438
    with pytest.raises(ParameterError, match=r"OpenFHE refuses .* does not comply with HE standards .*; use fewer"):
        OpenfheBackend().resolve(at_the_limit)
    assert OpenfheBackend().resolve(replace(at_the_limit, modulus_bits=(48, *([30] * 10)))).max_level == 10


def test_bootstrapping_at_small_rings_is_refused_unless_insecure() -> None:
    with pytest.raises(ParameterError, match="ring dimension 32768 is not secure; allowed: 65536, 131072"):
        OpenfheBackend().resolve(CkksParams(32768, (41, *([40] * 16)), (60,), 38.0, bootstrap=(2, 2)))


@pytest.mark.parametrize(
    ("chain", "special", "digits"),
    [((40, 30, 30, 30), 1, 4), ((40, 30, 30, 30), 2, 2), ((60, 59, 59, 59, 59), 2, 5), ((60, 59, 59, 59, 59), 3, 3)],
)
def test_more_special_primes_make_fewer_digits(chain, special, digits) -> None:
    params = OpenfheBackend().resolve(CkksParams(2048, chain, (60,) * special, 30.0, allow_insecure=True))
    holder = OpenfheBackend().keygen(params, KeyManifest({1: 1}, relinearisation=False))
    ((_, blob),) = holder.evaluation_keys()
    width = sum((prime.bit_length() + 7) // 8 for prime in (*params.primes, *params.special_primes))
    assert len(Envelope.unpack(blob).payload) == 4 + 2 * digits * 2048 * width
    evaluator = OpenfheBackend().evaluator(params)
    evaluator.load_keys({"rotation/1": blob})
    x = np.random.default_rng(0).uniform(-1, 1, params.slots)
    turned = evaluator.rotate(evaluator.load(holder.encrypt_bytes(x, params.max_level, 2.0**30)), 1)
    assert np.abs(holder.decrypt(turned) - np.roll(x, -1)).max() < 1e-4


def test_parameters_are_resolved_once() -> None:
    chain = module("chain")
    assert chain.make(SMALL) is chain.make(replace(SMALL))


# -- one place for all keys --------------------------------------------------------------------------------------------


def test_a_key_holder_leaves_no_key_behind(parties) -> None:
    cache = module("cache")
    before = cache.tags()
    holder = parties.backend.keygen(parties.params, parties.manifest)
    seen = [cache.tags() for _ in holder.evaluation_keys()]
    assert all(tags == before for tags in seen)


def test_keys_of_an_evaluator_go_with_it_and_those_of_others_stay(parties) -> None:
    cache = module("cache")
    before = cache.tags()
    blobs = dict(parties.holder.evaluation_keys())
    evaluators = [parties.backend.evaluator(parties.params) for _ in range(2)]
    for evaluator in evaluators:
        evaluator.load_keys(blobs)
    assert len(cache.tags() - before) == 2
    del evaluator, evaluators[0]
    gc.collect()
    assert len(cache.tags() - before) == 1
    for left in (evaluators[0], parties.evaluator):
        a = left.load(parties.send(parties.x))
        assert parties.error(left.rescale(left.square(left.rotate(a, 5))), np.roll(parties.x, -5) ** 2) < 1e-3


def test_keys_that_are_not_of_hefw_stay(parties) -> None:
    openfhe = module("library").openfhe
    cache = module("cache")
    context = module("context").context(parties.params).openfhe
    secret = context.KeyGen().secretKey
    context.EvalMultKeyGen(secret)
    context.EvalRotateKeyGen(secret, [1])
    parties.backend.keygen(parties.params, parties.manifest)
    for name, _ in parties.backend.keygen(parties.params, parties.manifest).evaluation_keys():
        assert name
    assert secret.GetKeyTag() in openfhe.CryptoContext.GetAllEvalMultKeys()
    assert secret.GetKeyTag() in openfhe.CryptoContext.GetAllEvalAutomorphismKeys()
    cache.forget(secret.GetKeyTag())
    assert secret.GetKeyTag() not in cache.tags()


def test_keys_come_and_go_while_another_thread_computes(parties) -> None:
    failed, stop = [], threading.Event()

    def work() -> None:
        a = parties.encrypt(parties.x)
        while not stop.is_set():
            try:
                parties.evaluator.rotate_many(a, [1, 5])
                parties.evaluator.rotate(a, 1)
            except RuntimeError as error:
                failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(5):
        evaluator = parties.backend.evaluator(parties.params)
        evaluator.load_keys(dict(parties.holder.evaluation_keys()))
        del evaluator
        gc.collect()
    stop.set()
    thread.join()
    assert not failed


# -- bytes -------------------------------------------------------------------------------------------------------------


def test_only_residues_travel(parties) -> None:
    for level in range(parties.top + 1):
        width = sum((prime.bit_length() + 7) // 8 for prime in parties.params.primes[: level + 1])
        assert len(Envelope.unpack(parties.send(parties.x, level)).payload) == 1 + 2 * 2048 * width


def test_residues_are_taken_apart_and_put_together_again(parties) -> None:
    openfhe = module("library").openfhe
    residues = module("residues")
    for handle in (parties.encrypt(parties.x).handle, parties.encrypt(parties.x, 1).handle):
        data = openfhe.Serialize(handle, openfhe.BINARY)
        structure, blocks = residues.split(data, 2048)
        assert structure.primes == parties.params.primes[: len(structure.primes) // 2] * 2
        assert structure.fill(blocks) == data
        packed = residues.pack(blocks, structure.primes)
        again = residues.unpack("ciphertext", memoryview(packed), structure.primes, 2048)
        assert all((one == other).all() for one, other in zip(blocks, again, strict=True))


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
    backend = OpenfheBackend()
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


# -- hoisting ----------------------------------------------------------------------------------------------------------


class Counting:
    """Calls of an OpenFHE context by name."""

    def __init__(self, wrapped) -> None:
        self.wrapped, self.calls = wrapped, Counter()

    def __getattr__(self, name):
        self.calls[name] += 1
        return getattr(self.wrapped, name)


def test_baby_steps_are_hoisted_and_giant_steps_divided_once(parties, monkeypatch) -> None:
    size = 16
    layout = periodic(np.arange(size), parties.slots // size, parties.slots)
    matrix = SparseMatrix.from_dense(np.random.default_rng(0).uniform(-1, 1, (size, size)))
    made = transform([(matrix, layout)], layout, LinearCost(1, 1))
    babies, giants = [s for s in made.babies[0] if s], [g.giant for g in made.outputs[0] if g.giant]
    assert len(babies) > 1
    assert len(giants) > 1
    holder = parties.backend.keygen(parties.params, KeyManifest(dict.fromkeys(made.rotations, parties.top)))
    evaluator = parties.backend.evaluator(parties.params)
    evaluator.load_keys(dict(holder.evaluation_keys()))
    weights = [evaluator.encode(made.weight(k), parties.top, parties.small) for k in range(len(made.weights))]
    values = np.random.default_rng(1).uniform(-1, 1, (parties.slots // size, size))
    ct = evaluator.load(holder.encrypt_bytes(layout.pack(values)[0], parties.top, parties.scale))
    counting = Counting(evaluator._openfhe)
    monkeypatch.setattr(evaluator, "_openfhe", counting)
    (found,) = evaluator.linear_transform([ct], made, weights)
    assert counting.calls["EvalFastRotation"] == len(babies)
    assert counting.calls["EvalFastRotationExt"] == len(giants)
    assert counting.calls["EvalFastRotationPrecompute"] == 1 + len(giants)
    assert counting.calls["KeySwitchDown"] == 1
    assert counting.calls["EvalRotate"] == 0
    assert np.abs(holder.decrypt(found) - layout.pack(values @ matrix.dense().T)[0]).max() < 1e-2


# -- bootstrapping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [8, 64, 1024])
def test_bootstrapping_keeps_its_promise(slots) -> None:
    backend = OpenfheBackend()
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


def test_two_level_budgets_on_one_chain_do_not_mix() -> None:
    """OpenFHE sees the same context in both, and keeps one set of matrices for it."""
    backend, parties = OpenfheBackend(), []
    asked = backend.bootstrap_params(64, 5, allow_insecure=True)
    for budget in ((3, 3), (2, 2)):
        params = backend.resolve(replace(asked, bootstrap=budget))
        promised = backend.bootstrapping(params)
        manifest = KeyManifest(dict.fromkeys(promised.rotations, params.max_level), conjugation=True, bootstrap=True)
        holder, evaluator = backend.keygen(params, manifest), backend.evaluator(params)
        evaluator.load_keys(dict(holder.evaluation_keys()))
        parties.append((promised, holder, evaluator))
    assert [promised.level_out for promised, _, _ in parties] == [5, 7]
    values = np.random.default_rng(0).uniform(-4, 4, 64)
    for promised, holder, evaluator in parties * 2:
        ct = evaluator.bootstrap(evaluator.load(holder.encrypt_bytes(values, 1, promised.scale)))
        assert np.abs(holder.decrypt(ct) - values).max() < 1e-3


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


def test_matrices_for_bootstrapping_are_given_back() -> None:
    bootstrap = module("bootstrap")
    backend = OpenfheBackend()
    params = backend.resolve(backend.bootstrap_params(16, 1, allow_insecure=True))
    holder = backend.keygen(params, KeyManifest(relinearisation=False, bootstrap=True))
    assert [name for name, _ in holder.evaluation_keys()] == ["bootstrap"]
    key = (params.primes, params.slots)
    assert key in bootstrap._prepared
    del holder
    gc.collect()
    assert key not in bootstrap._prepared


def test_parameters_for_bootstrapping_at_128_bits() -> None:
    backend = OpenfheBackend()
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


def test_a_bootstrap_that_leaves_too_little_is_an_error(monkeypatch) -> None:
    bootstrap = module("bootstrap")
    backend = OpenfheBackend()
    params = backend.resolve(backend.bootstrap_params(8, 1, allow_insecure=True))
    promised = backend.bootstrapping(params)
    manifest = KeyManifest(dict.fromkeys(promised.rotations, params.max_level), conjugation=True, bootstrap=True)
    holder, evaluator = backend.keygen(params, manifest), backend.evaluator(params)
    evaluator.load_keys(dict(holder.evaluation_keys()))
    monkeypatch.setattr(bootstrap, "promised", lambda params: replace(promised, level_out=2))
    with pytest.raises(LevelError, match="left 1 levels where 2 were promised"):
        evaluator.bootstrap(evaluator.load(holder.encrypt_bytes(np.zeros(8), 1, promised.scale)))


# -- the process -------------------------------------------------------------------------------------------------------

IN_A_PROCESS = """
import os
import numpy as np
from hefw.backends.openfhe.backend import OpenfheBackend
from hefw.core.backend import KeyManifest
from hefw.core.params import CkksParams
backend = OpenfheBackend()
params = backend.resolve(CkksParams(2048, (40, 30, 30), (60,), 30.0, allow_insecure=True))
holder = backend.keygen(params, KeyManifest({1: 2}))
sent, keys = holder.encrypt_bytes(np.arange(1024) / 1024, 2, 2.0**30), dict(holder.evaluation_keys())
"""


def run(code: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["OPENBLAS_NUM_THREADS"] = "1"  # numpy's own
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run([sys.executable, "-c", IN_A_PROCESS + code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_one_thread_is_used() -> None:
    assert run("print(len(os.listdir('/proc/self/task')))") == "1"


def test_a_forked_child_goes_on() -> None:
    code = """
evaluator = backend.evaluator(params)
evaluator.load_keys(keys)
child = os.fork()
if child == 0:
    evaluator.square(evaluator.rotate(evaluator.load(sent), 1))
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(code) == "0"


def test_a_server_drops_what_decrypts_and_still_computes() -> None:
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
    left, refused = run(code).splitlines()
    assert "Decrypt" not in left
    assert "PrivateKey" not in left
    assert "Decrypt" in refused
