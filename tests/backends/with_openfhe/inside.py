"""Checks of what only code beside OpenFHE itself can see; run by an interpreter that has it, which needs no pytest.

python inside.py    one line of JSON: each check's name, and how it failed or ""
"""

from __future__ import annotations

import gc
import threading
from collections import Counter
from dataclasses import replace

import numpy as np
from checks import check, main

from hefw.backends import packing
from hefw.backends.openfhe import bootstrap, cache, chain, context, residues
from hefw.backends.openfhe.backend import OpenfheBackend
from hefw.backends.openfhe.library import openfhe
from hefw.core.backend import KeyManifest
from hefw.core.diagonals import LinearCost, transform
from hefw.core.errors import LevelError
from hefw.core.layout import periodic
from hefw.core.sparse import SparseMatrix
from hefw.testing.parties import Precision, make_parties, small_params

PARTIES = make_parties(OpenfheBackend(), small_params(OpenfheBackend.capabilities), Precision())
SMALL = PARTIES.params.params


class Counting:
    """Calls of an OpenFHE context by name."""

    def __init__(self, wrapped) -> None:
        self.wrapped, self.calls = wrapped, Counter()

    def __getattr__(self, name):
        self.calls[name] += 1
        return getattr(self.wrapped, name)


@check
def parameters_are_resolved_once() -> None:
    assert chain.make(SMALL) is chain.make(replace(SMALL))


@check
def a_key_holder_leaves_no_key_behind() -> None:
    before = cache.tags()
    holder = PARTIES.backend.keygen(PARTIES.params, PARTIES.manifest)
    seen = [cache.tags() for _ in holder.evaluation_keys()]
    assert all(tags == before for tags in seen)


@check
def keys_of_an_evaluator_go_with_it_and_those_of_others_stay() -> None:
    before = cache.tags()
    blobs = dict(PARTIES.holder.evaluation_keys())
    evaluators = [PARTIES.backend.evaluator(PARTIES.params) for _ in range(2)]
    for evaluator in evaluators:
        evaluator.load_keys(blobs)
    assert len(cache.tags() - before) == 2
    del evaluator, evaluators[0]
    gc.collect()
    assert len(cache.tags() - before) == 1
    for left in (evaluators[0], PARTIES.evaluator):
        a = left.load(PARTIES.send(PARTIES.x))
        assert PARTIES.error(left.rescale(left.square(left.rotate(a, 5))), np.roll(PARTIES.x, -5) ** 2) < 1e-3


@check
def what_a_key_holder_has_encrypted_for_itself_is_computed_with_too() -> None:
    """OpenFHE tells ciphertexts apart by whose keys they need."""
    x, y, ev = PARTIES.x, PARTIES.y, PARTIES.evaluator
    a, b = PARTIES.holder.encrypt(x, PARTIES.top, PARTIES.scale), PARTIES.encrypt(y)
    assert PARTIES.error(ev.sub(a, b), x - y) < 1e-3
    assert PARTIES.error(ev.mul(b, a), x * y) < 1e-3
    assert PARTIES.error(ev.sub(ev.rotate(b, 1), ev.rotate(a, 5)), np.roll(y, -1) - np.roll(x, -5)) < 1e-3


@check
def keys_that_are_not_of_hefw_stay() -> None:
    made = context.context(PARTIES.params).openfhe
    secret = made.KeyGen().secretKey
    made.EvalMultKeyGen(secret)
    made.EvalRotateKeyGen(secret, [1])
    PARTIES.backend.keygen(PARTIES.params, PARTIES.manifest)
    for name, _ in PARTIES.backend.keygen(PARTIES.params, PARTIES.manifest).evaluation_keys():
        assert name
    assert secret.GetKeyTag() in openfhe.CryptoContext.GetAllEvalMultKeys()
    assert secret.GetKeyTag() in openfhe.CryptoContext.GetAllEvalAutomorphismKeys()
    cache.forget(secret.GetKeyTag())
    assert secret.GetKeyTag() not in cache.tags()


@check
def keys_come_and_go_while_another_thread_computes() -> None:
    failed, stop = [], threading.Event()

    def work() -> None:
        a = PARTIES.encrypt(PARTIES.x)
        while not stop.is_set():
            try:
                PARTIES.evaluator.rotate_many(a, [1, 5])
                PARTIES.evaluator.rotate(a, 1)
            except RuntimeError as error:
                failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(5):
        evaluator = PARTIES.backend.evaluator(PARTIES.params)
        evaluator.load_keys(dict(PARTIES.holder.evaluation_keys()))
        del evaluator
        gc.collect()
    stop.set()
    thread.join()
    assert not failed


@check
def residues_are_taken_apart_and_put_together_again() -> None:
    for handle in (PARTIES.encrypt(PARTIES.x).handle, PARTIES.encrypt(PARTIES.x, 1).handle):
        data = openfhe.Serialize(handle, openfhe.BINARY)
        structure, blocks = residues.split(data, 2048)
        assert structure.primes == PARTIES.params.primes[: len(structure.primes) // 2] * 2
        assert structure.fill(blocks) == data
        packed = packing.pack(blocks, structure.primes)
        again = packing.unpack("ciphertext", memoryview(packed), structure.primes, 2048)
        assert all((one == other).all() for one, other in zip(blocks, again, strict=True))


@check
def baby_steps_are_hoisted_and_giant_steps_divided_once() -> None:
    size = 16
    layout = periodic(np.arange(size), PARTIES.slots // size, PARTIES.slots)
    matrix = SparseMatrix.from_dense(np.random.default_rng(0).uniform(-1, 1, (size, size)))
    made = transform([(matrix, layout)], layout, LinearCost(1, 1))
    babies, giants = [s for s in made.babies[0] if s], [g.giant for g in made.outputs[0] if g.giant]
    assert len(babies) > 1
    assert len(giants) > 1
    holder = PARTIES.backend.keygen(PARTIES.params, KeyManifest(dict.fromkeys(made.rotations, PARTIES.top)))
    evaluator = PARTIES.backend.evaluator(PARTIES.params)
    evaluator.load_keys(dict(holder.evaluation_keys()))
    weights = [evaluator.encode(made.weight(k), PARTIES.top, PARTIES.small) for k in range(len(made.weights))]
    values = np.random.default_rng(1).uniform(-1, 1, (PARTIES.slots // size, size))
    ct = evaluator.load(holder.encrypt_bytes(layout.pack(values)[0], PARTIES.top, PARTIES.scale))
    counting = evaluator._openfhe = Counting(evaluator._openfhe)
    (found,) = evaluator.linear_transform([ct], made, weights)
    assert counting.calls["EvalFastRotationExt"] == len(babies) + len(giants)
    assert counting.calls["EvalFastRotationPrecompute"] == 1 + len(giants)
    assert counting.calls["KeySwitchDown"] == len(babies) + 1
    assert np.abs(holder.decrypt(found) - layout.pack(values @ matrix.dense().T)[0]).max() < 1e-2


@check
def matrices_for_bootstrapping_are_given_back() -> None:
    backend = OpenfheBackend()
    params = backend.resolve(backend.bootstrap_params(16, 1, allow_insecure=True))
    holder = backend.keygen(params, KeyManifest(relinearisation=False, bootstrap=True))
    assert [name for name, _ in holder.evaluation_keys()] == ["bootstrap"]
    key = (params.primes, params.slots)
    assert key in bootstrap._prepared
    del holder
    gc.collect()
    assert key not in bootstrap._prepared


@check
def a_bootstrap_that_leaves_too_little_is_an_error() -> None:
    backend = OpenfheBackend()
    params = backend.resolve(backend.bootstrap_params(8, 1, allow_insecure=True))
    promised = backend.bootstrapping(params)
    manifest = KeyManifest(dict.fromkeys(promised.rotations, params.max_level), conjugation=True, bootstrap=True)
    holder, evaluator = backend.keygen(params, manifest), backend.evaluator(params)
    evaluator.load_keys(dict(holder.evaluation_keys()))
    evaluator._bootstrapping = lambda: replace(promised, level_out=2)
    try:
        evaluator.bootstrap(evaluator.load(holder.encrypt_bytes(np.zeros(8), 1, promised.scale)))
    except LevelError as error:
        message = str(error)
    else:
        message = "none"
    assert "left 1 levels where 2 were promised" in message


@check
def two_level_budgets_on_one_chain_do_not_mix() -> None:
    """OpenFHE sees the same context in both, and keeps one set of matrices for it."""
    backend, both = OpenfheBackend(), []
    asked = backend.bootstrap_params(64, 5, allow_insecure=True)
    for budget in ((3, 3), (2, 2)):
        params = backend.resolve(replace(asked, bootstrap=budget))
        promised = backend.bootstrapping(params)
        manifest = KeyManifest(dict.fromkeys(promised.rotations, params.max_level), conjugation=True, bootstrap=True)
        holder, evaluator = backend.keygen(params, manifest), backend.evaluator(params)
        evaluator.load_keys(dict(holder.evaluation_keys()))
        both.append((promised, holder, evaluator))
    assert [promised.level_out for promised, _, _ in both] == [5, 7]
    values = np.random.default_rng(0).uniform(-4, 4, 64)
    for promised, holder, evaluator in both * 2:
        ct = evaluator.bootstrap(evaluator.load(holder.encrypt_bytes(values, 1, promised.scale)))
        assert np.abs(holder.decrypt(ct) - values).max() < 1e-3


if __name__ == "__main__":
    main()
