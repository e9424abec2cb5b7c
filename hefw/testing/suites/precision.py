"""Precision: of one operation against the noise model that planning trusts, and of a small UNet against its twin."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from hefw.core.backend import Backend, Ciphertext
from hefw.core.errors import CapabilityError
from hefw.core.lower import Request, lower
from hefw.core.noise import NoiseModel
from hefw.core.params import CkksParams
from hefw.testing.graphs import samples, small_unet
from hefw.testing.parties import Parties, Precision, small_ring
from hefw.testing.session import Session, plain, psnr

IMAGES, STEPS = 5, 2


class Accuracy:
    """Stated bounds, kept."""

    precision: Precision

    def test_noise_is_that_of_the_model(self, parties: Parties) -> None:
        ev, x, top, scale = parties.evaluator, parties.x, parties.top, parties.scale
        noise = NoiseModel(parties.params.params.ring_dimension)
        able = parties.backend.capabilities
        fresh = noise.fresh if able.symmetric_encryption else noise.fresh_public
        ratio = max(parties.params.primes) / min(parties.params.special_primes)
        high = scale**2  # so that a key switch's noise is seen beside that of the fresh encryption
        found: dict[str, tuple[Ciphertext, np.ndarray, float]] = {
            "encryption": (parties.encrypt(x), x, fresh),
            "encoding": (
                ev.add_plain(parties.encrypt(x), ev.encode(parties.y, top, scale)),
                x + parties.y,
                math.hypot(fresh, noise.encode),
            ),
            "rescale": (
                ev.rescale(parties.encrypt(x, top, high)),
                x,
                math.hypot(noise.rescale, fresh / parties.params.primes[top]),
            ),
            "rotation": (
                ev.rotate(parties.encrypt(x), 1),
                np.roll(x, -1),
                math.hypot(fresh, noise.key_switch(top + 1, ratio, centred=able.centred_digits)),
            ),
        }
        for name, (ct, expected, std) in found.items():
            error = (parties.holder.decrypt(ct) - expected).real
            measured = float(np.sqrt(np.mean(error**2))) * ct.scale
            bound = parties.precision.noise * std
            assert measured < bound, f"{name}: noise of {measured:.3g} where the model says {std:.3g}"

    def test_a_small_unet_gives_its_twins_result(self, backend: Backend, program_params: CkksParams) -> None:
        """Lowered for this backend, run over its schedule as client and server would."""
        graph, values = small_unet(STEPS), samples(IMAGES, seed=2)
        program = lower(graph, backend, Request(params=program_params))
        session = Session(program, backend)
        for found, expected in zip(session.trajectory(values), plain(graph, values), strict=True):
            quality = psnr(found["latent"], expected["latent"])
            assert quality >= self.precision.program_db, f"PSNR of {quality:.1f} dB"

    def test_steps_from_one_message_give_the_twins_result(self, backend: Backend) -> None:
        """Two steps unrolled into one chain, as the planner makes it on a small and insecure ring."""
        graph, values = small_unet(STEPS), samples(IMAGES, seed=2)
        ring = small_ring(backend.capabilities)
        request = Request(precision_db=50, ring_dimension=ring, allow_insecure=True, every=STEPS)
        program = lower(graph, backend, request)
        assert program.interface.messages == 1
        (found,) = Session(program, backend).trajectory(values)
        quality = psnr(found["latent"], plain(graph, values)[-1]["latent"])
        assert quality >= 50, f"PSNR of {quality:.1f} dB"

    def test_bootstrapped_steps_give_the_twins_result(self, backend: Backend) -> None:
        """As many steps as wanted from one message: where the library can; where not, refused by name."""
        graph, values = small_unet(STEPS + 1), samples(IMAGES, seed=2)
        request = Request(precision_db=40, allow_insecure=True, bootstrap=True, images=IMAGES)
        if not backend.capabilities.bootstrap:
            with pytest.raises(CapabilityError, match=backend.name):
                lower(graph, backend, request)
            return
        program = lower(graph, backend, request)
        session = Session(program, backend)
        (found,) = session.trajectory(values)
        assert session.evaluator.counts["bootstrap"] == STEPS
        quality = psnr(found["latent"], plain(graph, values)[-1]["latent"])
        assert quality >= 40, f"PSNR of {quality:.1f} dB"

    def test_a_program_costs_what_was_counted(self, backend: Backend, program_params: CkksParams) -> None:
        program = lower(small_unet(STEPS), backend, Request(params=program_params))
        session, values = Session(program, backend), samples(IMAGES)
        session.engine.weights.encode_all(session.evaluator)
        assert session.evaluator.counts["encode"] == program.weight_count
        session.evaluator.counts.clear()
        session.begin(values)
        assert session.evaluator.counts == program.prelude_counts()
        session.evaluator.counts.clear()
        session.step(0, values)
        assert Counter(session.evaluator.counts) == program.counts(0)
