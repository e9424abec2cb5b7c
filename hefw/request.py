"""How a graph is to be lowered, from what a configuration asks for."""

from __future__ import annotations

from hefw.config import Params
from hefw.core.errors import ParameterError
from hefw.core.lower import Request
from hefw.core.params import MAXIMUM_PRIME_BITS, CkksParams

#: Scale of fresh ciphertexts on a modulus chain that the user gives, in bits; the planner tries others from there.
GIVEN_CHAIN_SCALE = 30.0


def request(
    wanted: Params, allow_insecure: bool, every: int = 1, bootstrap: bool = False, images: int | None = None
) -> Request:
    """The request for these parameters. ParameterError if the modulus chain is given without its other half."""
    params = None
    if wanted.modulus_bits is None:
        if wanted.special_bits is not None:
            raise ParameterError("special_bits are given without modulus_bits; give both, or neither")
    elif wanted.ring_dimension is None:
        raise ParameterError("modulus_bits are given without ring_dimension; give both, or neither")
    else:
        special = wanted.special_bits or (MAXIMUM_PRIME_BITS,)
        params = CkksParams(wanted.ring_dimension, wanted.modulus_bits, special, GIVEN_CHAIN_SCALE, allow_insecure)
    return Request(wanted.precision_db, wanted.ring_dimension, params, allow_insecure, every, bootstrap, images)
