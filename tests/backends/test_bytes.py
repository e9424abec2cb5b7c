"""What crosses the wire: refused unless it is whole and meant for here; of one length, whatever it holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import MANIFEST, PARAMS, SCALE
from hypothesis import given, settings
from hypothesis import strategies as st

from hefw.backends.simulator.backend import SimulatorBackend
from hefw.backends.tenseal.backend import TensealBackend
from hefw.core.envelope import HEADER_SIZE, Envelope
from hefw.core.errors import EnvelopeError, HefwError, KeyMismatchError, LevelError, ScaleError


def readers(parties) -> list:
    return [parties.evaluator.load, parties.holder.decrypt_bytes]


def test_a_ciphertext_survives_the_trip(parties) -> None:
    sent = parties.holder.encrypt_bytes(parties.x, 3, SCALE)
    back = parties.evaluator.dump(parties.evaluator.load(sent))
    assert np.abs(parties.holder.decrypt_bytes(back).real - parties.x).max() < 1e-3
    envelope = Envelope.unpack(back)
    assert (envelope.level, envelope.scale, envelope.kind) == (3, SCALE, "ciphertext")
    assert envelope.key_id == parties.holder.key_id


@pytest.mark.parametrize("keep", [0, 10, HEADER_SIZE, HEADER_SIZE + 9, -1])
def test_truncated_ciphertexts_are_refused(parties, keep) -> None:
    sent = parties.holder.encrypt_bytes(parties.x, 3, SCALE)
    for read in readers(parties):
        with pytest.raises(EnvelopeError, match="truncated"):
            read(sent[:keep])
        with pytest.raises(EnvelopeError, match="too long"):
            read(sent + b"\0")


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_flipped_bytes_are_refused(parties, data) -> None:
    sent = bytearray(parties.holder.encrypt_bytes(parties.x, 1, SCALE))
    sent[data.draw(st.integers(0, len(sent) - 1))] ^= data.draw(st.integers(1, 255))
    for read in readers(parties):
        with pytest.raises(EnvelopeError):
            read(bytes(sent))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_payloads_that_lie_behind_a_correct_digest(parties, data) -> None:
    """The library's own parser gets them: it refuses, or reads what decrypts to nonsense. It never dies."""
    envelope = Envelope.unpack(parties.holder.encrypt_bytes(parties.x, 1, SCALE))
    payload = bytearray(envelope.payload)
    kind = data.draw(st.sampled_from(["flip", "cut", "random", "length"]))
    if kind == "flip":
        payload[data.draw(st.integers(0, min(len(payload), 300) - 1))] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        payload = payload[: data.draw(st.integers(0, len(payload) - 1))]
    elif kind == "length":
        payload[:8] = data.draw(st.binary(min_size=8, max_size=8))
    else:
        payload = bytearray(data.draw(st.binary(max_size=200)))
    forged = replace(envelope, payload=bytes(payload)).pack()
    for read in readers(parties):
        try:
            read(forged)
        except HefwError as error:
            assert str(error)  # noqa: PT017


@pytest.mark.parametrize("name", MANIFEST.names()[:3])
def test_damaged_keys_are_refused(parties, name) -> None:
    blob = dict(parties.holder.evaluation_keys())[name]
    flipped = bytearray(blob)
    flipped[-5000 % len(blob)] ^= 4
    garbage = replace(Envelope.unpack(blob), payload=b"\0" * 50).pack()
    for bad in (b"", blob[:-1], blob + b"x", bytes(flipped), garbage):
        with pytest.raises(EnvelopeError):
            parties.backend.evaluator(parties.params).load_keys({name: bad})


def test_announced_levels_and_scales_are_checked(parties) -> None:
    envelope = Envelope.unpack(parties.holder.encrypt_bytes(parties.x, 1, SCALE))
    for changes, error in [
        ({"level": 2}, EnvelopeError),
        ({"level": 0}, EnvelopeError),
        ({"level": 4}, LevelError),
        ({"level": 2**30}, LevelError),
        ({"scale": 2.0**71}, ScaleError),
        ({"kind": "rotation-key"}, EnvelopeError),
        ({"backend": "other"}, EnvelopeError),
        ({"params_digest": b"x" * 16}, EnvelopeError),
        ({"key_id": b"x" * 16}, (EnvelopeError, KeyMismatchError)),
    ]:
        for read in readers(parties):
            with pytest.raises(error):
                read(replace(envelope, **changes).pack())


def test_ciphertexts_of_other_parameters_and_backends_are_refused(parties) -> None:
    other = parties.backend.resolve(replace(PARAMS, modulus_bits=(40, 30, 30)))
    foreign = parties.backend.keygen(other, MANIFEST).encrypt_bytes(parties.x, 2, SCALE)
    library = SimulatorBackend() if parties.backend.name == "tenseal" else TensealBackend()
    abroad = library.keygen(library.resolve(PARAMS), MANIFEST).encrypt_bytes(parties.x, 2, SCALE)
    for read in readers(parties):
        with pytest.raises(EnvelopeError, match="made for other parameters"):
            read(foreign)
        with pytest.raises(EnvelopeError, match=f"made by backend {library.name!r}"):
            read(abroad)


def test_a_ciphertext_of_three_parts_is_not_taken(parties) -> None:
    if parties.backend.name == "simulator":
        return  # it has no parts
    wide = parties.evaluator.square(parties.encrypt(parties.x), relinearise=False)
    with pytest.raises(EnvelopeError, match="3 parts"):
        parties.evaluator.load(parties.evaluator.dump(wide))


def test_lengths_depend_on_the_level_alone(parties) -> None:
    rng = np.random.default_rng(3)
    fresh: dict[int, set[int]] = {}
    back: dict[int, set[int]] = {}
    for values in (np.zeros(2048), parties.x, 1e3 * rng.normal(size=2048), 1j * parties.y):
        for level in range(4):
            for scale in (2.0**20, 2.0**25):
                sent = parties.holder.encrypt_bytes(values, level, scale)
                fresh.setdefault(level, set()).add(len(sent))
                ct = parties.evaluator.load(sent)
                for result in (ct, parties.evaluator.rotate(ct, 1)):
                    back.setdefault(level, set()).add(len(parties.evaluator.dump(result)))
    assert all(len(lengths) == 1 for lengths in [*fresh.values(), *back.values()])


def test_keys_of_two_holders_have_the_same_lengths(parties) -> None:
    stranger = parties.backend.keygen(parties.params, MANIFEST)
    ours, theirs = (dict(h.evaluation_keys()) for h in (parties.holder, stranger))
    assert [len(b) for b in ours.values()] == [len(b) for b in theirs.values()]
    assert len({len(blob) for name, blob in ours.items() if name.startswith("rotation/") and len(name) == 10}) == 1
    if parties.backend.name == "tenseal":
        assert len({len(blob) for name, blob in ours.items() if name.startswith("rotation/")}) == 1


def test_two_encryptions_of_one_vector_differ(parties) -> None:
    sent = {parties.holder.encrypt_bytes(parties.x, 3, SCALE) for _ in range(3)}
    assert len(sent) == 3


def test_seeded_bytes_are_half_of_what_comes_back(parties) -> None:
    if not parties.backend.capabilities.seeded_bytes:
        return
    sent = parties.holder.encrypt_bytes(parties.x, 3, SCALE)
    assert len(sent) < 0.6 * len(parties.evaluator.dump(parties.evaluator.load(sent)))
