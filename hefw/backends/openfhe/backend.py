"""`openfhe`: OpenFHE's CKKS with explicit rescaling. hefw keeps the scales."""

from __future__ import annotations

import importlib.metadata
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from hefw.backends.openfhe.sizes import MOST_SPECIAL, SPECIAL_BITS, own_calls
from hefw.backends.rns.costs import FAST_COSTS, LOOP_COSTS, fast
from hefw.core.backend import (
    Backend,
    Bootstrapping,
    Capabilities,
    Evaluator,
    KeyHolder,
    KeyManifest,
    Provenance,
    provenance,
)
from hefw.core.errors import CapabilityError
from hefw.core.params import RING_DIMENSIONS, CkksParams, Resolved

#: What OpenFHE does by its own calls.
OWN_CALLS = Capabilities(
    ring_dimensions=RING_DIMENSIONS,
    hoisted_rotations=True,
    joined_rotations=True,
    largest_prime_bits=59,
    special_primes=32,
    plaintext_levels=True,
    packed_slots=True,
    bootstrap=True,
)
MISSING = (
    "compiled loops cannot be used ({}): hefw goes on with OpenFHE's own key switches, which are slower; hefw backends "
    "install openfhe adds numba, which compiles them"
)


class OpenfheBackend(Backend):
    """Uniform ternary secrets; sparse-encapsulated ones for bootstrapping.

    Key switches are OpenFHE's where special primes have 60 bits, else hefw's (`rns`), which planned parameters have
    unless the option `loops` is false.
    """

    name = "openfhe"
    capabilities = OWN_CALLS

    def __init__(self, options: object | None = None) -> None:
        super().__init__(options)
        if not getattr(options, "loops", True):
            return
        reason = _missing()
        if reason is not None:
            warnings.warn(MISSING.format(reason), RuntimeWarning, stacklevel=2)
            return
        self.capabilities = replace(
            OWN_CALLS,
            joined_rotations=False,
            special_primes=MOST_SPECIAL,
            largest_special_bits=SPECIAL_BITS - 1,
            costs=LOOP_COSTS,
            fast_prime_bits=49 if fast() else 0,  # OpenFHE's primes lie on both sides of a power of two
            fast_costs=FAST_COSTS[fast()],
            centred_digits=True,
            own_calls=OWN_CALLS,
        )

    def resolve(self, params: CkksParams) -> Resolved:
        """The primes that OpenFHE chooses for the bit sizes; ParameterError if it cannot."""
        self.check(params)
        from hefw.backends.openfhe.chain import resolve

        return resolve(params, self.name)

    def keygen(self, params: Resolved, manifest: KeyManifest) -> KeyHolder:
        """A new secret key from OpenFHE's generator, seeded by the operating system."""
        from hefw.backends.openfhe.keyholder import OpenfheKeyHolder

        return OpenfheKeyHolder.generate(params, manifest)

    def load_key_holder(self, params: Resolved, manifest: KeyManifest, path: Path) -> KeyHolder:
        """The key holder of a file that `save` wrote."""
        from hefw.backends.openfhe.keyholder import OpenfheKeyHolder

        return OpenfheKeyHolder.load(params, manifest, path)

    def evaluator(self, params: Resolved) -> Evaluator:
        """A server's side: by OpenFHE's own key switches, or by compiled ones, as the special primes say."""
        if own_calls(params.params):
            from hefw.backends.openfhe.evaluator import OpenfheEvaluator

            return OpenfheEvaluator(params, self.capabilities)
        from hefw.backends.openfhe.loops import OpenfheLoops

        return OpenfheLoops(params, self.capabilities)

    def bootstrap_params(self, slots: int, levels: int, *, allow_insecure: bool = False) -> CkksParams:
        """Primes of 59 bits, three levels for each of CoeffsToSlots and SlotsToCoeffs, ring dimension 65536 or more."""
        from hefw.backends.openfhe import chain

        return chain.bootstrap_params(slots, levels, allow_insecure=allow_insecure)

    def bootstrapping(self, params: Resolved) -> Bootstrapping:
        """Values up to 4 at a quarter of OpenFHE's scale, from level 1 on; the error is a measured one."""
        if params.params.bootstrap is None:
            raise CapabilityError(
                f"these parameters cannot bootstrap: bootstrap is None; make them by bootstrap_params of {self.name!r}"
            )
        from hefw.backends.openfhe import bootstrap

        return bootstrap.promised(params)

    def provenance(self) -> Provenance:
        """OpenFHE as its Python package brings it, in this process."""
        return provenance("openfhe", importlib.metadata.version("openfhe"))

    def drop_secrets(self) -> None:
        """Take decryption and the reading of secret keys out of OpenFHE's binding, which has one module for all."""
        from hefw.backends.openfhe.library import openfhe

        holders = [openfhe, openfhe.openfhe, openfhe.CryptoContext]
        for holder in holders:
            # Not the class PrivateKey itself: the structure of evaluation keys is learned from a secret of nothing.
            for name in [n for n in dir(holder) if "Decrypt" in n or ("PrivateKey" in n and n != "PrivateKey")]:
                if name in vars(holder):
                    delattr(holder, name)


def _missing() -> str | None:
    """Why compiled loops cannot be used, as far as that is known without compiling them."""
    from hefw.backends.openfhe.memory import HIDDEN, layout

    try:
        absent = [name for name in ("llvmlite", "numba") if find_spec(name) is None]
    except ValueError:  # one that was taken away
        absent = ["numba"]
    if absent:
        return f"no module named {' and '.join(absent)}"
    return None if layout() is not None else HIDDEN
