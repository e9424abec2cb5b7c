"""Registers the built-in models and the schedulers of diffusers that they can use. Light: imports neither."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hefw.hookspecs import Entry, Options, hookimpl

NEEDS = ("torch", "diffusers")
ADVICE = "pip install 'hefw[models]'"


class DigitsOptions(Options):
    """Options of the model `digits` and its variants."""

    #: A folder that `hefw train` wrote for the same variant; the bundled weights if None.
    pretrained: str | None = None


class MnistOptions(Options):
    """Options of the model `mnist` and its variants."""

    #: A folder that `hefw train` wrote for the same variant; the bundled weights if None.
    pretrained: str | None = None


class DigitsSiluOptions(Options):
    """Options of the model `digits-silu`."""

    #: Multiplicative depth of the converted network.
    levels: Literal[9, 19] = 9
    #: A folder that `hefw train digits-silu` wrote; the bundled weights if None.
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


class SpacingOptions(Options):
    """Options of a diffusers scheduler that may differ from the model's own; None keeps the model's."""

    timestep_spacing: Literal["leading", "linspace", "trailing"] | None = None


class SigmaOptions(SpacingOptions):
    """Noise levels of another spacing, of which one may be chosen."""

    use_karras_sigmas: bool | None = None
    use_exponential_sigmas: bool | None = None
    use_beta_sigmas: bool | None = None


class DdimOptions(SpacingOptions):
    set_alpha_to_one: bool | None = None
    # these two make the step nonlinear, which is refused by their name
    clip_sample: bool | None = None
    thresholding: bool | None = None


class DdpmOptions(SpacingOptions):
    variance_type: Literal["fixed_small", "fixed_small_log", "fixed_large"] | None = None
    clip_sample: bool | None = None
    thresholding: bool | None = None


class PndmOptions(SpacingOptions):
    skip_prk_steps: bool | None = None
    set_alpha_to_one: bool | None = None


class DpmSolverOptions(SigmaOptions):
    solver_order: Literal[1, 2, 3] | None = None
    algorithm_type: Literal["dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver"] | None = None
    solver_type: Literal["midpoint", "heun"] | None = None
    use_lu_lambdas: bool | None = None
    lower_order_final: bool | None = None
    euler_at_final: bool | None = None
    final_sigmas_type: Literal["zero", "sigma_min"] | None = None
    thresholding: bool | None = None


class EulerOptions(SigmaOptions):
    final_sigmas_type: Literal["zero", "sigma_min"] | None = None


class HeunOptions(SigmaOptions):
    clip_sample: bool | None = None


class UniPcOptions(SigmaOptions):
    solver_order: Literal[1, 2, 3] | None = None
    solver_type: Literal["bh1", "bh2"] | None = None
    predict_x0: bool | None = None
    lower_order_final: bool | None = None
    final_sigmas_type: Literal["zero", "sigma_min"] | None = None
    thresholding: bool | None = None


class FlowMatchOptions(Options):
    shift: float | None = Field(default=None, gt=0)
    use_karras_sigmas: bool | None = None
    use_exponential_sigmas: bool | None = None
    use_beta_sigmas: bool | None = None
    stochastic_sampling: bool | None = None


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
            training="hefw.models.digits.train:run",
        ),
        _digits("shallow", "two squares and three affine regions, for the smallest ring"),
        _digits("attention", "attention in the middle, by a kernel that is a polynomial"),
        _digits("distilled", "two steps that draw what fifty of `digits` do", training="distil"),
        _mnist("mnist", "Mnist", "latents of 2x8x8 that the key holder decodes"),
        _mnist("mnist-2step", "MnistTwoStep", "two steps, which one message has room for (refresh: none)"),
        _mnist("mnist-large", "MnistLarge", "a deeper denoiser: quality first"),
        Entry(
            "mnist-text",
            "hefw.models.mnist.text.model:MnistText",
            "28x28 handwritten digits from prompts such as 'a bold slanted four'; guidance on ciphertext",
            options=MnistOptions,
            requires=NEEDS,
            advice=ADVICE,
            training="hefw.models.mnist.text.train:run",
        ),
        Entry(
            "digits-silu",
            "hefw.models.digits_silu.model:DigitsSilu",
            "8x8 handwritten digits; diffusers' UNet of SiLU and group norms, converted to polynomials",
            options=DigitsSiluOptions,
            requires=NEEDS,
            advice=ADVICE,
            training="hefw.models.digits_silu.train:run",
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


def _digits(variant: str, summary: str, training: str = "") -> Entry:
    """A variant of `digits`; `training` is the module that trains it, if it is not named after the variant."""
    return Entry(
        f"digits-{variant}",
        f"hefw.models.digits.variants:{variant.title()}",
        f"8x8 handwritten digits; {summary}",
        options=DigitsOptions,
        requires=NEEDS,
        advice=ADVICE,
        training=f"hefw.models.digits.{training or variant}:run",
    )


def _mnist(name: str, attribute: str, summary: str) -> Entry:
    return Entry(
        name,
        f"hefw.models.mnist.model:{attribute}",
        f"28x28 handwritten digits by latent diffusion; {summary}",
        options=MnistOptions,
        requires=NEEDS,
        advice=ADVICE,
        training=f"hefw.models.mnist.train:{name.replace('-', '_')}",
    )


@hookimpl
def hefw_schedulers() -> list[Entry]:
    # protocol end-to-end takes those without noise; protocol update-only takes them all
    return [
        Entry(
            "auto",
            "hefw.models.schedules:Own",
            "the one that the model has of its own",
            requires=NEEDS,
            advice=ADVICE,
        ),
        _scheduler("ddim", "DDIMScheduler", "denoising diffusion implicit models (Song et al. 2021)", DdimOptions),
        _scheduler("ddpm", "DDPMScheduler", "ancestral sampling (Ho et al. 2020); adds noise", DdpmOptions),
        _scheduler("pndm", "PNDMScheduler", "PLMS, linear multistep (Liu et al. 2022)", PndmOptions),
        _scheduler(
            "dpm-solver++",
            "DPMSolverMultistepScheduler",
            "DPM-Solver++, multistep of order 1 to 3, also with noise (Lu et al. 2022)",
            DpmSolverOptions,
        ),
        _scheduler("euler", "EulerDiscreteScheduler", "Euler's method (Karras et al. 2022)", EulerOptions),
        _scheduler("euler-ancestral", "EulerAncestralDiscreteScheduler", "Euler's method with noise", SpacingOptions),
        _scheduler("heun", "HeunDiscreteScheduler", "Heun's method, two evaluations a step", HeunOptions),
        _scheduler("lms", "LMSDiscreteScheduler", "linear multistep of order 4", SigmaOptions),
        _scheduler("unipc", "UniPCMultistepScheduler", "predictor and corrector (Zhao et al. 2023)", UniPcOptions),
        _scheduler(
            "flow-match-euler",
            "FlowMatchEulerDiscreteScheduler",
            "Euler's method for models of flow matching",
            FlowMatchOptions,
        ),
    ]


def _scheduler(name: str, kind: str, summary: str, options: type[Options]) -> Entry:
    return Entry(
        name,
        f"diffusers:{kind}",
        summary,
        options=options,
        requires=NEEDS,
        advice=ADVICE,
        distribution="diffusers",
    )
