"""Keys: parameters resolved, secrets saved for their owner alone, and no key taken for another."""

from __future__ import annotations

import stat
from dataclasses import replace

import numpy as np
import pytest
from conftest import MANIFEST, PARAMS, SCALE

from hefw.core.backend import KeyManifest
from hefw.core.envelope import Envelope
from hefw.core.errors import EnvelopeError, KeyMismatchError, ParameterError
from hefw.core.params import CkksParams


def test_resolved_primes_are_distinct_ntt_primes_of_their_sizes(parties) -> None:
    primes = (*parties.params.primes, *parties.params.special_primes)
    assert len(set(primes)) == 5
    for prime, bits in zip(primes, (40, 30, 30, 30, 60), strict=True):
        assert prime % (2 * 4096) == 1
        assert prime.bit_length() == bits
    assert parties.backend.resolve(PARAMS) == parties.params


def test_parameters_that_a_library_lacks_are_refused(parties) -> None:
    small = CkksParams(32768, (20,) * 12, (20,), 15.0, allow_insecure=True)
    with pytest.raises(ParameterError, match=r"20 bits|\[20, "):
        parties.backend.resolve(small)  # there are not so many primes of 20 bits
    if parties.backend.name == "tenseal":
        with pytest.raises(ParameterError, match=r"no ring dimension 65536; allowed: 1024, .*32768"):
            parties.backend.resolve(CkksParams(65536, (60,), (60,), 40.0))
        with pytest.raises(ParameterError, match="one special prime"):
            parties.backend.resolve(replace(PARAMS, special_bits=(60, 60)))
        with pytest.raises(ParameterError, match="at least as large"):
            parties.backend.resolve(replace(PARAMS, special_bits=(30,)))


def test_a_saved_key_holder_decrypts_after_loading(parties, tmp_path) -> None:
    path = tmp_path / "secret.key"
    parties.holder.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["secret.key"]
    loaded = parties.backend.load_key_holder(parties.params, MANIFEST, path)
    assert loaded.key_id == parties.holder.key_id
    sent = parties.evaluator.dump(parties.evaluator.rotate(parties.encrypt(parties.x), 1))
    assert np.abs(loaded.decrypt_bytes(sent) - np.roll(parties.x, -1)).max() < 1e-3
    new = loaded.encrypt_bytes(parties.y, 3, SCALE)
    assert np.abs(parties.holder.decrypt_bytes(new) - parties.y).max() < 1e-3
    turned = parties.evaluator.rotate(parties.evaluator.load(new), 5)
    assert np.abs(loaded.decrypt(turned) - np.roll(parties.y, -5)).max() < 1e-3


def test_saving_over_a_readable_file_makes_it_private(parties, tmp_path) -> None:
    path = tmp_path / "secret.key"
    path.write_text("old")
    path.chmod(0o644)
    parties.holder.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_files_that_hold_no_secret_key_are_refused(parties, tmp_path) -> None:
    path = tmp_path / "k"
    parties.holder.save(path)
    good = path.read_bytes()
    other = parties.backend.resolve(replace(PARAMS, modulus_bits=(40, 30)))
    with pytest.raises(EnvelopeError, match="other parameters"):
        parties.backend.load_key_holder(other, MANIFEST, path)
    for bad in (b"", b"hello", good[:-1], good + b"x", parties.holder.encrypt_bytes(parties.x, 3, SCALE)):
        path.write_bytes(bad)
        with pytest.raises(EnvelopeError):
            parties.backend.load_key_holder(parties.params, MANIFEST, path)


def test_evaluation_keys_are_named_and_can_be_sent_again_alone(parties) -> None:
    blobs = dict(parties.holder.evaluation_keys())
    assert list(blobs) == MANIFEST.names()
    assert list(blobs) == ["relinearisation", "conjugation", *(f"rotation/{s}" for s in (1, 5, 1024, 2047))]
    fresh = parties.backend.evaluator(parties.params)
    for name in ["rotation/5", "rotation/5", "relinearisation"]:
        fresh.load_keys({name: blobs[name]})
    fresh.require_keys(["rotation/5", "relinearisation"])
    with pytest.raises(KeyMismatchError, match="missing evaluation keys: rotation/1;"):
        fresh.require_keys(["rotation/5", "rotation/1"])
    turned = fresh.rotate(fresh.load(parties.holder.encrypt_bytes(parties.x, 3, SCALE)), 5)
    assert np.abs(parties.holder.decrypt(turned) - np.roll(parties.x, -5)).max() < 1e-3


def test_only_what_the_manifest_asks_for_is_made(parties) -> None:
    holder = parties.backend.keygen(parties.params, KeyManifest({3: 1}, relinearisation=False))
    assert [name for name, _ in holder.evaluation_keys()] == ["rotation/3"]


def test_keys_under_a_wrong_name_are_refused(parties) -> None:
    blobs = dict(parties.holder.evaluation_keys())
    fresh = parties.backend.evaluator(parties.params)
    with pytest.raises(KeyMismatchError, match="'rotation/5' holds the key of rotation 1"):
        fresh.load_keys({"rotation/5": blobs["rotation/1"]})
    with pytest.raises(EnvelopeError, match="a rotation-key was expected, a relinearisation-key was sent"):
        fresh.load_keys({"rotation/5": blobs["relinearisation"]})
    for name in ("rotation", "rotation/", "rotation/x", "rotation/-1", "rotation/1/2", "secret", "ciphertext", "", "x"):
        with pytest.raises(KeyMismatchError, match="is not an evaluation key; known"):
            fresh.load_keys({name: blobs["rotation/1"]})
    assert fresh.keys == set()
    assert fresh.key_id is None


def test_a_secret_key_is_never_taken_for_an_evaluation_key(parties, tmp_path) -> None:
    parties.holder.save(tmp_path / "k")
    fresh = parties.backend.evaluator(parties.params)
    for name in ("secret", "relinearisation", "rotation/1"):
        with pytest.raises((EnvelopeError, KeyMismatchError)):
            fresh.load_keys({name: (tmp_path / "k").read_bytes()})


def test_a_key_whose_content_is_another_is_refused(parties) -> None:
    """The envelope says rotation/5, the payload turns by 1: noticed when it is loaded, not in the middle of a run."""
    blobs = dict(parties.holder.evaluation_keys())
    for inner, kind, item in (
        ("rotation/1", "rotation-key", 5),
        ("conjugation", "rotation-key", 5),
        ("rotation/1", "conjugation-key", 0),
        ("relinearisation", "rotation-key", 5),
    ):
        disguised = replace(Envelope.unpack(blobs[inner]), kind=kind, item=item).pack()
        name = "rotation/5" if item else "conjugation"
        with pytest.raises(EnvelopeError):
            parties.backend.evaluator(parties.params).load_keys({name: disguised})


def test_keys_and_ciphertexts_of_another_holder_are_refused(parties) -> None:
    stranger = parties.backend.keygen(parties.params, MANIFEST)
    assert stranger.key_id != parties.holder.key_id
    foreign = stranger.encrypt_bytes(parties.x, 3, SCALE)
    with pytest.raises((EnvelopeError, KeyMismatchError), match="another key"):
        parties.evaluator.load(foreign)
    with pytest.raises((EnvelopeError, KeyMismatchError), match="another key"):
        parties.holder.decrypt_bytes(foreign)
    with pytest.raises((EnvelopeError, KeyMismatchError), match="another key"):
        parties.evaluator.load_keys(dict(stranger.evaluation_keys()))


def test_key_ids_are_random_and_two_holders_differ(parties) -> None:
    ids = {parties.backend.keygen(parties.params, KeyManifest()).key_id for _ in range(3)}
    assert len(ids) == 3
    assert {len(i) for i in ids} == {16}
