"""What an evaluator and a key holder refuse, by which error, and in which words."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hefw.core.backend import Ciphertext
from hefw.core.errors import EncodingError, KeyMismatchError, LevelError, ScaleError
from hefw.testing.parties import Parties

UNENCODABLE: dict[str, tuple[Any, str]] = {
    "nan": (lambda n: np.full(n, np.nan), "not finite"),
    "infinity": (lambda n: np.full(n, np.inf), "not finite"),
    "imaginary infinity": (lambda n: np.full(n, -np.inf * 1j), "not finite"),
    "constant nan": (lambda n: math.nan, "not finite"),
    "one too few": (lambda n: np.zeros(n - 1), "must have exactly"),
    "one too many": (lambda n: np.zeros(n + 1), "must have exactly"),
    "none": (lambda n: np.zeros(0), "must have exactly"),
    "a row": (lambda n: np.zeros((1, n)), "must have exactly"),
    "text": (lambda n: np.full(n, "a"), "cannot be encoded"),
    "truth values": (lambda n: np.full(n, True), "bool"),
    "objects": (lambda n: np.full(n, None), "object"),
}


class Refusals:
    """Errors: each of hefw's own kind, with a message that says what to do."""

    def test_exhausted_levels_are_refused(self, parties: Parties, a: Ciphertext) -> None:
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

    def test_levels_that_differ_are_refused(self, parties: Parties, a: Ciphertext, b: Ciphertext) -> None:
        ev, top = parties.evaluator, parties.top
        low, plain = ev.drop_level(b, top - 1), ev.encode(parties.y, top - 1, parties.scale)
        for name, operand in [("add", low), ("add_into", low), ("sub", low), ("mul", low)]:
            with pytest.raises(LevelError, match=f"levels {top} and {top - 1} differ; use drop_level"):
                getattr(ev, name)(a, operand)
        for name in ("add_plain", "mul_plain"):
            with pytest.raises(LevelError, match=f"levels {top} and {top - 1} differ; use drop_level"):
                getattr(ev, name)(a, plain)
        good = ev.encode(parties.y, top, parties.scale)
        with pytest.raises(LevelError, match=f"multiply_accumulate: levels .* differ from {top}"):
            ev.multiply_accumulate([(a, good), (low, plain)])

    def test_scales_that_differ_are_refused(self, parties: Parties, a: Ciphertext, b: Ciphertext) -> None:
        ev, other = parties.evaluator, 2 * parties.scale
        scaled, high = replace(b, scale=other), ev.encode(parties.y, parties.top, other)
        for name, operand in [("add", scaled), ("add_into", scaled), ("sub", scaled), ("add_plain", high)]:
            with pytest.raises(ScaleError, match=r"scales .* differ"):
                getattr(ev, name)(a, operand)
        good = ev.encode(parties.y, parties.top, parties.scale)
        with pytest.raises(ScaleError, match="multiply_accumulate: scale"):
            ev.multiply_accumulate([(a, good), (b, high)])
        with pytest.raises(EncodingError, match=r"multiply_accumulate.*at least one"):
            ev.multiply_accumulate([])

    def test_three_parts_are_refused_where_two_are_needed(self, parties: Parties, a: Ciphertext) -> None:
        wide = parties.evaluator.square(a, relinearise=False)
        operations: list[Any] = [
            lambda: parties.evaluator.rotate(wide, 1),
            lambda: parties.evaluator.mul(wide, wide),
            lambda: parties.evaluator.square(wide),
        ]
        for operation in operations:
            with pytest.raises(ScaleError, match="relinearised first"):
                operation()

    def test_a_missing_evaluation_key_is_named(self, parties: Parties, a: Ciphertext) -> None:
        with pytest.raises(KeyMismatchError, match="missing evaluation keys: rotation/7"):
            parties.evaluator.rotate(a, 7)
        bare = parties.backend.evaluator(parties.params)
        with pytest.raises(KeyMismatchError, match="missing evaluation keys: relinearisation"):
            bare.square(a)
        with pytest.raises(KeyMismatchError, match="missing evaluation keys: rotation/1"):
            bare.rotate(a, 1)
        with pytest.raises(KeyMismatchError, match="call load_keys"):
            bare.dump(a)

    @pytest.mark.parametrize("kind", UNENCODABLE)
    def test_values_that_cannot_be_encoded(self, parties: Parties, kind: str) -> None:
        make, message = UNENCODABLE[kind]
        values = make(parties.slots)
        with pytest.raises(EncodingError, match=message):
            parties.evaluator.encode(values, parties.top, parties.scale)
        with pytest.raises(EncodingError, match=message):
            parties.holder.encrypt(values, parties.top, parties.scale)

    def test_values_beyond_the_modulus_are_refused(self, parties: Parties) -> None:
        peak = 2.0 ** (parties.params.log_modulus(parties.top) + 1) / parties.scale
        for values in (np.full(parties.slots, peak), peak, -peak):
            with pytest.raises(EncodingError, match="exceed the modulus"):
                parties.evaluator.encode(values, parties.top, parties.scale)
            with pytest.raises(EncodingError, match="exceed the modulus"):
                parties.holder.encrypt(values, parties.top, parties.scale)

    def test_the_largest_values_are_encoded_or_refused_but_never_wrapped(self, parties: Parties) -> None:
        """Around the modulus: whatever is accepted comes back right."""
        scale = 2.0**20
        room = parties.params.log_modulus(0) - 20
        for bits in np.arange(room - 4, room + 1, 0.25):
            for values in (np.full(parties.slots, 2.0**bits), 2.0**bits * np.sign(parties.x), 2.0**bits):
                try:
                    parties.evaluator.encode(values, 0, scale)
                    found = parties.holder.decrypt(parties.holder.encrypt(values, 0, scale))
                except EncodingError as error:
                    assert "modulus" in str(error)  # noqa: PT017
                    assert bits > room - 3, "values that fit must be taken"
                else:
                    assert np.abs(found / 2.0**bits - np.asarray(values) / 2.0**bits).max() < 1e-2

    def test_tiny_values_at_the_largest_scales(self, parties: Parties) -> None:
        room = parties.params.log_modulus(0)
        for bits in np.arange(room - 4, room + 1, 0.25):
            try:
                parties.evaluator.encode(np.full(parties.slots, 1e-6), 0, float(2.0**bits))
            except (EncodingError, ScaleError) as error:
                assert str(error), "an error must say what is wrong"  # noqa: PT017
                assert bits > room - 3, "a scale that fits must be taken"

    @pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, 1e300])
    def test_scales_that_do_not_exist(self, parties: Parties, scale: float) -> None:
        with pytest.raises(ScaleError, match="does not fit"):
            parties.evaluator.encode(parties.x, parties.top, scale)
        with pytest.raises(ScaleError, match="does not fit"):
            parties.holder.encrypt(parties.x, parties.top, scale)

    def test_levels_that_do_not_exist(self, parties: Parties) -> None:
        for level in (-1, parties.top + 1):
            with pytest.raises(LevelError, match=f"level {level} does not exist.*0 to {parties.top}"):
                parties.evaluator.encode(parties.x, level, parties.scale)
            with pytest.raises(LevelError, match=f"level {level} does not exist"):
                parties.holder.encrypt(parties.x, level, parties.scale)
