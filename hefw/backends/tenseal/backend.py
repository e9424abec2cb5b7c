"""`tenseal`: Microsoft SEAL through TenSEAL's low-level binding (its CKKSVector has no rotations and no levels)."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from hefw.backends.processor import has
from hefw.backends.seal import RING_DIMENSIONS
from hefw.backends.tenseal.abi import FAST_BITS, FMA, IFMA
from hefw.core.backend import Backend, Capabilities, Evaluator, KeyHolder, KeyManifest, Provenance, provenance
from hefw.core.params import CkksParams, Resolved

#: Of compiled loops, by fields of `core.plan.Costs`, in ms on one core of an AMD EPYC (benchmarks/test_primitives.py).
COSTS = (
    ("key_switch_square", 0.058),
    ("key_switch_linear", 0.225),
    ("special_linear", 0.145),
    ("shared_square", 0.044),
    ("shared_linear", 0.039),
    ("mul_plain_linear", 0.025),
    ("square_linear", 0.08),
    ("rescale_linear", 0.11),
    ("mul_number_linear", 0.0015),  # residues multiplied by float64
    ("number_ct_linear", 0.1),
)
#: And on one without AVX-512.
NARROW_COSTS = (
    ("key_switch_square", 0.05),
    ("key_switch_linear", 0.46),
    ("special_linear", 0.33),
    ("shared_square", 0.045),
    ("shared_linear", 0.18),
    ("mul_plain_linear", 0.0155),
    ("square_linear", 0.16),
    ("rescale_linear", 0.23),
    ("mul_number_linear", 0.0017),
    ("number_ct_linear", 0.062),
)
#: Modulo primes that `lanes` takes, or `doubles`.
FAST_COSTS = {
    IFMA: (
        ("key_switch_square", 0.035),
        ("key_switch_linear", 0.074),
        ("special_linear", 0.072),
        ("shared_square", 0.018),
        ("shared_linear", 0.037),
        ("mul_plain_linear", 0.018),
        ("square_linear", 0.05),
        ("rescale_linear", 0.06),
    ),
    FMA: (
        ("key_switch_square", 0.028),
        ("key_switch_linear", 0.23),
        ("special_linear", 0.175),
        ("shared_square", 0.024),
        ("shared_linear", 0.1),
        ("mul_plain_linear", 0.0095),
        ("square_linear", 0.1),
        ("rescale_linear", 0.13),
    ),
    None: (),
}


def fast() -> str | None:
    """As `abi.fast`, without a compiler."""
    if has(IFMA):
        return IFMA
    return FMA if has("avx2") and has(FMA) else None


class TensealBackend(Backend):
    """SEAL 4 with uniform ternary secrets. Rotation keys and fresh ciphertexts are sent as seeds."""

    name = "tenseal"
    capabilities = Capabilities(
        ring_dimensions=RING_DIMENSIONS,
        hoisted_rotations=True,
        special_primes=4,
        costs=COSTS if has("avx512f") else NARROW_COSTS,
        fast_prime_bits=FAST_BITS if fast() else 0,
        fast_costs=FAST_COSTS[fast()],
        seeded_bytes=True,
        plaintext_levels=True,
        alternating_imaginary=True,
        fine_reals=True,
        centred_digits=True,
        plaintext_bytes=True,
    )

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

        return TensealEvaluator(params, self.capabilities)

    def provenance(self) -> Provenance:
        """SEAL as TenSEAL brings it, in this process."""
        return provenance("tenseal", importlib.metadata.version("tenseal"))

    def drop_secrets(self) -> None:
        """Take what a key holder needs out of SEAL's binding, which has one module for both sides."""
        import _sealapi_cpp as seal

        for name in ("Decryptor", "Encryptor", "KeyGenerator", "SecretKey"):
            if hasattr(seal, name):
                delattr(seal, name)
