"""What only Pyfhel has: its own bytes, one set of keys an object, keys for the secret that it made itself."""

from __future__ import annotations

import warnings
from dataclasses import replace
from importlib.resources import files

import msgpack
import numpy as np
import pytest
from Pyfhel import Pyfhel

from hefw.backends import frames
from hefw.backends.pyfhel import keyholder
from hefw.backends.pyfhel.backend import PyfhelBackend
from hefw.backends.pyfhel.context import Context
from hefw.backends.pyfhel.evaluator import KEYS_TOGETHER
from hefw.backends.tenseal.backend import TensealBackend
from hefw.core.backend import KeyManifest
from hefw.core.envelope import Envelope
from hefw.core.errors import CapabilityError, EnvelopeError, KeyMismatchError, ParameterError
from hefw.core.params import CkksParams
from hefw.testing.parties import Parties, Precision, make_parties, small_params
from hefw.testing.suites.isolation import reachable

SECURE = CkksParams(16384, (60, 45, 45, 45, 45), (60,), 45.0)


@pytest.fixture(scope="module")
def parties() -> Parties:
    backend = PyfhelBackend()
    return make_parties(backend, small_params(backend.capabilities), Precision())


# -- parameters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        SECURE,
        CkksParams(1024, (40,), (60,), 20.0, allow_insecure=True),
        CkksParams(4096, (40, 20, 30, 20), (60,), 20.0, allow_insecure=True),
        CkksParams(8192, (60, 60), (60,), 40.0),
        CkksParams(32768, (60, 30, 50, 50, 30), (60,), 40.0),
    ],
    ids=lambda params: str(params.ring_dimension),
)
def test_primes_are_those_of_tenseal(params: CkksParams) -> None:
    ours, theirs = PyfhelBackend().resolve(params), TensealBackend().resolve(params)
    assert (ours.primes, ours.special_primes) == (theirs.primes, theirs.special_primes)


def test_seal_checks_128_bits_unless_insecurity_is_allowed(parties: Parties) -> None:
    assert Context(PyfhelBackend().resolve(SECURE)).pyfhel.sec == 128
    assert Context(parties.params).pyfhel.sec == 0


def test_parameters_that_seal_lacks_are_refused(parties: Parties) -> None:
    resolve, asked = parties.backend.resolve, parties.params.params
    with pytest.raises(ParameterError, match=r"no primes of \[20, "):
        resolve(CkksParams(32768, (20,) * 12, (20,), 15.0, allow_insecure=True))
    with pytest.raises(ParameterError, match=r"no ring dimension 65536; allowed: 1024, .*32768"):
        resolve(CkksParams(65536, (60,), (60,), 40.0))
    with pytest.raises(ParameterError, match="one special prime"):
        resolve(replace(asked, special_bits=(60, 60)))
    with pytest.raises(ParameterError, match="at least as large"):
        resolve(replace(asked, special_bits=(30,)))


def test_primes_that_seal_refuses_are_an_error(parties: Parties) -> None:
    primes = parties.params.primes
    with pytest.raises(ParameterError, match=r"SEAL refuses primes of \(40, 30, 30, 30\) \+ \(60,\) bits"):
        Context(replace(parties.params, primes=(primes[0] + 2, *primes[1:])))


def test_pyfhel_has_nothing_to_warn_of(parties: Parties) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolved = parties.backend.resolve(parties.params.params)
        parties.backend.evaluator(resolved)
        parties.evaluator.rotate(parties.encrypt(parties.x), 5)


def test_keys_that_pyfhel_lacks_are_refused(parties: Parties) -> None:
    with pytest.raises(CapabilityError, match="'pyfhel' has no bootstrap"):
        parties.backend.keygen(parties.params, KeyManifest(bootstrap=True))
    envelope = Envelope.unpack(dict(parties.holder.evaluation_keys())["relinearisation"])
    sent = replace(envelope, kind="bootstrap-key").pack()
    with pytest.raises(CapabilityError, match="'pyfhel' has no bootstrap"):
        parties.backend.evaluator(parties.params).load_keys({"bootstrap": sent})


# -- bytes -------------------------------------------------------------------------------------------------------------


def test_frames_are_those_that_seal_writes(parties: Parties) -> None:
    primes, ring_dimension = parties.params.primes, parties.params.params.ring_dimension
    for level in range(parties.top + 1):
        ct = parties.encrypt(parties.x, level)
        saved = ct.handle.to_bytes()
        residues = frames.bare_ciphertext(saved)
        assert len(residues) == frames.residue_bytes(level + 1, ring_dimension)
        assert frames.ciphertext(primes[: level + 1], ring_dimension, ct.scale, residues) == saved


def test_key_files_are_those_that_seal_writes(parties: Parties) -> None:
    context = Context(parties.params)
    names = [f"rotation/{step}" for step in (77, 1, parties.slots - 1)]
    context.pyfhel.keyGen()
    context.pyfhel.relinKeyGen()
    saved = context.pyfhel.to_bytes_relin_key("none")
    payload = context.key_payload("relinearisation", saved)
    assert b"".join(context.key_file({"relinearisation": payload})) == saved
    payloads = {}
    for name in names:
        context.pyfhel.rotateKeyGen([int(name.partition("/")[2])])
        saved = context.pyfhel.to_bytes_rotate_key("none")
        payloads[name] = context.key_payload(name, saved)
        assert b"".join(context.key_file({name: payloads[name]})) == saved
    context.pyfhel.from_bytes_rotate_key(b"".join(context.key_file(payloads)))
    assert context.pyfhel.to_bytes_rotate_key("none") == b"".join(context.key_file(payloads))


def test_residues_above_their_prime_are_refused(parties: Parties) -> None:
    envelope = Envelope.unpack(parties.send(parties.x))
    forged = replace(envelope, payload=b"\xff" * 8 + envelope.payload[8:]).pack()
    for read in (parties.evaluator.load, parties.holder.decrypt_bytes):
        with pytest.raises(EnvelopeError, match="SEAL cannot read the ciphertext"):
            read(forged)
    for name, blob in parties.holder.evaluation_keys():
        envelope = Envelope.unpack(blob)
        forged = replace(envelope, payload=envelope.payload[:-8] + b"\xff" * 8).pack()
        with pytest.raises(EnvelopeError, match=f"SEAL cannot read the {name} key"):
            parties.evaluator.load_keys({name: forged})


def test_a_key_that_is_refused_takes_nothing_away(parties: Parties) -> None:
    evaluator = parties.backend.evaluator(parties.params)
    blobs = dict(parties.holder.evaluation_keys())
    evaluator.load_keys(blobs)
    for name, blob in blobs.items():
        envelope = Envelope.unpack(blob)
        with pytest.raises(EnvelopeError):
            evaluator.load_keys({name: replace(envelope, payload=envelope.payload[:-8] + b"\xff" * 8).pack()})
    turned = evaluator.square(evaluator.rotate(parties.encrypt(parties.x), 5))
    parties.check(turned, np.roll(parties.x, -5) ** 2, parties.top, parties.scale**2)


def test_arrays_that_cannot_be_written_are_encoded(parties: Parties) -> None:
    frozen = np.broadcast_to(np.float64(0.5), parties.slots)
    product = parties.evaluator.mul_plain(
        parties.encrypt(parties.x), parties.evaluator.encode(frozen, parties.top, parties.small)
    )
    parties.check(product, parties.x / 2, parties.top, parties.scale * parties.small)


# -- rotation keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [2, 3, 6, 101, 1000, 1022])
def test_any_rotation_has_a_key_of_its_own(parties: Parties, step: int) -> None:
    """Not composed of powers of two: only this one key is there."""
    holder = parties.backend.keygen(parties.params, KeyManifest({step: parties.top}, relinearisation=False))
    evaluator = parties.backend.evaluator(parties.params)
    evaluator.load_keys(dict(holder.evaluation_keys()))
    turned = evaluator.rotate(evaluator.load(holder.encrypt_bytes(parties.x, 1, parties.scale)), step)
    assert np.abs(holder.decrypt(turned) - np.roll(parties.x, -step)).max() < parties.precision.worst


def test_more_keys_than_one_object_takes(parties: Parties) -> None:
    """Also when they come by turns with rotations, and when one is sent again."""
    steps = [int(step) for step in np.random.default_rng(5).permutation(np.arange(1, KEYS_TOGETHER + 5))]
    holder = parties.backend.keygen(parties.params, KeyManifest(dict.fromkeys(steps, parties.top)))
    evaluator = parties.backend.evaluator(parties.params)
    blobs = dict(holder.evaluation_keys())
    order = [steps[0], *steps[:3], *steps, steps[1], steps[-1]]
    for step in order:
        evaluator.load_keys({f"rotation/{step}": blobs[f"rotation/{step}"]})
        if step in order[:4]:
            ct = evaluator.load(holder.encrypt_bytes(parties.x, 0, parties.scale))
            evaluator.rotate(ct, step)
    for step in steps:
        turned = evaluator.rotate(ct, step)
        assert np.abs(holder.decrypt(turned) - np.roll(parties.x, -step)).max() < parties.precision.worst


# -- who has which key -------------------------------------------------------------------------------------------------


def test_no_object_of_an_evaluator_has_a_secret_or_a_public_key(parties: Parties) -> None:
    ct = parties.evaluator.rotate(parties.encrypt(parties.x), 5)
    found = [item for _, item in reachable(parties.evaluator) if isinstance(item, Pyfhel)]
    assert len(found) == 3, "one for all operations, one for a set of rotation keys, one for conjugation"
    for item in found:
        assert item.is_secret_key_empty()
        assert item.is_public_key_empty()
        with pytest.raises(RuntimeError, match="Missing Public key"):
            item.decryptComplex(ct.handle)
        with pytest.raises(RuntimeError, match="Secret Key not initialized"):
            item.to_bytes_secret_key()


def test_nothing_can_be_taken_from_pyfhels_classes() -> None:
    """The reason why this backend has no `drop_secrets`; if this fails, it can have one."""
    for method in ("decryptComplex", "from_bytes_secret_key", "keyGen"):
        with pytest.raises(TypeError, match="immutable"):
            delattr(Pyfhel, method)


def test_a_loaded_key_holder_has_the_keys_that_were_saved_with_it(parties: Parties, tmp_path) -> None:
    parties.holder.save(tmp_path / "k")
    more = KeyManifest({5: 1, 6: 1})
    loaded = parties.backend.load_key_holder(parties.params, more, tmp_path / "k")
    with pytest.raises(KeyMismatchError, match=r"no key 'rotation/6'.*make a new key holder"):
        dict(loaded.evaluation_keys())
    loaded = parties.backend.load_key_holder(parties.params, parties.manifest, tmp_path / "k")
    loaded.save(tmp_path / "again")
    again = parties.backend.load_key_holder(parties.params, parties.manifest, tmp_path / "again")
    assert dict(again.evaluation_keys()) == dict(loaded.evaluation_keys())


def test_keys_that_do_not_fit_a_file_are_not_saved(parties: Parties, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(keyholder, "MAX_PAYLOAD", 1000)
    with pytest.raises(EnvelopeError, match=r"6 evaluation keys.*at most 1000 fit.*tenseal"):
        parties.holder.save(tmp_path / "k")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        lambda secret, public, saved: b"no list",
        lambda secret, public, saved: [secret],
        lambda secret, public, saved: [public, public, saved],
        lambda secret, public, saved: [secret, secret, saved],
        lambda secret, public, saved: [secret[:-1], public, saved],
        lambda secret, public, saved: [secret, public[:100], saved],
        lambda secret, public, saved: [secret, b"", saved],
        lambda secret, public, saved: [1, public, saved],
        lambda secret, public, saved: [secret, public, [1]],
        lambda secret, public, saved: [secret, public, {"rotation/1": "text"}],
    ],
)
def test_files_that_lie_behind_a_correct_digest_are_refused(parties: Parties, tmp_path, change) -> None:
    path = tmp_path / "k"
    parties.holder.save(path)
    envelope = Envelope.unpack(path.read_bytes())
    forged = msgpack.packb(change(*msgpack.unpackb(envelope.payload)))
    path.write_bytes(replace(envelope, payload=forged).pack())
    with pytest.raises(EnvelopeError, match="holds no secret key of Pyfhel"):
        parties.backend.load_key_holder(parties.params, parties.manifest, path)


# -- installation ------------------------------------------------------------------------------------------------------


def test_the_file_for_building_without_downloads_is_in_the_package() -> None:
    text = (files("hefw.backends.pyfhel") / "offline.cmake").read_text()
    for option in ("SEAL_USE_MSGSL", "SEAL_USE_ZLIB", "SEAL_USE_ZSTD", "SEAL_BUILD_DEPS"):
        assert f'set({option} OFF CACHE BOOL "" FORCE)' in text
