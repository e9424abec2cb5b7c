"""`tenseal`: Microsoft SEAL through TenSEAL's low-level binding (its CKKSVector has no rotations and no levels)."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from pathlib import Path

from hefw.backends.rns.abi import FAST_BITS
from hefw.backends.rns.costs import FAST_COSTS, LOOP_COSTS, fast
from hefw.backends.seal import RING_DIMENSIONS
from hefw.core.backend import Backend, Capabilities, Evaluator, KeyHolder, KeyManifest, Provenance, provenance
from hefw.core.params import CkksParams, Resolved

#: What SEAL does by its own calls.
OWN_CALLS = Capabilities(
    ring_dimensions=RING_DIMENSIONS,
    seeded_bytes=True,
    plaintext_levels=True,
    alternating_imaginary=True,
    fine_reals=True,
    plaintext_bytes=True,
)


class TensealBackend(Backend):
    """SEAL 4 with uniform ternary secrets. Rotation keys and fresh ciphertexts are sent as seeds.

    Without the option `loops` nothing is done but by SEAL's own calls.
    """

    name = "tenseal"
    capabilities = replace(
        OWN_CALLS,
        hoisted_rotations=True,
        special_primes=4,
        costs=LOOP_COSTS,
        fast_prime_bits=FAST_BITS if fast() else 0,
        fast_costs=FAST_COSTS[fast()],
        centred_digits=True,
    )

    def __init__(self, options: object | None = None) -> None:
        super().__init__(options)
        self._loops = bool(getattr(options, "loops", True))
        if not self._loops:
            self.capabilities = OWN_CALLS

    def resolve(self, params: CkksParams) -> Resolved:
        """The primes that SEAL chooses for the bit sizes; ParameterError if it cannot."""
        self.check(params)
        from hefw.backends.tenseal.context import resolve

        return resolve(params, self.name)

    def keygen(self, params: Resolved, manifest: KeyManifest) -> KeyHolder:
        """A new secret key from SEAL's generator, seeded by the operating system."""
        from hefw.backends.tenseal.keyholder import TensealKeyHolder

        return TensealKeyHolder.generate(params, manifest)

    def load_key_holder(self, params: Resolved, manifest: KeyManifest, path: Path) -> KeyHolder:
        """The key holder of a file that `save` wrote."""
        from hefw.backends.tenseal.keyholder import TensealKeyHolder

        return TensealKeyHolder.load(params, manifest, path)

    def evaluator(self, params: Resolved) -> Evaluator:
        """A server's side."""
        from hefw.backends.tenseal.evaluator import TensealEvaluator

        return TensealEvaluator(params, self.capabilities, self._loops)

    def provenance(self) -> Provenance:
        """SEAL as TenSEAL brings it, in this process."""
        return provenance("tenseal", importlib.metadata.version("tenseal"))

    def drop_secrets(self) -> None:
        """Take what a key holder needs out of SEAL's binding, which has one module for both sides."""
        import _sealapi_cpp as seal

        for name in ("Decryptor", "Encryptor", "KeyGenerator", "SecretKey"):
            if hasattr(seal, name):
                delattr(seal, name)
