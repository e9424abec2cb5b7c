"""A pipeline by diffusers' own `from_pretrained`, and why one cannot be used."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.utils import logging as of_diffusers
from huggingface_hub import utils as hub
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from transformers.utils import logging as of_transformers

from hefw.core.errors import ConfigError, line
from hefw.models.plugin import StableDiffusionOptions

#: What a latent diffusion pipeline is made of; others, such as a second text encoder, may be there too.
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
#: What is given when it is called.
TAKES = (
    *("prompt", "negative_prompt", "guidance_scale", "num_inference_steps", "height", "width"),
    *("generator", "output_type", "callback_on_step_end"),
)
GIVE = "give a folder that save_pretrained wrote"
WHAT_WORKS = f"{GIVE}, of Stable Diffusion 1.x, 2.x or XL"


def load(options: StableDiffusionOptions) -> Any:
    """The pipeline that draws from text alone, on its device.

    Raises:
        ConfigError: a folder that does not exist or holds no such pipeline, a hub id that cannot be fetched, a device
            that is not there.
    """
    device = _device(options.device)
    pretrained = _name(options.pretrained)
    given = {name: getattr(options, name) for name in ("revision", "variant") if getattr(options, name) is not None}
    default = "float16" if device.type == "cuda" else "float32"
    with _quiet():
        try:
            index = diffusers.DiffusionPipeline.load_config(pretrained, revision=options.revision)
            _check_parts(options.pretrained, index)
            # of Stable Diffusion's family whichever it is, for text alone even if it was saved for other inputs
            pipe = diffusers.AutoPipelineForText2Image.from_pretrained(
                pretrained, torch_dtype=getattr(torch, options.dtype or default), **given
            )
        except (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError) as error:
            raise ConfigError(_reason(options.pretrained, error)) from error
    _check_inputs(options.pretrained, pipe)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def text(error: BaseException) -> str:
    """What another library says, on one line."""
    return line(" ".join(str(error).split()), 400).rstrip(".") or type(error).__name__


def _name(pretrained: str) -> str:
    """What from_pretrained is given: the hub id as it is, or the folder."""
    folder = Path(pretrained).expanduser()
    if folder.is_dir():
        return str(folder) if pretrained.startswith("~") else pretrained
    if folder.exists():
        raise ConfigError(
            f"{_named(pretrained)} is a file; {GIVE} (a single file becomes one by "
            "StableDiffusionPipeline.from_single_file(...).save_pretrained(...))"
        )
    try:
        hub.validate_repo_id(pretrained)
    except HFValidationError:
        raise ConfigError(f"{_named(pretrained)} does not exist; {GIVE}, or an id of the Hugging Face hub") from None
    return pretrained


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"model 'stable-diffusion': device {name!r} cannot be used: {text(error)}; choose cpu, or leave it out: "
            "CUDA where there is one"
        ) from None
    return device


def _check_parts(pretrained: str, index: Any) -> None:
    """Before gigabytes are read: `index` is what model_index.json says."""
    if not isinstance(index, dict) or "_class_name" not in index:
        raise ConfigError(f"{_named(pretrained)} is no pipeline: its model_index.json names no class; {WHAT_WORKS}")
    there = {name for name, part in index.items() if isinstance(part, list | tuple) and part and part[0] is not None}
    missing = [part for part in PARTS if part not in there]
    if "unet" in missing:
        raise ConfigError(
            f"{_named(pretrained)} is a {index['_class_name']}, which has no UNet (its parts: "
            f"{', '.join(sorted(there)) or 'none'}); {WHAT_WORKS}"
        )
    if missing:
        raise ConfigError(
            f"{_named(pretrained)} is a {index['_class_name']}, which has no {', '.join(missing)}; {WHAT_WORKS}"
        )


def _check_inputs(pretrained: str, pipe: Any) -> None:
    """A prompt must do: no mask, no control image, and all that a wish may hold is taken."""
    takes = inspect.signature(type(pipe).__call__).parameters
    if "image" in takes or pipe.unet.config.in_channels != pipe.unet.config.out_channels:
        raise ConfigError(f"{_named(pretrained)} needs a mask or another image besides the prompt; {WHAT_WORKS}")
    for name in TAKES:
        if name not in takes:
            raise ConfigError(f"{_named(pretrained)} is a {type(pipe).__name__}, which takes no {name}; {WHAT_WORKS}")


def _reason(pretrained: str, error: BaseException) -> str:
    if Path(pretrained).expanduser().is_dir():
        return f"{_named(pretrained)} cannot be loaded: {text(error)}; {WHAT_WORKS}"
    causes = list(_causes(error))
    if any(isinstance(cause, ConnectionError | LocalEntryNotFoundError) for cause in causes):
        return (
            f"{_named(pretrained)} is no folder here, and the Hugging Face hub cannot be reached ({text(causes[-1])}); "
            f"{GIVE}"
        )
    return f"{_named(pretrained)} is no folder here, and the Hugging Face hub does not give it: {text(error)}; {GIVE}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _named(pretrained: str) -> str:
    return f"model 'stable-diffusion': pretrained {pretrained!r}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars and warnings of loading; a download keeps its bar."""
    loggers = [module for module in (of_diffusers, of_transformers) if module.is_progress_bar_enabled()]
    verbosity = of_transformers.get_verbosity()
    downloads = not hub.are_progress_bars_disabled()
    for module in loggers:
        module.disable_progress_bar()
    of_transformers.set_verbosity_error()
    if downloads:
        hub.enable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        of_transformers.set_verbosity(verbosity)
        for module in loggers:
            module.enable_progress_bar()
