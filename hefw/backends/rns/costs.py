"""What compiled loops take, for the planner."""

from __future__ import annotations

from hefw.backends.processor import has
from hefw.backends.rns.abi import FMA, IFMA

#: By fields of `core.plan.Costs`, in ms on one core of an AMD EPYC (benchmarks/test_primitives.py).
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


#: On this processor.
LOOP_COSTS = COSTS if has("avx512f") else NARROW_COSTS
