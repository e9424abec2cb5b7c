"""`simulator`: no encryption. Levels, scales, errors and noise of CKKS in numpy; every run is labelled SIMULATED."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hefw.backends import primes
from hefw.core.backend import Backend, Capabilities, Evaluator, KeyHolder, KeyManifest, Provenance, provenance
from hefw.core.params import RING_DIMENSIONS, CkksParams, Resolved


class SimulatorBackend(Backend):
    """Plans and fast tests; never a stand-in for a claim."""

    name = "simulator"
    capabilities = Capabilities(
        ring_dimensions=RING_DIMENSIONS,
        plaintext_levels=True,
        alternating_imaginary=True,
        fine_reals=True,
        simulated=True,
    )

    def resolve(self, params: CkksParams) -> Resolved:
        """The primes that CKKS would take: congruent to 1 modulo 2N, below each power of two."""
        self.check(params)
        chain = primes.chain(params.ring_dimension, (*params.modulus_bits, *params.special_bits))
        count = len(params.modulus_bits)
        return Resolved(params, self.name, chain[:count], chain[count:])

    def keygen(self, params: Resolved, manifest: KeyManifest) -> KeyHolder:
        """A key holder without a secret: its ciphertexts are readable."""
        from hefw.backends.simulator.keyholder import SimulatorKeyHolder

        return SimulatorKeyHolder(params, manifest)

    def load_key_holder(self, params: Resolved, manifest: KeyManifest, path: Path) -> KeyHolder:
        """The key holder of a file that `save` wrote."""
        from hefw.backends.simulator.keyholder import SimulatorKeyHolder

        return SimulatorKeyHolder.load(params, manifest, path)

    def evaluator(self, params: Resolved) -> Evaluator:
        """An evaluator on numpy arrays."""
        from hefw.backends.simulator.evaluator import SimulatorEvaluator

        return SimulatorEvaluator(params, self.capabilities)

    def provenance(self) -> Provenance:
        """numpy, in this process."""
        return provenance("numpy", np.__version__)
