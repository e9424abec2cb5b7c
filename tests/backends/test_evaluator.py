"""Every public operation of an evaluator: its result, its level, its scale, and its refusals."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import SCALE, STEPS

from hefw.core.backend import Ciphertext
from hefw.core.errors import CapabilityError, EncodingError, HefwError, KeyMismatchError, LevelError, ScaleError
from hefw.core.layout import periodic
from hefw.core.linear import LinearCost, SparseMatrix, transform


@pytest.fixture
def a(parties) -> Ciphertext:
    return parties.encrypt(parties.x)


@pytest.fixture
def b(parties) -> Ciphertext:
    return parties.encrypt(parties.y)


def test_encryption_at_every_level(parties) -> None:
    for level in range(4):
        parties.check(parties.encrypt(parties.x, level), parties.x, level, SCALE)
    parties.check(parties.holder.encrypt(parties.x, 2, 2.0**35), parties.x, 2, 2.0**35)


def test_additions(parties, a, b) -> None:
    ev, x, y = parties.evaluator, parties.x, parties.y
    parties.check(ev.add(a, b), x + y, 3, SCALE)
    parties.check(ev.sub(a, b), x - y, 3, SCALE)
    parties.check(ev.negate(a), -x, 3, SCALE)
    parties.check(ev.add_plain(a, ev.encode(y, 3, SCALE)), x + y, 3, SCALE)
    parties.check(ev.add_plain(a, ev.encode(0.25, 3, SCALE)), x + 0.25, 3, SCALE)
    parties.check(ev.add_plain(a, ev.encode(np.zeros_like(x), 3, SCALE)), x, 3, SCALE)
    parties.check(ev.add_into(ev.negate(b), a), x - y, 3, SCALE)


def test_products(parties, a, b) -> None:
    ev, x, y = parties.evaluator, parties.x, parties.y
    parties.check(ev.mul_plain(a, ev.encode(y, 3, 2.0**25)), x * y, 3, 2.0**55)
    parties.check(ev.mul_plain(a, ev.encode(-1.5, 3, 2.0**25)), -1.5 * x, 3, 2.0**55)
    parties.check(ev.mul_scalar(a, 0.75, 2.0**20), 0.75 * x, 3, 2.0**50)
    parties.check(ev.mul(a, b), x * y, 3, 2.0**60)
    parties.check(ev.square(a), x * x, 3, 2.0**60)
    pairs = [(a, ev.encode(y, 3, 2.0**25)), (b, ev.encode(x, 3, 2.0**25)), (a, ev.encode(2.0, 3, 2.0**25))]
    parties.check(ev.multiply_accumulate(pairs), 2 * x * y + 2 * x, 3, 2.0**55)
    parties.check(ev.multiply_accumulate(pairs[:1]), x * y, 3, 2.0**55)


def test_complex_values(parties, a) -> None:
    ev, x, y = parties.evaluator, parties.x, parties.y
    z = x + 1j * y
    parties.check(parties.encrypt(z), z, 3, SCALE)
    parties.check(ev.conjugate(parties.encrypt(z)), np.conj(z), 3, SCALE)
    parties.check(ev.mul_plain(a, ev.encode(1j * y, 3, 2.0**25)), 1j * x * y, 3, 2.0**55)
    parties.check(ev.mul_plain(a, ev.encode(0.5 - 2j, 3, 2.0**25)), (0.5 - 2j) * x, 3, 2.0**55)


def test_relinearisation_is_explicit_where_it_is_wanted(parties, a, b) -> None:
    ev, x, y = parties.evaluator, parties.x, parties.y
    for wide, expected in ((ev.mul(a, b, relinearise=False), x * y), (ev.square(a, relinearise=False), x * x)):
        assert wide.size == 3
        for refused in (lambda w=wide: ev.rotate(w, 1), lambda w=wide: ev.mul(w, w), lambda w=wide: ev.conjugate(w)):
            with pytest.raises(ScaleError, match="relinearised first"):
                refused()
        added = ev.add(wide, wide)
        assert added.size == 3
        narrow = ev.relinearise(added)
        assert narrow.size == 2
        parties.check(narrow, 2 * expected, 3, 2.0**60)
        parties.check(ev.relinearise(ev.rescale(wide)), expected, 2, 2.0**60 / parties.params.primes[3])


def test_relinearise_leaves_its_operand_alone(parties, a, b) -> None:
    ev = parties.evaluator
    wide = ev.mul(a, b, relinearise=False)
    narrow = ev.relinearise(wide)
    ev.add_into(narrow, narrow)
    parties.check(wide, parties.x * parties.y, 3, 2.0**60)
    parties.check(ev.relinearise(wide), parties.x * parties.y, 3, 2.0**60)


def test_rescale_divides_the_scale_by_the_primes_dropped(parties) -> None:
    ev, primes = parties.evaluator, parties.params.primes
    big = parties.encrypt(parties.x, 3, 2.0**90)
    parties.check(ev.rescale(big), parties.x, 2, 2.0**90 / primes[3])
    parties.check(ev.rescale(big, 2), parties.x, 1, 2.0**90 / primes[3] / primes[2])
    parties.check(ev.rescale(big, 0), parties.x, 3, 2.0**90)


def test_drop_level_keeps_the_scale(parties, a) -> None:
    ev = parties.evaluator
    for level in range(4):
        parties.check(ev.drop_level(a, level), parties.x, level, SCALE)


@pytest.mark.parametrize("step", STEPS)
def test_rotation_by_k_moves_slot_i_plus_k_to_slot_i(parties, a, step) -> None:
    parties.check(parties.evaluator.rotate(a, step), np.roll(parties.x, -step), 3, SCALE)
    low = parties.evaluator.drop_level(a, 1)
    parties.check(parties.evaluator.rotate(low, step), np.roll(parties.x, -step), 1, SCALE)


def test_rotation_is_cyclic_over_all_slots(parties, a) -> None:
    ev, n = parties.evaluator, parties.params.slots
    assert ev.rotate(a, 0) is a
    assert ev.rotate(a, n) is a
    parties.check(ev.rotate(a, -1), np.roll(parties.x, 1), 3, SCALE)  # 2047 = -1
    parties.check(ev.rotate(a, n + 5), np.roll(parties.x, -5), 3, SCALE)
    parties.check(ev.rotate(ev.rotate(a, 1024), 1024), parties.x, 3, SCALE)
    parties.check(ev.rotate(ev.rotate(a, 1), -1), parties.x, 3, SCALE)


def test_rotate_many(parties, a) -> None:
    found = parties.evaluator.rotate_many(a, [0, 1, 1024, 5])
    for step, ct in zip([0, 1, 1024, 5], found, strict=True):
        parties.check(ct, np.roll(parties.x, -step), 3, SCALE)


def test_operations_leave_their_operands_alone(parties, a, b) -> None:
    ev = parties.evaluator
    weight = ev.encode(parties.y, 3, 2.0**25)
    constant = ev.encode(parties.y, 3, SCALE)
    for _ in range(2):
        ev.add(a, b), ev.sub(a, b), ev.negate(a), ev.add_plain(a, constant), ev.mul_plain(a, weight)
        ev.multiply_accumulate([(a, weight), (b, weight)])
        ev.mul(a, b), ev.square(a), ev.rescale(a), ev.drop_level(a, 1), ev.rotate(a, 1), ev.conjugate(a)
    parties.check(a, parties.x, 3, SCALE)
    parties.check(b, parties.y, 3, SCALE)
    parties.check(ev.mul_plain(a, weight), parties.x * parties.y, 3, 2.0**55)


def test_scales_that_differ_by_rounding_are_one(parties, a, b) -> None:
    ev = parties.evaluator
    drifted = replace(b, scale=b.scale * (1 + 1e-12))
    parties.check(ev.add(a, drifted), parties.x + parties.y, 3, SCALE)
    parties.check(ev.sub(a, drifted), parties.x - parties.y, 3, SCALE)
    parties.check(ev.add_plain(a, ev.encode(parties.y, 3, SCALE * (1 + 1e-12))), parties.x + parties.y, 3, SCALE)
    pairs = [(a, ev.encode(parties.y, 3, 2.0**25)), (drifted, ev.encode(parties.x, 3, 2.0**25))]
    parties.check(ev.multiply_accumulate(pairs), 2 * parties.x * parties.y, 3, 2.0**55)


def test_linear_transform_is_the_dense_product(parties) -> None:
    rng = np.random.default_rng(1)
    layout = periodic(np.arange(2), 1024, parties.params.slots)
    matrix = SparseMatrix.from_dense(np.array([[0.5, -1.0], [0.25, 2.0]]))
    made = transform([(matrix, layout)], layout, LinearCost(10, 1))
    assert set(made.rotations) <= set(STEPS)
    ev, values = parties.evaluator, rng.uniform(-1, 1, (1024, 2))
    weights = [ev.encode(made.weight(k), 3, 2.0**25) for k in range(len(made.weights))]
    before = Counter(ev.counts)
    (found,) = ev.linear_transform([parties.encrypt(layout.pack(values)[0])], made, weights)
    parties.check(found, layout.pack(values @ matrix.dense().T)[0], 3, 2.0**55)
    assert ev.counts["mul_plain"] - before["mul_plain"] == made.products
    assert ev.counts["rotate"] - before["rotate"] == len(made.rotations)


def test_every_operation_is_counted(parties, a, b) -> None:
    ev = parties.evaluator
    ev.counts.clear()
    ev.add(a, b), ev.sub(a, b), ev.add_plain(a, ev.encode(parties.y, 3, SCALE)), ev.mul_scalar(a, 2.0, 2.0**20)
    ev.rescale(ev.mul(a, b), 2), ev.drop_level(a, 0), ev.drop_level(a, 3), ev.rotate(a, 1), ev.rotate(a, 0)
    ev.conjugate(a), ev.square(a, relinearise=False)
    assert ev.counts == Counter(
        add=2, add_plain=1, encode=2, mul_plain=1, mul=2, relinearise=1, rescale=2, drop_level=1, rotate=1, conjugate=1
    )


# -- refusals -----------------------------------------------------------------------------------------------------


def test_exhausted_levels_are_refused(parties, a) -> None:
    ev = parties.evaluator
    low = ev.drop_level(a, 1)
    with pytest.raises(LevelError, match="rescale by 2 wants 2 levels, 1 remain; refresh before"):
        ev.rescale(low, 2)
    with pytest.raises(LevelError, match="level 1 cannot be dropped to level 2"):
        ev.drop_level(low, 2)
    with pytest.raises(LevelError, match="cannot be dropped to level -1"):
        ev.drop_level(low, -1)
    with pytest.raises(ScaleError, match="does not fit the modulus"):
        ev.square(ev.drop_level(a, 0))


def test_levels_and_scales_that_differ_are_refused(parties, a, b) -> None:
    ev = parties.evaluator
    low, plain = ev.drop_level(b, 2), ev.encode(parties.y, 2, SCALE)
    high, scaled = ev.encode(parties.y, 3, 2.0**31), replace(b, scale=2.0**31)
    for name, operands in {
        "add": (a, low),
        "add_into": (a, low),
        "sub": (a, low),
        "mul": (a, low),
        "add_plain": (a, plain),
        "mul_plain": (a, plain),
    }.items():
        with pytest.raises(LevelError, match="levels 3 and 2 differ; use drop_level"):
            getattr(ev, name)(*operands)
    for name, operands in {"add": (a, scaled), "sub": (a, scaled), "add_plain": (a, high)}.items():
        with pytest.raises(ScaleError, match=r"scales .* differ"):
            getattr(ev, name)(*operands)
    good = ev.encode(parties.y, 3, SCALE)
    with pytest.raises(LevelError, match="multiply_accumulate: levels 2 and 2 differ from 3"):
        ev.multiply_accumulate([(a, good), (low, plain)])
    with pytest.raises(ScaleError, match="multiply_accumulate: scale"):
        ev.multiply_accumulate([(a, good), (b, high)])
    with pytest.raises(EncodingError, match=r"multiply_accumulate.*at least one"):
        ev.multiply_accumulate([])


def test_a_rotation_without_its_key_is_refused(parties, a) -> None:
    with pytest.raises(KeyMismatchError, match="missing evaluation keys: rotation/7"):
        parties.evaluator.rotate(a, 7)
    bare = parties.backend.evaluator(parties.params)
    for operation in (lambda: bare.square(a), lambda: bare.conjugate(a), lambda: bare.rotate(a, 1)):
        with pytest.raises(KeyMismatchError, match="missing evaluation keys"):
            operation()
    with pytest.raises(KeyMismatchError, match="call load_keys"):
        bare.dump(a)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (np.full(2048, np.nan), EncodingError, "not finite"),
        (np.full(2048, np.inf), EncodingError, "not finite"),
        (np.full(2048, -np.inf * 1j), EncodingError, "not finite"),
        (math.nan, EncodingError, "not finite"),
        (np.zeros(2047), EncodingError, r"\(2047,\) values were given.*exactly \(2048,\)"),
        (np.zeros(0), EncodingError, r"\(0,\)"),
        (np.zeros((1, 2048)), EncodingError, r"\(1, 2048\)"),
        (np.full(2048, "a"), EncodingError, "cannot be encoded"),
        (np.full(2048, True), EncodingError, "bool"),
        (np.full(2048, None), EncodingError, "object"),
        (np.full(2048, 2.0**101), EncodingError, "exceed the modulus"),
        (2.0**101, EncodingError, "exceed the modulus"),
        (-(2.0**101), EncodingError, "exceed the modulus"),
    ],
    ids=str,
)
def test_values_that_cannot_be_encoded(parties, values, error, message) -> None:
    with pytest.raises(error, match=message):
        parties.evaluator.encode(values, 3, SCALE)
    with pytest.raises(error, match=message):
        parties.holder.encrypt(values, 3, SCALE)


def test_the_largest_values_are_encoded_or_refused_but_never_wrapped(parties) -> None:
    """Around the modulus: whatever is accepted comes back right."""
    room = parties.params.log_modulus(0) - 20
    for bits in np.arange(room - 2.5, room + 1, 0.25):
        for values in (np.full(2048, 2.0**bits), 2.0**bits * np.sign(parties.x), 2.0**bits):
            try:
                parties.evaluator.encode(values, 0, 2.0**20)
                found = parties.holder.decrypt(parties.holder.encrypt(values, 0, 2.0**20))
            except EncodingError as error:
                assert "modulus" in str(error)  # noqa: PT017
                assert bits > room - 2.1
            else:
                assert np.abs(found / 2.0**bits - np.asarray(values) / 2.0**bits).max() < 1e-2


def test_tiny_values_at_the_largest_scales(parties) -> None:
    for bits in np.arange(37.5, 41, 0.25):
        try:
            parties.evaluator.encode(np.full(2048, 1e-6), 0, 2.0**bits)
        except (EncodingError, ScaleError) as error:
            assert bits > 38
            assert str(error)  # noqa: PT017


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, 2.0**140])
def test_scales_that_do_not_exist(parties, scale) -> None:
    with pytest.raises(ScaleError, match="does not fit"):
        parties.evaluator.encode(parties.x, 3, scale)


@pytest.mark.parametrize("level", [-1, 4])
def test_levels_that_do_not_exist(parties, level) -> None:
    with pytest.raises(LevelError, match=f"level {level} does not exist.*0 to 3"):
        parties.evaluator.encode(parties.x, level, SCALE)
    with pytest.raises(LevelError, match=f"level {level} does not exist"):
        parties.holder.encrypt(parties.x, level, SCALE)


def test_products_that_hide_nothing_are_errors_of_hefw(parties, a) -> None:
    """A product with zeros, or a - a, has no secret left: SEAL refuses it, and so does hefw, by its own error."""
    ev = parties.evaluator
    for operation in (
        lambda: ev.mul_plain(a, ev.encode(np.zeros(2048), 3, SCALE)),
        lambda: ev.mul_plain(a, ev.encode(0.0, 3, SCALE)),
        lambda: ev.sub(a, a),
    ):
        try:
            found = operation()
        except HefwError as error:
            assert "transparent" in str(error)  # noqa: PT017
        else:
            assert np.abs(parties.holder.decrypt(found)).max() < 1e-3


def test_bootstrapping_is_refused_by_name(parties, a) -> None:
    with pytest.raises(CapabilityError, match=f"{parties.backend.name}.*cannot bootstrap.*refresh: client"):
        parties.evaluator.bootstrap(a)
    with pytest.raises(CapabilityError, match=parties.backend.name):
        parties.backend.require("bootstrap")
    parties.backend.require("conjugation")
