"""`digits-silu` as a plugin: a converted network, and the one that it was converted from."""

from __future__ import annotations

import functools
from typing import Any

from hefw.models.digits.model import JudgedDigits
from hefw.models.digits_silu.train import BUNDLED, STEPS, load, load_original
from hefw.models.labelled import LabelModel, load_weights
from hefw.models.plugin import DigitsSiluOptions

NAME = "digits-silu"
SHAPE = (1, 8, 8)
CLASSES = 10


class DigitsSilu(JudgedDigits):
    """8x8 handwritten digits by diffusers' own UNet, converted: polynomials for SiLU, static group normalisation."""

    unet: Any
    #: What the conversions were made for.
    steps = STEPS

    def __init__(self, options: DigitsSiluOptions) -> None:
        loaded = load_weights(NAME, options.pretrained, BUNDLED, lambda folder: load(folder, options.levels))
        self.levels = options.levels
        self._pretrained = options.pretrained
        super().__init__(NAME, *loaded, SHAPE, CLASSES)

    def original(self) -> LabelModel:
        """The network before its conversion, which cannot be compiled."""
        return _original(self._pretrained)


@functools.cache
def _original(pretrained: str | None) -> JudgedDigits:
    unet, scheduler = load_weights(NAME, pretrained, BUNDLED, load_original)
    return JudgedDigits(f"{NAME}, original", unet, scheduler, SHAPE, CLASSES)
