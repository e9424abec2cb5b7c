"""Keys: secrets saved for their owner alone, evaluation keys one by one, and no key taken for another."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hefw.core.backend import KeyManifest
from hefw.core.envelope import Envelope
from hefw.core.errors import EnvelopeError, KeyMismatchError
from hefw.testing.parties import Parties

FOREIGN = (EnvelopeError, KeyMismatchError)


class Keys:
    """Making, saving, sending and mixing up keys."""

    def test_resolving_gives_the_same_primes_every_time(self, parties: Parties) -> None:
        asked, found = parties.params.params, parties.params
        assert parties.backend.resolve(asked) == found
        assert found.backend == parties.backend.name
        for primes, sizes in ((found.primes, asked.modulus_bits), (found.special_primes, asked.special_bits)):
            for prime, bits in zip(primes, sizes, strict=True):
                assert abs(prime.bit_length() - bits) <= 1, f"a prime of {bits} bits was asked for, not {prime}"
        if not parties.backend.capabilities.simulated:
            chain = (*found.primes, *found.special_primes)
            assert len(set(chain)) == len(chain)
            assert all(prime % (2 * asked.ring_dimension) == 1 for prime in chain)

    def test_a_saved_key_holder_decrypts_after_loading(self, parties: Parties, tmp_path: Path) -> None:
        path = tmp_path / "secret.key"
        path.write_text("old")
        path.chmod(0o644)
        parties.holder.save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, "others can read the secret key"
        assert [p.name for p in tmp_path.iterdir()] == ["secret.key"]
        loaded = parties.backend.load_key_holder(parties.params, parties.manifest, path)
        assert loaded.key_id == parties.holder.key_id
        sent = parties.evaluator.dump(parties.evaluator.rotate(parties.encrypt(parties.x), 1))
        assert np.abs(loaded.decrypt_bytes(sent) - np.roll(parties.x, -1)).max() < parties.precision.worst
        new = loaded.encrypt_bytes(parties.y, parties.top, parties.scale)
        assert np.abs(parties.holder.decrypt_bytes(new) - parties.y).max() < parties.precision.worst
        fresh = parties.backend.evaluator(parties.params)  # keys made after loading are of the same secret
        fresh.load_keys(dict(loaded.evaluation_keys()))
        turned = fresh.rotate(fresh.load(new), 5)
        assert parties.error(turned, np.roll(parties.y, -5)) < parties.precision.worst

    def test_files_that_hold_no_secret_key_are_refused(self, parties: Parties, tmp_path: Path) -> None:
        path = tmp_path / "k"
        parties.holder.save(path)
        good = path.read_bytes()
        shorter = replace(parties.params.params, modulus_bits=parties.params.params.modulus_bits[:-1])
        with pytest.raises(EnvelopeError, match="other parameters"):
            parties.backend.load_key_holder(parties.backend.resolve(shorter), parties.manifest, path)
        for bad in (b"", b"hello", good[:-1], good + b"x", parties.send(parties.x)):
            path.write_bytes(bad)
            with pytest.raises(EnvelopeError):
                parties.backend.load_key_holder(parties.params, parties.manifest, path)

    def test_evaluation_keys_are_named_and_can_be_sent_again_alone(self, parties: Parties) -> None:
        blobs = dict(parties.holder.evaluation_keys())
        assert list(blobs) == parties.manifest.names()
        fresh = parties.backend.evaluator(parties.params)
        for name in ["rotation/5", "rotation/5", "relinearisation"]:
            fresh.load_keys({name: blobs[name]})
        fresh.require_keys(["rotation/5", "relinearisation"])
        with pytest.raises(KeyMismatchError, match="missing evaluation keys: rotation/1;"):
            fresh.require_keys(["rotation/5", "rotation/1"])
        turned = fresh.rotate(fresh.load(parties.send(parties.x)), 5)
        assert parties.error(turned, np.roll(parties.x, -5)) < parties.precision.worst

    def test_a_key_serves_the_levels_that_the_manifest_names(self, parties: Parties) -> None:
        """Up to its level a rotation is right; above it, it is refused, whatever the library would do."""
        backend, top = parties.backend, parties.top
        holder = backend.keygen(parties.params, KeyManifest({5: 1}))
        evaluator = backend.evaluator(parties.params)
        evaluator.load_keys(dict(holder.evaluation_keys()))
        for level in (0, 1):
            scale = parties.scale
            low = evaluator.load(holder.encrypt_bytes(parties.x, level, scale))
            turned = holder.decrypt(evaluator.rotate(low, 5))
            assert np.abs(turned - np.roll(parties.x, -5)).max() < parties.precision.worst
        high = evaluator.load(holder.encrypt_bytes(parties.x, top, parties.scale))
        for turn in (lambda: evaluator.rotate(high, 5), lambda: evaluator.rotate_many(high, [5])):
            with pytest.raises(KeyMismatchError, match=f"rotation/5 serves levels up to 1, the ciphertext has {top}"):
                turn()

    def test_only_what_the_manifest_asks_for_is_made(self, parties: Parties) -> None:
        holder = parties.backend.keygen(parties.params, KeyManifest({3: 1}, relinearisation=False))
        assert [name for name, _ in holder.evaluation_keys()] == ["rotation/3"]

    def test_keys_under_a_wrong_name_are_refused(self, parties: Parties) -> None:
        blobs = dict(parties.holder.evaluation_keys())
        fresh = parties.backend.evaluator(parties.params)
        with pytest.raises(KeyMismatchError, match="'rotation/5' holds the key of rotation 1"):
            fresh.load_keys({"rotation/5": blobs["rotation/1"]})
        with pytest.raises(EnvelopeError, match="a rotation-key was expected, a relinearisation-key was sent"):
            fresh.load_keys({"rotation/5": blobs["relinearisation"]})
        for name in ("rotation", "rotation/", "rotation/x", "rotation/-1", "rotation/1/2", "secret", "ciphertext", ""):
            with pytest.raises(KeyMismatchError, match="is not an evaluation key; known"):
                fresh.load_keys({name: blobs["rotation/1"]})
        assert not fresh.keys
        assert fresh.key_id is None

    def test_a_key_whose_content_is_another_is_refused(self, parties: Parties) -> None:
        """The envelope says rotation/5, the payload turns by 1: noticed when it is loaded, not in a run."""
        blobs = dict(parties.holder.evaluation_keys())
        for inner, outer in [(i, o) for i in blobs for o in ("rotation/5", "relinearisation", "conjugation")]:
            if inner == outer or outer not in blobs:
                continue
            shown = Envelope.unpack(blobs[outer])
            disguised = replace(shown, payload=Envelope.unpack(blobs[inner]).payload).pack()
            with pytest.raises(EnvelopeError):
                parties.backend.evaluator(parties.params).load_keys({outer: disguised})

    def test_damaged_keys_are_refused(self, parties: Parties) -> None:
        blobs = dict(parties.holder.evaluation_keys())
        for name in ("relinearisation", "rotation/1"):
            blob = blobs[name]
            flipped = bytearray(blob)
            flipped[-5000 % len(blob)] ^= 4
            garbage = replace(Envelope.unpack(blob), payload=b"\0" * 50).pack()
            for bad in (b"", blob[:-1], blob + b"x", bytes(flipped), garbage):
                with pytest.raises(EnvelopeError):
                    parties.backend.evaluator(parties.params).load_keys({name: bad})

    def test_a_secret_key_is_never_taken_for_an_evaluation_key(self, parties: Parties, tmp_path: Path) -> None:
        parties.holder.save(tmp_path / "k")
        fresh = parties.backend.evaluator(parties.params)
        for name in ("secret", "relinearisation", "rotation/1"):
            with pytest.raises(FOREIGN):
                fresh.load_keys({name: (tmp_path / "k").read_bytes()})

    def test_key_ids_are_random(self, parties: Parties) -> None:
        ids = {parties.backend.keygen(parties.params, KeyManifest()).key_id for _ in range(3)}
        assert len(ids | {parties.holder.key_id}) == 4
        assert {len(i) for i in ids} == {16}

    def test_keys_and_ciphertexts_of_another_holder_are_refused(self, parties: Parties) -> None:
        stranger = parties.backend.keygen(parties.params, parties.manifest)
        foreign = stranger.encrypt_bytes(parties.x, parties.top, parties.scale)
        with pytest.raises(FOREIGN, match="another key"):
            parties.evaluator.load(foreign)
        with pytest.raises(FOREIGN, match="another key"):
            parties.holder.decrypt_bytes(foreign)
        with pytest.raises(FOREIGN, match="another key"):
            parties.evaluator.load_keys(dict(stranger.evaluation_keys()))

    def test_two_key_holders_in_one_process_do_not_mix(self, parties: Parties) -> None:
        """Made and used by turns: a library that keeps keys in one place for all would take the later one's."""
        backend, params = parties.backend, parties.params
        holders = [backend.keygen(params, parties.manifest) for _ in range(2)]
        values = (parties.x, parties.y)
        evaluators = []
        for holder in holders:
            evaluators.append(backend.evaluator(params))
            evaluators[-1].load_keys(dict(holder.evaluation_keys()))
        for _ in range(2):
            sent = [h.encrypt_bytes(v, parties.top, parties.scale) for h, v in zip(holders, values, strict=True)]
            for holder, evaluator, value, data in zip(holders, evaluators, values, sent, strict=True):
                result = evaluator.rescale(evaluator.square(evaluator.rotate(evaluator.load(data), 1)))
                found = holder.decrypt_bytes(evaluator.dump(result))
                assert np.abs(found - np.roll(value, -1) ** 2).max() < parties.precision.worst
