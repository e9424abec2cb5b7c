"""Tensors in two parts: what was sent comes back, what is malformed is refused, and what is sent is listed."""

from __future__ import annotations

import contextlib
import math

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hefw.core.errors import EnvelopeError
from hefw.protocol.packing import Packing
from hefw.protocol.parts import LEVELS, SMALLEST, UNIT_BITS, Part, rounded

masks = st.integers(1, 70).flatmap(lambda size: arrays.arrays(np.bool_, size))
numbers = st.floats(-1e6, 1e6, width=32)


@st.composite
def parts(draw: st.DrawFn) -> Part:
    """Of any mask, in floats or in 8 bits."""
    mask = draw(masks)
    values = np.where(mask, 0.0, draw(arrays.arrays(np.float64, mask.shape, elements=numbers)))
    ciphertexts = tuple(draw(st.lists(st.binary(max_size=20), max_size=3)))
    if draw(st.booleans()):
        values, unit = rounded(values, mask)
        return Part(mask, values, ciphertexts, unit)
    return Part(mask, values, ciphertexts)


def sent(part: Part) -> dict:
    """What arrives of it."""
    return msgpack.unpackb(msgpack.packb(part.pack()))


# -- round trip --------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(parts())
def test_roundtrip(part) -> None:
    found = Part.unpack(sent(part), len(part.mask))
    assert np.array_equal(found.mask, part.mask)
    assert np.array_equal(found.values, part.values)
    assert (found.ciphertexts, found.unit) == (part.ciphertexts, part.unit)


def test_plaintext_is_as_precise_as_32_bits() -> None:
    values = np.random.default_rng(0).normal(size=50)
    found = Part.unpack(sent(Part(np.zeros(50, bool), values)), 50)
    assert np.array_equal(found.values, values.astype(np.float32))


# -- what is sent and what is listed -----------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(parts())
def test_nothing_is_sent_that_is_not_listed(part) -> None:
    """Bytes by form, on both sides; an encrypted entry has no byte in the plaintext."""
    data, entries = sent(part), len(part.mask)
    shown = int((~part.mask).sum())
    listed = {(item, form): (count, size) for item, form, count, size in part.contents("latent")}
    assert list(part.contents("latent")) == list(Part.unpack(data, entries).contents("latent"))
    assert listed.pop(("latent", "ciphertext"), (None, 0))[1] == sum(map(len, data.pop("ciphertexts")))
    assert listed.pop(("latent", "plaintext"), (0, 0)) == (shown, len(data["values"]))
    assert len(data.pop("values")) == shown * (1 if part.unit else 4)
    mask = data.pop("mask")
    assert listed.pop(("selection of latent", "derived"), (0, 0)) == (entries if shown else 0, len(mask))
    unit = data.pop("unit")
    assert listed.pop(("unit of latent", "derived"), None) == ((1, 8) if shown and unit else None)
    assert data == {"entries": entries}, "nothing else is sent but a count"
    assert listed == {}, "nothing else is listed"


# -- what is malformed -------------------------------------------------------------------------------------------------


GOOD = sent(Part(np.arange(20) % 3 > 0, np.where(np.arange(20) % 3, 0.0, np.arange(20.0)), (b"c",)))
ROUNDED = sent(Part(np.arange(20) > 9, np.where(np.arange(20) > 9, 0.0, 0.5), (), 0.5))


def test_the_good_ones_are_read() -> None:
    assert Part.unpack(GOOD, 20).values[3] == 3
    assert Part.unpack(ROUNDED, 20).values[:10].tolist() == [0.5] * 10


@pytest.mark.parametrize(
    ("base", "changes", "words"),
    [
        (GOOD, {"mask": None}, "must have a mask"),
        (GOOD, {"mask": "text"}, "must have a mask"),
        (GOOD, {"values": [1.0]}, "must have a mask"),
        (GOOD, {"unit": 0}, "must have a mask"),
        (GOOD, {"unit": -1.0}, "must have a mask"),
        (GOOD, {"unit": math.nan}, "must have a mask"),
        (GOOD, {"unit": math.inf}, "must have a mask"),
        (GOOD, {"ciphertexts": b"c"}, "must have a mask"),
        (GOOD, {"ciphertexts": ["c"]}, "must have a mask"),
        (GOOD, {"entries": 21}, "a tensor of 21 entries came; 20 are expected"),
        (GOOD, {"entries": "x" * 99}, "a tensor of xxxxxxxxxxxxxxxxxxxx entries came"),
        (GOOD, {"mask": bytes(2)}, "20 are expected"),
        (GOOD, {"mask": bytes(4)}, "20 are expected"),
        (GOOD, {"mask": b""}, "28 bytes of plaintext came for 0 entries"),
        (GOOD, {"mask": b"\xff" * 3, "values": b""}, "a mask came that shows no entry"),
        (GOOD, {"mask": bytes(3)}, "28 bytes of plaintext came for 20 entries that the mask shows"),
        (GOOD, {"values": GOOD["values"][:-1]}, "27 bytes of plaintext"),
        (GOOD, {"values": np.full(7, np.nan, "<f4").tobytes()}, "not finite"),
        (GOOD, {"values": np.full(7, -np.inf, "<f4").tobytes()}, "not finite"),
        (GOOD, {"unit": 0.5}, "28 bytes of plaintext came for 7 entries"),
        (ROUNDED, {"unit": 0.0}, "10 bytes of plaintext came for 10 entries"),
        (ROUNDED, {"unit": 1e308, "values": b"\x7f" * 10}, "not finite"),
    ],
)
def test_malformed_is_refused(base, changes, words) -> None:
    with pytest.raises(EnvelopeError, match=words) as caught:
        Part.unpack({**base, **changes}, 20)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("data", [None, 3, [], b"", "parts", {}])
def test_no_parts_at_all(data) -> None:
    with pytest.raises(EnvelopeError, match="a tensor's parts must"):
        Part.unpack(data, 20)


small = st.none() | st.booleans() | st.integers(-3, 70) | st.floats() | st.text(max_size=4) | st.binary(max_size=90)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([GOOD, ROUNDED]), st.dictionaries(st.sampled_from([*GOOD, "x"]), small | st.lists(small)))
def test_anything_is_read_or_refused(base, changes) -> None:
    """What is read is finite, of the entries expected, and 0 where a ciphertext holds it."""
    with contextlib.suppress(EnvelopeError):
        found = Part.unpack({**base, **changes}, 20)
        assert found.mask.shape == found.values.shape == (20,)
        assert np.isfinite(found.values).all()
        assert not found.values[found.mask].any()


# -- 8 bits ------------------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    masks.flatmap(
        lambda mask: st.tuples(st.just(mask), arrays.arrays(np.float64, mask.shape, elements=st.floats(-1e30, 1e30)))
    )
)
def test_rounding(of) -> None:
    """Multiples of a unit of few bits, at most 127 of them either way, off by half of it; nothing of what is hidden."""
    mask, values = of
    found, unit = rounded(values, mask)
    assert not found[mask].any()
    assert unit > 0
    mantissa = math.frexp(unit)[0] * 2**UNIT_BITS
    assert mantissa == int(mantissa), "the unit tells of the largest entry its order of magnitude, and three bits"
    levels = found / unit
    assert np.array_equal(levels, np.rint(levels))
    assert np.abs(levels).max() <= LEVELS
    assert np.abs(found - values)[~mask].max(initial=0.0) <= unit / 2 * (1 + 1e-12)
    largest = np.abs(values[~mask]).max(initial=0.0)
    assert largest < SMALLEST or unit / 2 <= 0.005 * largest, "not coarser than it must be"


def test_rounding_tells_nothing_of_hidden_entries() -> None:
    values, mask = np.array([1.0, 0.3, 1e9, -0.2]), np.array([False, False, True, False])
    other = values.copy()
    other[2] = -5.0
    (found, unit), (again, same) = rounded(values, mask), rounded(other, mask)
    assert unit == same
    assert np.array_equal(found, again)


@pytest.mark.parametrize("mask", [np.zeros(5, bool), np.ones(5, bool), np.arange(5) > 2])
def test_zeros_stay_zeros(mask) -> None:
    found, unit = rounded(np.where(mask, 3.0, 0.0), mask)
    assert not found.any()
    assert unit == 1
    assert not Part.unpack(sent(Part(mask, found, (), unit)), 5).values.any()


# -- two numbers in a slot ---------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 40), st.sampled_from([1, 2, 4, 8]), st.booleans())
def test_packing(count, slots, paired) -> None:
    values = np.arange(1.0, count + 1)
    packing = Packing(slots, paired)
    packed = packing.pack(values)
    assert packed.shape == (packing.ciphertexts(count), slots)
    assert packing.ciphertexts(count) == math.ceil(count / (2 * slots if paired else slots))
    assert packing.positions(count) == (math.ceil(count / 2) if paired else count)
    assert np.array_equal(packing.unpack(packed, count), values)
    flat = packed.ravel()
    if paired and count > 1:
        assert (flat[0].real, flat[0].imag) == (1, 2)
    assert flat.real.sum() + flat.imag.sum() == values.sum(), "zeros where nothing lies"
