"""Registers the built-in models and the schedulers of diffusers that they can use. Light: imports neither."""

from __future__ import annotations

from typing import Literal

from hefw.hookspecs import Entry, Options, hookimpl

NEEDS = ("torch", "diffusers")
ADVICE = "pip install 'hefw[models]'"


class DigitsOptions(Options):
    """Options of the model `digits`."""

    #: A folder that `hefw train digits` wrote; the bundled weights if None.
    pretrained: str | None = None


class DdimOptions(Options):
    """Options of diffusers' DDIMScheduler that may differ from the model's own; None keeps the model's."""

    timestep_spacing: Literal["leading", "linspace", "trailing"] | None = None
    set_alpha_to_one: bool | None = None
    clip_sample: bool | None = None
    thresholding: bool | None = None


@hookimpl
def hefw_models() -> list[Entry]:
    return [
        Entry(
            "digits",
            "hefw.models.digits.model:Digits",
            "8x8 handwritten digits; a two-resolution UNet with quadratic activations, whole on ciphertext",
            options=DigitsOptions,
            requires=NEEDS,
            advice=ADVICE,
        )
    ]


@hookimpl
def hefw_schedulers() -> list[Entry]:
    return [
        Entry(
            "ddim",
            "diffusers:DDIMScheduler",
            "denoising diffusion implicit models (Song et al. 2021), deterministic",
            options=DdimOptions,
            requires=NEEDS,
            advice=ADVICE,
            distribution="diffusers",
        )
    ]
