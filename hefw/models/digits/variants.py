"""Variants of `digits` as plugins: other networks, other costs; docs/reference/models.md compares them."""

from __future__ import annotations

from hefw.models.digits import attention, distil, shallow
from hefw.models.digits.model import Digits, PatchDigits
from hefw.models.digits.train import load
from hefw.models.labelled import load_weights
from hefw.models.plugin import DigitsOptions


class Shallow(PatchDigits):
    """As few multiplications in sequence as can be, for a ring of dimension 8192."""

    def __init__(self, options: DigitsOptions) -> None:
        name = "digits-shallow"
        super().__init__(name, *load_weights(name, options.pretrained, shallow.BUNDLED, shallow.load))


class Attention(PatchDigits):
    """Products of encrypted values: attention whose weights are a polynomial of the scores."""

    def __init__(self, options: DigitsOptions) -> None:
        name = "digits-attention"
        super().__init__(name, *load_weights(name, options.pretrained, attention.BUNDLED, attention.load))


class Distilled(Digits):
    """The network of `digits`, for two steps."""

    steps = distil.STEPS

    def __init__(self, options: DigitsOptions) -> None:
        name = "digits-distilled"
        PatchDigits.__init__(self, name, *load_weights(name, options.pretrained, distil.BUNDLED, load))
