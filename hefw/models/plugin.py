"""Registers the built-in models and the schedulers of diffusers that they can use. Light: imports neither."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hefw.hookspecs import Entry, Options, hookimpl

NEEDS = ("torch", "diffusers")
ADVICE = "pip install 'hefw[models]'"


class DigitsOptions(Options):
    """Options of the model `digits`."""

    #: A folder that `hefw train digits` wrote; the bundled weights if None.
    pretrained: str | None = None


class StableDiffusionOptions(Options):
    """Options of the model `stable-diffusion`; None stands for diffusers' own value."""

    #: The path of a pipeline's folder, or an id of the Hugging Face hub: what from_pretrained takes.
    pretrained: str = Field(min_length=1)
    #: Of the networks; None: float16 on CUDA, else float32.
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    #: Where the networks run, as torch names it; None: CUDA where there is one, else the CPU.
    device: str | None = None
    #: Which version of a hub id, and which of the files that a folder has twice ("fp16").
    revision: str | None = None
    variant: str | None = None
    #: Of a picture in pixels; None: what the UNet was made for.
    height: int | None = Field(default=None, ge=8, le=4096)
    width: int | None = Field(default=None, ge=8, le=4096)


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
        ),
        Entry(
            "stable-diffusion",
            "hefw.models.stable_diffusion.model:StableDiffusion",
            "Stable Diffusion 1.x, 2.x and XL as diffusers has them, from prompts; networks at the key holder",
            options=StableDiffusionOptions,
            requires=(*NEEDS, "transformers", "PIL"),
            advice=ADVICE,
        ),
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
