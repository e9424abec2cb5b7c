"""What to say of operators that no graph can have."""

from __future__ import annotations

from hefw.core.polynomial import MAX_DEGREE

ACTIVATIONS = [
    "silu",
    "gelu",
    "relu",
    "mish",
    "hardswish",
    "hardsigmoid",
    "hardtanh",
    "relu6",
    "elu",
    "celu",
    "selu",
    "leaky_relu",
    "softplus",
    "logsigmoid",
    "sigmoid",
    "tanh",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log1p",
    "sin",
    "cos",
    "tan",
    "atan",
    "prelu",
]
NORMS = [
    "group_norm",
    "layer_norm",
    "instance_norm",
    "rms_norm",
    "native_group_norm",
    "native_layer_norm",
    "var",
    "var_mean",
    "std",
]
COMPARISONS = [
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "where",
    "maximum",
    "minimum",
    "clamp",
    "clamp_min",
    "clamp_max",
    "abs",
    "sign",
    "max",
    "min",
    "amax",
    "amin",
    "argmax",
    "argmin",
]
COMPARISONS += [
    "sort",
    "topk",
    "max_pool2d",
    "max_pool2d_with_indices",
    "bitwise_and",
    "bitwise_or",
    "logical_and",
    "logical_not",
    "round",
    "floor",
    "ceil",
]
INTEGERS = ["embedding", "one_hot", "scatter", "scatter_add", "histc", "bincount"]
ROOTS = ["sqrt", "rsqrt", "reciprocal", "norm", "linalg_vector_norm"]
ATTENTION = ["scaled_dot_product_attention", "softmax", "_softmax", "log_softmax", "_log_softmax"]

BY_KIND = (
    (
        ACTIVATIONS,
        f"is no polynomial: replace it by one, such as a x^2 + b x (degree at most {MAX_DEGREE}), and train on; or "
        "fit one to it (activations='fit')",
    ),
    (
        NORMS,
        "divides by a deviation of encrypted values: replace it by a fixed scale and shift per channel (nn.Identity, "
        "or "
        "calibrated means and variances), and train on",
    ),
    (
        ATTENTION,
        "divides by a sum of exponentials of encrypted values: drop the attention block, replace its weights by their "
        "mean "
        "(a fixed matrix), or replace the softmax by a polynomial, and train on",
    ),
    (COMPARISONS, "compares encrypted values, which CKKS cannot do: use a polynomial, or average pooling, instead"),
    (
        INTEGERS,
        "takes whole numbers as an index, but a sample is real and encrypted: give the label as y, or use a matrix",
    ),
    (ROOTS, "divides by encrypted values or takes their root: replace it by a polynomial or a constant, and train on"),
)


def advice(operator: str) -> str:
    """Why an operator has no rule, and what can be done."""
    for names, text in BY_KIND:
        if operator in names:
            return text
    return "has no rule: write it with operators that have one (docs/reference/operators.md), or leave it out"
