"""`stable-diffusion` as a plugin: prompts to pictures by diffusers' own pipeline objects."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.utils import load_image
from numpy.typing import NDArray
from PIL import Image

from hefw.core.errors import ConfigError
from hefw.models.base import Watch, Wish
from hefw.models.plugin import StableDiffusionOptions
from hefw.models.schedules import converted
from hefw.models.stable_diffusion.load import load, text

Array = NDArray[np.float64]

#: Sides of pictures are multiples of it in all of diffusers' pipelines, in pixels.
UNIT = 8


class StableDiffusion:
    """Latent diffusion (Rombach et al. 2022) from prompts, by a pipeline of diffusers: Stable Diffusion 1.x, 2.x, XL.

    The text encoder, the UNet, classifier-free guidance and the VAE run at the key holder, as the pipeline has them.
    """

    name = "stable-diffusion"

    def __init__(self, options: StableDiffusionOptions) -> None:
        self._pipe = load(options)
        pixels = int(self._pipe.vae_scale_factor)
        sample = self._pipe.unet.config.sample_size
        sides = (sample, sample) if isinstance(sample, int) else tuple(sample)
        self._height = options.height or sides[0] * pixels
        self._width = options.width or sides[1] * pixels
        unit = max(pixels, UNIT)
        for side, length in (("height", self._height), ("width", self._width)):
            if length % unit:
                raise ConfigError(
                    f"model 'stable-diffusion': {side} {length} is not allowed; allowed: multiples of {unit} pixels; "
                    f"for example {side}={max(1, length // unit) * unit}"
                )
        channels = int(self._pipe.unet.config.in_channels)
        self.latent_shape = (channels, self._height // pixels, self._width // pixels)

    def scheduler(self, kind: Any, options: Mapping[str, Any]) -> Any:
        """A scheduler of class `kind` with the noise levels and prediction type that the UNet was trained for."""
        made = converted(self._pipe.scheduler, kind, options)
        if made.config.get("clip_sample") and options.get("clip_sample") is None:
            # as StableDiffusionPipeline corrects it: latents have no range to be clipped to
            made = converted(self._pipe.scheduler, kind, {**options, "clip_sample": False})
        return made

    def draw(self, wish: Wish, scheduler: Any, watch: Watch) -> Array:
        """Final latents (images, channels, height, width); every update is `scheduler.step`'s.

        Image i starts from the noise of seed + i, which is that of `torch.Generator("cpu").manual_seed(seed + i)`.

        Raises:
            ConfigError: no prompt, a guidance scale or a strength that is not allowed, an init image that is none.
        """
        _check(wish)
        pipe = self._pipe
        given: dict[str, Any] = {}
        if wish.init_image is None:
            pipe = copy.copy(self._pipe)
            given |= {"height": self._height, "width": self._width}
        else:
            picture = _picture(wish.init_image)
            pipe = diffusers.AutoPipelineForImage2Image.from_pipe(self._pipe)
            pipe.set_progress_bar_config(disable=True)
            given["image"] = [pipe.image_processor.resize(picture, self._height, self._width)] * len(wish.prompts)
            if wish.strength is not None:
                given["strength"] = wish.strength
        if wish.negative_prompt is not None:
            given["negative_prompt"] = [wish.negative_prompt] * len(wish.prompts)
        if wish.guidance_scale is not None:
            given["guidance_scale"] = wish.guidance_scale
        pipe.scheduler = scheduler

        def ended(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            watch(step, _array(tensors["latents"]))
            return tensors

        latents = pipe(
            prompt=list(wish.prompts),
            num_inference_steps=wish.steps,
            generator=[torch.Generator("cpu").manual_seed(wish.seed + i) for i in range(len(wish.prompts))],
            output_type="latent",
            callback_on_step_end=ended,
            **given,
        ).images
        return _array(latents)

    def decode(self, latents: Array) -> Array:
        """Images (images, 3, height, width) as the pipeline ends: VAE, then what checks or marks pictures, if any."""
        with torch.no_grad():
            return self._decode(latents)

    def _decode(self, latents: Array) -> Array:
        pipe, vae = self._pipe, self._pipe.vae
        dtype = vae.dtype
        # a VAE that overflows in half precision says so
        upcast = dtype == torch.float16 and bool(vae.config.force_upcast)
        if upcast:
            vae.to(torch.float32)
        scaled = torch.from_numpy(latents).to(pipe.device, vae.dtype) / vae.config.scaling_factor
        mean, deviation = vae.config.get("latents_mean"), vae.config.get("latents_std")
        if mean is not None and deviation is not None:
            shape = (1, -1, 1, 1)
            scaled = scaled * scaled.new_tensor(deviation).view(shape) + scaled.new_tensor(mean).view(shape)
        # one at a time: a picture takes far more memory than its latent
        images = torch.cat([vae.decode(one[None], return_dict=False)[0] for one in scaled])
        if upcast:
            vae.to(dtype)
        flagged = None
        if getattr(pipe, "safety_checker", None) is not None:
            images, flagged = pipe.run_safety_checker(images, pipe.device, dtype)
        if getattr(pipe, "watermark", None) is not None:
            images = pipe.watermark.apply_watermark(images)
        shown = None if flagged is None else [not found for found in flagged]
        pictures = pipe.image_processor.postprocess(images, output_type="pt", do_denormalize=shown)
        return 2 * _array(pictures) - 1


def _check(wish: Wish) -> None:
    """What diffusers would not say, or not in one line."""
    if not wish.prompts:
        raise ConfigError(
            "model 'stable-diffusion' draws from prompts, and none is given; for example --prompt 'a cat'"
        )
    scale, strength = wish.guidance_scale, wish.strength
    if scale is not None and not 0 <= scale < math.inf:
        raise ConfigError(f"guidance_scale {scale} is not allowed; allowed: numbers from 0; for example 7.5")
    if strength is None:
        return
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength {strength} is not allowed; allowed: from 0 to 1; for example 0.8")
    if wish.init_image is None:
        raise ConfigError(
            f"strength {strength} is given without init_image; give the picture of which to change so much"
        )
    if int(wish.steps * strength) < 1:
        raise ConfigError(
            f"strength {strength} of {wish.steps} steps is less than one step; give at least {1 / wish.steps:.3g}, or "
            "more steps"
        )


def _picture(path: Path) -> Any:
    """The picture in RGB, the right way up."""
    try:
        with Image.open(path) as picture:
            return load_image(picture)
    except FileNotFoundError:
        raise ConfigError(f"init_image {str(path)!r} does not exist; give the path of a picture") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ConfigError(f"init_image {str(path)!r} is no picture: {text(error)}; give a PNG or JPEG file") from None


def _array(tensor: Any) -> Array:
    return np.asarray(tensor.detach().double().cpu().numpy())
