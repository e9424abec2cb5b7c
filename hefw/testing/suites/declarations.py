"""Declared capabilities are true, in both directions: what is declared works, what is not is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hefw.core.backend import Ciphertext, Evaluator, KeyManifest, imaginary
from hefw.core.envelope import Envelope
from hefw.core.errors import (
    CapabilityError,
    HefwError,
    KeyMismatchError,
    LevelError,
    ParameterError,
    ScaleError,
)
from hefw.core.noise import NoiseModel
from hefw.core.params import RING_DIMENSIONS, CkksParams
from hefw.testing.parties import Parties

#: A fresh ciphertext sent as a seed is about half of one that comes back.
SEEDED_SHARE = 0.6
BOOTSTRAP_SLOTS, BOOTSTRAP_LEVELS, BOOTSTRAP_ERROR = 32, 3, 1e-2


class Declarations:
    """`Backend.name` and every field of `Capabilities`."""

    def test_the_name_fits_an_envelope(self, parties: Parties) -> None:
        name = parties.backend.name
        assert name.isascii()
        assert 1 <= len(name) <= 16
        assert parties.evaluator.capabilities == parties.backend.capabilities

    @pytest.mark.parametrize("ring_dimension", RING_DIMENSIONS)
    def test_ring_dimensions(self, parties: Parties, ring_dimension: int) -> None:
        backend = parties.backend
        params = CkksParams(ring_dimension, (40, 30), (60,), 30.0, allow_insecure=True)
        if ring_dimension in backend.capabilities.ring_dimensions:
            assert backend.resolve(params).slots == ring_dimension // 2
        else:
            with pytest.raises(ParameterError, match=f"no ring dimension {ring_dimension}; allowed: "):
                backend.resolve(params)

    def test_complex_values(self, parties: Parties) -> None:
        z = parties.x + 1j * parties.y
        if not parties.backend.capabilities.complex_values:
            with pytest.raises(HefwError, match=parties.backend.name):
                parties.encrypt(z)
            return
        ev, top = parties.evaluator, parties.top
        parties.check(parties.encrypt(z), z, top, parties.scale)
        a = parties.encrypt(parties.x)
        product = parties.scale * parties.small
        weight = ev.encode(1j * parties.y, top, parties.small)
        parties.check(ev.mul_plain(a, weight), 1j * parties.x * parties.y, top, product)
        constant = ev.encode(0.5 - 2j, top, parties.small)  # type: ignore[arg-type]
        parties.check(ev.mul_plain(a, constant), (0.5 - 2j) * parties.x, top, product)

    def test_conjugation(self, parties: Parties, a: Ciphertext) -> None:
        ev, backend = parties.evaluator, parties.backend
        if not backend.capabilities.conjugation:
            with pytest.raises(CapabilityError, match=backend.name):
                backend.require("conjugation")
            with pytest.raises(CapabilityError, match=backend.name):
                ev.conjugate(a)
            return
        backend.require("conjugation")
        values = parties.x + 1j * parties.y if backend.capabilities.complex_values else parties.x
        parties.check(ev.conjugate(parties.encrypt(values)), np.conj(values), parties.top, parties.scale)
        before = ev.counts["conjugate"]
        parties.check(ev.conjugate(parties.encrypt(values, 1)), np.conj(values), 1, parties.scale)
        assert ev.counts["conjugate"] == before + 1
        with pytest.raises(ScaleError, match="relinearised first"):
            ev.conjugate(ev.square(a, relinearise=False))
        with pytest.raises(KeyMismatchError, match="missing evaluation keys: conjugation"):
            backend.evaluator(parties.params).conjugate(a)

    def test_alternating_imaginary(self, parties: Parties, a: Ciphertext) -> None:
        ev, backend, top, scale = parties.evaluator, parties.backend, parties.top, parties.scale
        if not backend.capabilities.complex_values:
            with pytest.raises(CapabilityError, match=backend.name):
                ev.mul_imaginary(a)
            return
        unit = imaginary(parties.slots, alternating=backend.capabilities.alternating_imaginary)
        z = parties.x + 1j * parties.y
        before = ev.counts["mul_imaginary"]
        for level in (top, 1):
            parties.check(ev.mul_imaginary(parties.encrypt(z, level)), unit * z, level, scale)
        wide = ev.mul_imaginary(ev.square(a, relinearise=False))
        assert wide.size == 3
        parties.check(ev.relinearise(wide), unit * parties.x**2, top, scale**2)
        assert ev.relinearise(a) is a, "a ciphertext of two parts is relinearised"
        assert ev.counts["mul_imaginary"] == before + 3

    def test_fine_reals(self, parties: Parties) -> None:
        """Where only real parts are read, the rounding of a vector is half as much if that is declared."""
        ev, y, coarse = parties.evaluator, parties.y, 2.0**12  # a scale at which nothing else is seen
        noise = NoiseModel(parties.params.params.ring_dimension)
        one = parties.encrypt(np.ones(parties.slots))

        def error(values: NDArray[Any]) -> NDArray[np.complex128]:
            product = ev.mul_plain(one, ev.encode(values, parties.top, coarse, real=True))
            found: NDArray[np.complex128] = (parties.holder.decrypt(product) - values) * coarse
            return found

        real, imaginary = (float(np.sqrt(np.mean(part**2))) for part in (error(y).real, error(y).imag))
        most = 0.75 if parties.backend.capabilities.fine_reals else parties.precision.noise
        assert real < most * noise.encode, f"real parts are rounded by {real:.3g}, others by {noise.encode:.3g}"
        assert imaginary < parties.precision.noise * noise.encode_real_imaginary
        if parties.backend.capabilities.complex_values:
            whole = float(np.sqrt(np.mean(np.abs(error(parties.x + 1j * y)) ** 2)))
            assert whole < 2 * parties.precision.noise * noise.encode_complex, (
                "imaginary parts that were given are lost"
            )

    def test_hoisted_rotations(self, parties: Parties, a: Ciphertext) -> None:
        hoisted = parties.backend.capabilities.hoisted_rotations
        own = type(parties.evaluator).rotate_many is not Evaluator.rotate_many
        assert own or not hoisted, "hoisted rotations are declared, but rotate_many is the default: one by one"
        steps = [1, 5]
        for together, step in zip(parties.evaluator.rotate_many(a, steps), steps, strict=True):
            alone = parties.holder.decrypt(parties.evaluator.rotate(a, step))
            assert parties.error(together, alone) < 2 * parties.precision.worst

    def test_plaintext_levels(self, parties: Parties, a: Ciphertext) -> None:
        ev, backend, top = parties.evaluator, parties.backend, parties.top
        vector, constant = ev.encode(parties.y, top, parties.small), ev.encode(-1.5, top, parties.small)
        if not backend.capabilities.plaintext_levels:
            with pytest.raises(CapabilityError, match=backend.name):
                ev.drop_plain_level(vector, 1)
            return
        for weight, value in ((vector, parties.y), (constant, -1.5)):
            for level in range(1, top + 1):
                low = ev.drop_plain_level(weight, level)
                assert (low.level, low.scale) == (level, weight.scale)
                product = ev.mul_plain(ev.drop_level(a, level), low)
                parties.check(product, value * parties.x, level, parties.scale * parties.small)
            again = ev.mul_plain(a, weight)  # the one at the top is left alone
            parties.check(again, value * parties.x, top, parties.scale * parties.small)
        for level in (-1, top + 1):
            with pytest.raises(LevelError, match=f"cannot be dropped to level {level}"):
                ev.drop_plain_level(vector, level)

    def test_seeded_bytes(self, parties: Parties) -> None:
        sent = parties.send(parties.x)
        payloads = [len(Envelope.unpack(d).payload) for d in (sent, parties.evaluator.dump(parties.encrypt(parties.x)))]
        seeded = payloads[0] < SEEDED_SHARE * payloads[1]
        assert seeded == parties.backend.capabilities.seeded_bytes, (
            f"a fresh ciphertext has {payloads[0]} bytes, one that comes back {payloads[1]}"
        )

    def test_bootstrapping(self, parties: Parties, a: Ciphertext) -> None:
        backend = parties.backend
        with pytest.raises(CapabilityError, match=f"{backend.name}.*cannot bootstrap.*refresh: client"):
            parties.evaluator.bootstrap(a)  # not under these parameters, whatever the backend can do
        if not backend.capabilities.bootstrap:
            refused: list[Callable[[], object]] = [
                lambda: backend.require("bootstrap"),
                lambda: backend.bootstrap_params(BOOTSTRAP_SLOTS, BOOTSTRAP_LEVELS, allow_insecure=True),
                lambda: backend.bootstrapping(parties.params),
            ]
            for call in refused:
                with pytest.raises(CapabilityError, match=backend.name):
                    call()
            return
        backend.require("bootstrap")
        params = backend.resolve(backend.bootstrap_params(BOOTSTRAP_SLOTS, BOOTSTRAP_LEVELS, allow_insecure=True))
        promised = backend.bootstrapping(params)
        assert params.slots >= BOOTSTRAP_SLOTS
        assert promised.level_out >= BOOTSTRAP_LEVELS
        rotations = dict.fromkeys(promised.rotations, params.max_level)
        holder = backend.keygen(params, KeyManifest(rotations, conjugation=True, bootstrap=True))
        evaluator = backend.evaluator(params)
        keys = dict(holder.evaluation_keys())
        evaluator.load_keys({name: blob for name, blob in keys.items() if name != "bootstrap"})
        rng = np.random.default_rng(2)
        values = promised.magnitude * rng.uniform(-1, 1, params.slots)
        if backend.capabilities.complex_values:
            values = values + 1j * promised.magnitude * rng.uniform(-1, 1, params.slots)
        ct = evaluator.load(holder.encrypt_bytes(values, promised.level_in, promised.scale))
        with pytest.raises(KeyMismatchError, match="missing evaluation keys: bootstrap"):
            evaluator.bootstrap(ct)
        evaluator.load_keys({"bootstrap": keys["bootstrap"]})
        with pytest.raises(ScaleError, match="bootstrapping takes scale"):
            evaluator.bootstrap(evaluator.load(holder.encrypt_bytes(values, promised.level_in, promised.scale / 2)))
        if promised.level_in:
            low = holder.encrypt_bytes(np.zeros(params.slots), promised.level_in - 1, promised.scale)
            with pytest.raises(LevelError, match="bootstrapping takes level"):
                evaluator.bootstrap(evaluator.load(low))
        for times in (1, 2):
            refreshed = evaluator.bootstrap(ct)
            assert (refreshed.level, refreshed.scale, refreshed.size) == (promised.level_out, promised.scale, 2)
            error = holder.decrypt_bytes(evaluator.dump(refreshed)) - values
            measured = float(np.sqrt(np.mean(error.real**2)))
            assert measured < 2 * times * promised.error, (
                f"an error of {measured:.2g} where {promised.error:.2g} is said"
            )
            ct = evaluator.drop_level(refreshed, promised.level_in)
        assert evaluator.counts["bootstrap"] == 2
        square = evaluator.rescale(evaluator.square(refreshed))
        relative = np.abs(holder.decrypt(square) - values**2) / promised.magnitude**2
        assert relative.max() < BOOTSTRAP_ERROR
