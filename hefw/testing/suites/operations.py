"""Every public operation of an evaluator: its result, its level, its scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from hefw.core.backend import Ciphertext, imaginary
from hefw.core.diagonals import LinearCost, transform
from hefw.core.errors import CapabilityError, HefwError
from hefw.core.layout import periodic
from hefw.core.sparse import SparseMatrix
from hefw.testing.parties import Parties


class Operations:
    """Results, levels and scales."""

    def test_encryption_at_every_level(self, parties: Parties) -> None:
        for level in range(parties.top + 1):
            parties.check(parties.encrypt(parties.x, level), parties.x, level, parties.scale)
        wider = parties.scale * 32
        parties.check(parties.holder.encrypt(parties.x, 2, wider), parties.x, 2, wider)

    def test_additions(self, parties: Parties, a: Ciphertext, b: Ciphertext) -> None:
        ev, x, y, top, scale = parties.evaluator, parties.x, parties.y, parties.top, parties.scale
        parties.check(ev.add(a, b), x + y, top, scale)
        parties.check(ev.sub(a, b), x - y, top, scale)
        parties.check(ev.negate(a), -x, top, scale)
        parties.check(ev.add_plain(a, ev.encode(y, top, scale)), x + y, top, scale)
        parties.check(ev.add_plain(a, ev.encode(0.25, top, scale)), x + 0.25, top, scale)
        parties.check(ev.add_plain(a, ev.encode(np.zeros_like(x), top, scale)), x, top, scale)
        parties.check(ev.add_into(ev.negate(b), a), x - y, top, scale)
        parties.check(ev.add_plain_into(ev.negate(b), ev.encode(x, top, scale)), x - y, top, scale)

    def test_products(self, parties: Parties, a: Ciphertext, b: Ciphertext) -> None:
        ev, x, y, top, scale, small = (
            parties.evaluator,
            parties.x,
            parties.y,
            parties.top,
            parties.scale,
            parties.small,
        )
        parties.check(ev.mul_plain(a, ev.encode(y, top, small)), x * y, top, scale * small)
        parties.check(ev.mul_plain(a, ev.encode(-1.5, top, small)), -1.5 * x, top, scale * small)
        parties.check(ev.mul_scalar(a, 0.75, small / 8), 0.75 * x, top, scale * small / 8)
        parties.check(ev.mul(a, b), x * y, top, scale**2)
        parties.check(ev.square(a), x * x, top, scale**2)
        pairs = [(a, ev.encode(y, top, small)), (b, ev.encode(x, top, small)), (a, ev.encode(2.0, top, small))]
        parties.check(ev.multiply_accumulate(pairs), 2 * x * y + 2 * x, top, scale * small)
        parties.check(ev.multiply_accumulate(pairs[:1]), x * y, top, scale * small)
        wide = ev.mul(a, b, relinearise=False)
        total = ev.multiply_accumulate([(wide, ev.encode(k, top, small)) for k in (0.5, -1.0, 2.0)])
        parties.check(ev.relinearise(total), 1.5 * x * y, top, scale**2 * small)

    def test_squares_of_real_and_imaginary_parts(self, parties: Parties, a: Ciphertext) -> None:
        ev, able, top = parties.evaluator, parties.backend.capabilities, parties.top
        if not (able.conjugation and able.complex_values):
            with pytest.raises(CapabilityError, match=parties.backend.name):
                ev.square_parts(a)
            return
        unit = imaginary(parties.slots, alternating=able.alternating_imaginary)
        expected = parties.x**2 + unit * parties.y**2
        before = Counter(ev.counts)
        for level in (top, 2):
            z = parties.encrypt(parties.x + unit * parties.y, level)
            found = ev.square_parts(z)
            parties.check(found, expected, level, 4 * parties.scale**2)
            parties.check(z, parties.x + unit * parties.y, level, parties.scale)
        assert ev.counts - before == Counter(mul=4, relinearise=2, conjugate=2, mul_imaginary=2, add=6)

    def test_division_by_reading_the_scale(self, parties: Parties, a: Ciphertext) -> None:
        parties.check(parties.evaluator.divide(a, 4), parties.x / 4, parties.top, 4 * parties.scale)

    def test_relinearisation_is_explicit_where_it_is_wanted(
        self, parties: Parties, a: Ciphertext, b: Ciphertext
    ) -> None:
        ev, x, y, top, scale = parties.evaluator, parties.x, parties.y, parties.top, parties.scale
        for wide, expected in ((ev.mul(a, b, relinearise=False), x * y), (ev.square(a, relinearise=False), x * x)):
            assert wide.size == 3
            added = ev.add(wide, wide)
            assert added.size == 3
            narrow = ev.relinearise(added)
            assert narrow.size == 2
            parties.check(narrow, 2 * expected, top, scale**2)
            rescaled = ev.relinearise(ev.rescale(wide))
            parties.check(rescaled, expected, top - 1, scale**2 / parties.params.primes[top])

    def test_relinearise_leaves_its_operand_alone(self, parties: Parties, a: Ciphertext, b: Ciphertext) -> None:
        ev, expected = parties.evaluator, parties.x * parties.y
        wide = ev.mul(a, b, relinearise=False)
        narrow = ev.relinearise(wide)
        ev.add_into(narrow, narrow)
        parties.check(wide, expected, parties.top, parties.scale**2)
        parties.check(ev.relinearise(wide), expected, parties.top, parties.scale**2)

    def test_rescale_divides_the_scale_by_the_primes_dropped(self, parties: Parties) -> None:
        ev, primes, top, scale = parties.evaluator, parties.params.primes, parties.top, parties.scale**3
        big = parties.encrypt(parties.x, top, scale)
        parties.check(ev.rescale(big), parties.x, top - 1, scale / primes[top])
        parties.check(ev.rescale(big, 2), parties.x, top - 2, scale / primes[top] / primes[top - 1])
        parties.check(ev.rescale(big, 0), parties.x, top, scale)

    def test_drop_level_keeps_the_scale(self, parties: Parties, a: Ciphertext) -> None:
        for level in range(parties.top + 1):
            parties.check(parties.evaluator.drop_level(a, level), parties.x, level, parties.scale)

    def test_rotation_by_k_moves_slot_i_plus_k_to_slot_i(self, parties: Parties, a: Ciphertext) -> None:
        low = parties.evaluator.drop_level(a, 1)
        for step in parties.manifest.rotations:
            for ct in (a, low):
                turned = parties.evaluator.rotate(ct, step)
                parties.check(turned, np.roll(parties.x, -step), ct.level, parties.scale)

    def test_rotation_is_cyclic_over_all_slots(self, parties: Parties, a: Ciphertext) -> None:
        ev, n, x, top, scale = parties.evaluator, parties.slots, parties.x, parties.top, parties.scale
        parties.check(ev.rotate(a, 0), x, top, scale)
        parties.check(ev.rotate(a, n), x, top, scale)
        parties.check(ev.rotate(a, -1), np.roll(x, 1), top, scale)  # by the key of n - 1
        parties.check(ev.rotate(a, n + 5), np.roll(x, -5), top, scale)
        parties.check(ev.rotate(ev.rotate(a, n // 2), n // 2), x, top, scale)
        parties.check(ev.rotate(ev.rotate(a, 1), -1), x, top, scale)

    def test_rotate_many(self, parties: Parties, a: Ciphertext) -> None:
        steps = [0, 1, parties.slots // 2, 5]
        for step, ct in zip(steps, parties.evaluator.rotate_many(a, steps), strict=True):
            parties.check(ct, np.roll(parties.x, -step), parties.top, parties.scale)

    def test_operations_leave_their_operands_alone(self, parties: Parties, a: Ciphertext, b: Ciphertext) -> None:
        ev, top = parties.evaluator, parties.top
        weight, constant = ev.encode(parties.y, top, parties.small), ev.encode(parties.y, top, parties.scale)
        for _ in range(2):
            ev.add(a, b), ev.sub(a, b), ev.negate(a), ev.mul(a, b), ev.square(a), ev.drop_level(a, 0)
            ev.mul_plain(a, weight), ev.add_plain(a, constant), ev.multiply_accumulate([(a, weight), (b, weight)])
            ev.rotate(a, 1), ev.rotate_many(a, [1, 5]), ev.rescale(a), ev.dump(a)
            ev.add_into(ev.negate(a), b)
        parties.check(a, parties.x, top, parties.scale)
        parties.check(b, parties.y, top, parties.scale)
        parties.check(ev.mul_plain(a, weight), parties.x * parties.y, top, parties.scale * parties.small)

    def test_linear_transform_is_the_dense_product(self, parties: Parties) -> None:
        half = parties.slots // 2
        layout = periodic(np.arange(2), half, parties.slots)
        matrix = SparseMatrix.from_dense(np.array([[0.5, -1.0], [0.25, 2.0]]))
        made = transform([(matrix, layout)], layout, LinearCost(10, 1))
        ev, values = parties.evaluator, np.random.default_rng(1).uniform(-1, 1, (half, 2))
        weights = [ev.encode(made.weight(k), parties.top, parties.small) for k in range(len(made.weights))]
        before = Counter(ev.counts)
        (found,) = ev.linear_transform([parties.encrypt(layout.pack(values)[0])], made, weights)
        expected = layout.pack(values @ matrix.dense().T)[0]
        assert ev.counts["mul_plain"] - before["mul_plain"] == made.products
        assert ev.counts["rotate"] - before["rotate"] == len(made.rotations)
        parties.check(found, expected, parties.top, parties.scale * parties.small)

    def test_every_operation_is_counted(self, parties: Parties, a: Ciphertext, b: Ciphertext) -> None:
        ev, top = parties.evaluator, parties.top
        before = Counter(ev.counts)
        ev.add(a, b), ev.sub(a, b), ev.add_plain(a, ev.encode(parties.y, top, parties.scale))
        ev.mul_scalar(a, 2.0, parties.small), ev.rescale(ev.mul(a, b), 2), ev.drop_level(a, 0), ev.drop_level(a, top)
        ev.rotate(a, 1), ev.rotate(a, 0), ev.square(a, relinearise=False)
        assert ev.counts - before == Counter(
            add=2, add_plain=1, encode=2, mul_plain=1, mul=2, relinearise=1, rescale=2, drop_level=1, rotate=1
        )

    def test_products_that_hide_nothing_are_right_or_refused(self, parties: Parties, a: Ciphertext) -> None:
        """A product with zeros, or a - a, has no secret left: some libraries refuse it; then by an error of hefw."""
        ev, top = parties.evaluator, parties.top
        operations: list[Callable[[], Ciphertext]] = [
            lambda: ev.mul_plain(a, ev.encode(np.zeros(parties.slots), top, parties.scale)),
            lambda: ev.mul_plain(a, ev.encode(0.0, top, parties.scale)),
            lambda: ev.multiply_accumulate([(a, ev.encode(0.0, top, parties.scale))]),
            lambda: ev.sub(a, a),
            lambda: ev.add(ev.negate(a), a),
            lambda: ev.add_into(ev.negate(a), a),
        ]
        for operation in operations:
            try:
                found = operation()
            except HefwError as error:
                assert str(error), "an error must say what is wrong"  # noqa: PT017
            else:
                assert parties.error(found, 0.0) < parties.precision.worst
