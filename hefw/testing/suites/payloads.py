"""What crosses the wire: refused unless it is whole and meant for here; of one length, whatever it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hefw.core.backend import Ciphertext
from hefw.core.envelope import HEADER_SIZE, Envelope
from hefw.core.errors import EnvelopeError, HefwError, KeyMismatchError, LevelError, ScaleError
from hefw.testing.parties import Parties
from hefw.testing.process import prepare, run_child

FLIPS, FORGERIES = 25, 40


def readers(parties: Parties) -> list[Callable[[bytes], Any]]:
    """Everything that takes a ciphertext's bytes."""
    return [parties.evaluator.load, parties.holder.decrypt_bytes]


class Payloads:
    """Bytes of ciphertexts, good and bad."""

    def test_a_ciphertext_survives_the_trip(self, parties: Parties) -> None:
        back = parties.evaluator.dump(parties.encrypt(parties.x))
        assert np.abs(parties.holder.decrypt_bytes(back) - parties.x).max() < parties.precision.worst
        envelope = Envelope.unpack(back)
        assert (envelope.kind, envelope.level, envelope.scale) == ("ciphertext", parties.top, parties.scale)
        assert (envelope.backend, envelope.key_id) == (parties.backend.name, parties.holder.key_id)

    @pytest.mark.parametrize("keep", [0, 10, HEADER_SIZE, HEADER_SIZE + 9, -1])
    def test_truncated_and_oversized_bytes_are_refused(self, parties: Parties, keep: int) -> None:
        sent = parties.send(parties.x)
        huge = sent[: HEADER_SIZE - 40] + (2**40).to_bytes(8, "big") + sent[HEADER_SIZE - 32 :]
        for read in readers(parties):
            with pytest.raises(EnvelopeError, match="truncated"):
                read(sent[:keep])
            with pytest.raises(EnvelopeError, match="too long"):
                read(sent + b"\0")
            with pytest.raises(EnvelopeError, match="oversized"):
                read(huge)

    def test_flipped_bytes_are_refused(self, parties: Parties) -> None:
        rng, sent = np.random.default_rng(), parties.send(parties.x, 1)
        for position in (0, HEADER_SIZE - 1, HEADER_SIZE, len(sent) - 1, *rng.integers(len(sent), size=FLIPS)):
            flipped = bytearray(sent)
            flipped[position] ^= int(rng.integers(1, 256))
            for read in readers(parties):
                with pytest.raises(EnvelopeError):
                    read(bytes(flipped))

    def test_announced_levels_and_scales_are_checked(self, parties: Parties) -> None:
        envelope = Envelope.unpack(parties.send(parties.x, 1))
        beyond = float(2.0 ** (parties.params.log_modulus(1) + 1))
        changes: list[tuple[dict[str, Any], type[HefwError] | tuple[type[HefwError], ...]]] = [
            ({"level": 2}, EnvelopeError),
            ({"level": 0}, EnvelopeError),
            ({"level": parties.top + 1}, LevelError),
            ({"level": 2**30}, LevelError),
            ({"scale": beyond}, ScaleError),
            ({"kind": "rotation-key"}, EnvelopeError),
            ({"backend": "other"}, EnvelopeError),
            ({"params_digest": b"x" * 16}, EnvelopeError),
            ({"key_id": b"x" * 16}, (EnvelopeError, KeyMismatchError)),
        ]
        for change, error in changes:
            for read in readers(parties):
                with pytest.raises(error):
                    read(replace(envelope, **change).pack())

    def test_ciphertexts_of_other_parameters_and_backends_are_refused(self, parties: Parties) -> None:
        asked = parties.params.params
        other = parties.backend.resolve(replace(asked, modulus_bits=asked.modulus_bits[:-1]))
        stranger = parties.backend.keygen(other, parties.manifest)
        foreign = stranger.encrypt_bytes(parties.x, other.max_level, parties.scale)
        abroad = replace(Envelope.unpack(parties.send(parties.x)), backend="another").pack()
        for read in readers(parties):
            with pytest.raises(EnvelopeError, match="made for other parameters"):
                read(foreign)
            with pytest.raises(EnvelopeError, match="made by backend 'another'"):
                read(abroad)

    def test_a_ciphertext_of_three_parts_is_refused_or_read_right(self, parties: Parties, a: Ciphertext) -> None:
        """An envelope does not say how many parts there are; a library that has them must look."""
        ev = parties.evaluator
        dumped = ev.dump(ev.square(a, relinearise=False))
        try:
            loaded = ev.load(dumped)
        except EnvelopeError as error:
            assert "parts" in str(error)  # noqa: PT017
        else:
            turned = ev.rotate(loaded, 1)
            parties.check(turned, np.roll(parties.x, -1) ** 2, parties.top, parties.scale**2)

    def test_lengths_depend_on_the_level_alone(self, parties: Parties) -> None:
        rng = np.random.default_rng(3)
        n, complex_values = parties.slots, parties.backend.capabilities.complex_values
        fresh: dict[int, set[int]] = {}
        back: dict[int, set[int]] = {}
        last = 1j * parties.y if complex_values else parties.y
        for values in (np.zeros(n), parties.x, 1e3 * rng.normal(size=n), last):
            for level in range(parties.top + 1):
                for scale in (2.0**20, 2.0**25):
                    sent = parties.send(values, level, scale)
                    fresh.setdefault(level, set()).add(len(sent))
                    ct = parties.evaluator.load(sent)
                    for result in (ct, parties.evaluator.rotate(ct, 1)):
                        back.setdefault(level, set()).add(len(parties.evaluator.dump(result)))
        for what, lengths in (("fresh ciphertexts", fresh), ("results", back)):
            assert all(len(found) == 1 for found in lengths.values()), f"lengths of {what} by level: {lengths}"

    def test_keys_of_two_holders_have_the_same_lengths(self, parties: Parties) -> None:
        stranger = parties.backend.keygen(parties.params, parties.manifest)
        ours, theirs = (dict(h.evaluation_keys()) for h in (parties.holder, stranger))
        assert [len(blob) for blob in ours.values()] == [len(blob) for blob in theirs.values()]

    def test_two_encryptions_of_one_vector_differ_unless_simulated(self, parties: Parties) -> None:
        sent = {parties.send(parties.x) for _ in range(3)}
        assert len(sent) == 3 or parties.backend.capabilities.simulated

    # -- other processes --------------------------------------------------------------------------------------------

    def test_bytes_are_understood_by_a_server_in_another_process(
        self, parties: Parties, target: str, tmp_path: Path
    ) -> None:
        prepare(tmp_path, target, parties)
        for name, blob in parties.holder.evaluation_keys():
            (tmp_path / f"{name.replace('/', '-')}.key").write_bytes(blob)
        (tmp_path / "sent").write_bytes(parties.send(parties.x))
        run_child("serve", tmp_path)
        found = parties.holder.decrypt_bytes((tmp_path / "result").read_bytes())
        assert np.abs(found - np.roll(parties.x, -1) ** 2).max() < parties.precision.worst

    def test_a_saved_key_holder_goes_on_in_another_process(self, parties: Parties, target: str, tmp_path: Path) -> None:
        prepare(tmp_path, target, parties)
        parties.holder.save(tmp_path / "secret")
        (tmp_path / "sent").write_bytes(parties.evaluator.dump(parties.encrypt(parties.x)))
        assert run_child("hold", tmp_path) == parties.holder.key_id.hex()
        assert np.abs(np.load(tmp_path / "values.npy") - parties.x).max() < parties.precision.worst
        again = parties.evaluator.rotate(parties.evaluator.load((tmp_path / "again").read_bytes()), 1)
        assert parties.error(again, 2 * np.roll(parties.x, -1)) < 3 * parties.precision.worst

    def test_payloads_that_lie_behind_a_correct_digest(self, parties: Parties, target: str, tmp_path: Path) -> None:
        """The library's own parser gets them: it refuses, or reads what decrypts to nonsense. It never dies."""
        prepare(tmp_path, target, parties)
        parties.holder.save(tmp_path / "secret")
        (tmp_path / "relinearisation.key").write_bytes(dict(parties.holder.evaluation_keys())["relinearisation"])
        envelope, rng = Envelope.unpack(parties.send(parties.x, 1)), np.random.default_rng()
        for number in range(FORGERIES):
            payload = bytearray(envelope.payload)
            if number % 4 == 0:
                payload[rng.integers(min(len(payload), 300))] ^= int(rng.integers(1, 256))
            elif number % 4 == 1:
                del payload[rng.integers(len(payload)) :]
            elif number % 4 == 2:
                payload[:8] = rng.bytes(8)
            else:
                payload = bytearray(rng.bytes(int(rng.integers(200))))
            (tmp_path / f"{number}.forged").write_bytes(replace(envelope, payload=bytes(payload)).pack())
        seen = run_child("parse", tmp_path)
        assert len(seen) == 2 * FORGERIES
        assert set(seen.values()) <= {"refused", "read"}, seen
