"""`lattigo`: keys, encoding and decryption by orion-v2-lattigo, key switches and rescales by orion-v2-evaluator."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from pathlib import Path

from hefw.core.backend import Backend, Capabilities, Evaluator, KeyHolder, KeyManifest, Provenance, provenance
from hefw.core.params import RING_DIMENSIONS, CkksParams, Resolved


class LattigoBackend(Backend):
    """Lattigo 6 with uniform ternary secrets. Its Python encoder takes real numbers only."""

    name = "lattigo"
    capabilities = Capabilities(
        ring_dimensions=RING_DIMENSIONS,
        conjugation=False,
        complex_values=False,
        hoisted_rotations=True,
        plaintext_levels=True,
        fork=False,  # a child has none of the threads that Go's runtime waits for
    )

    def resolve(self, params: CkksParams) -> Resolved:
        """The primes that Lattigo chooses for the bit sizes; ParameterError if it cannot."""
        self.check(params)
        from hefw_lattigo.context import resolve

        return resolve(params, self.name)

    def keygen(self, params: Resolved, manifest: KeyManifest) -> KeyHolder:
        """A new secret key from Lattigo's generator, seeded by the operating system."""
        from hefw_lattigo.keyholder import LattigoKeyHolder

        return LattigoKeyHolder.generate(params, manifest)

    def load_key_holder(self, params: Resolved, manifest: KeyManifest, path: Path) -> KeyHolder:
        """The key holder of a file that `save` wrote."""
        from hefw_lattigo.keyholder import LattigoKeyHolder

        return LattigoKeyHolder.load(params, manifest, path)

    def evaluator(self, params: Resolved) -> Evaluator:
        """A server's side."""
        from hefw_lattigo.evaluator import LattigoEvaluator

        return LattigoEvaluator(params, self.capabilities)

    def provenance(self) -> Provenance:
        """Lattigo as its Python bindings bring it, in this process."""
        return provenance("orion-v2-lattigo", importlib.metadata.version("orion-v2-lattigo"))

    def drop_secrets(self) -> None:
        """Take what a key holder needs out of the bindings, which have one module for both sides."""
        for module in map(importlib.import_module, ("lattigo.rlwe", "lattigo.ffi")):
            for name in [n for n in vars(module) if re.search(r"secret_?key|key_?gen|cryptor", n, re.I)]:
                delattr(module, name)
