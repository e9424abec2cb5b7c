"""`pyfhel`: Microsoft SEAL through Pyfhel's methods (its operators align scales by themselves, and are not used)."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from hefw.backends import seal
from hefw.core.backend import Backend, Capabilities, Evaluator, KeyHolder, KeyManifest, Provenance, provenance
from hefw.core.params import CkksParams, Resolved


class PyfhelBackend(Backend):
    """SEAL 4 with uniform ternary secrets and encryption by a public key.

    Pyfhel has no conjugation for CKKS (its `flip` is for BFV): the evaluator composes it of SEAL's operations. It has
    no seeded ciphertexts and keys. Its classes cannot be changed, so that a server's process keeps methods for
    decrypting, but no secret key for them.
    """

    name = "pyfhel"
    capabilities = Capabilities(
        ring_dimensions=seal.RING_DIMENSIONS,
        symmetric_encryption=False,
        alternating_imaginary=True,
        fine_reals=True,
    )

    def resolve(self, params: CkksParams) -> Resolved:
        """The primes that SEAL chooses for the bit sizes; ParameterError if it cannot."""
        self.check(params)
        from hefw.backends.pyfhel.context import resolve

        return resolve(params, self.name)

    def keygen(self, params: Resolved, manifest: KeyManifest) -> KeyHolder:
        """A new secret key from SEAL's generator, seeded by the operating system."""
        self._check_manifest(manifest)
        from hefw.backends.pyfhel.keyholder import PyfhelKeyHolder

        return PyfhelKeyHolder.generate(params, manifest)

    def load_key_holder(self, params: Resolved, manifest: KeyManifest, path: Path) -> KeyHolder:
        """The key holder of a file that `save` wrote."""
        from hefw.backends.pyfhel.keyholder import PyfhelKeyHolder

        return PyfhelKeyHolder.load(params, manifest, path)

    def evaluator(self, params: Resolved) -> Evaluator:
        """A server's side."""
        from hefw.backends.pyfhel.evaluator import PyfhelEvaluator

        return PyfhelEvaluator(params, self.capabilities)

    def provenance(self) -> Provenance:
        """SEAL as Pyfhel brings it, in this process."""
        return provenance("pyfhel", importlib.metadata.version("pyfhel"))

    def _check_manifest(self, manifest: KeyManifest) -> None:
        if manifest.bootstrap:
            self.require("bootstrap")
