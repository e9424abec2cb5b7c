"""A saved diffusers UNet, by folder or by its name on the hub, with its scheduler and the sizes that it says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
from torch import nn

from hefw.core.errors import CompileError, PluginError
from hefw.models.convert.converted import Converted
from hefw.models.digits.unet import DigitsUNet

#: Classes that are loaded by name.
KNOWN: dict[str, Any] = {
    "UNet2DModel": diffusers.UNet2DModel,
    "UNet2DConditionModel": diffusers.UNet2DConditionModel,
    "DigitsUNet": DigitsUNet,
    "Converted": Converted,
}


#: Of a repository on the hub, be it of a pipeline or of a UNet alone: nothing else is downloaded.
WANTED = [
    f"{place}{file}" for place in ("", "unet/") for file in ("config.json", "diffusion_pytorch_model*.safetensors*")
]
WANTED += ["scheduler_config.json", "scheduler/scheduler_config.json"]


@dataclass(frozen=True)
class Saved:
    """A network in eval mode, the scheduler beside it, and what its configuration says."""

    module: nn.Module
    scheduler: Any
    sample_shape: tuple[int, ...]
    classes: int | None


def load_saved(name: str) -> Saved:
    """A UNet that `save_pretrained` wrote, or that of a pipeline; PluginError if it cannot be read."""
    folder = Path(name)
    try:
        module, base = _load(name, folder)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise PluginError(
            f"no UNet can be loaded from {name!r}: {str(error).strip().splitlines()[0][:200]}; give a folder that "
            "save_pretrained of UNet2DModel or UNet2DConditionModel wrote, or the name of such a model on the hub"
        ) from None
    config = module.config
    size = config.get("sample_size")
    if size is None:
        raise CompileError(
            f"the configuration of {name!r} has no sample_size; compile it in Python: hefw.compile(unet, ...)"
        )
    rows, columns = (size, size) if isinstance(size, int) else tuple(size)
    classes = config.get("num_class_embeds") or config.get("num_classes")
    shape = (int(config.get("in_channels", 1)), int(rows), int(columns))
    return Saved(module.eval(), base, shape, classes)


def _load(name: str, folder: Path) -> tuple[Any, Any]:
    """(network, scheduler): those of a pipeline's folder, or a network with its scheduler's configuration beside it."""
    if not folder.is_dir():
        if folder.suffix or folder.is_absolute() or name.count("/") != 1:
            raise OSError("there is no such folder")
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=WANTED))
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    kind = json.loads((unet / "config.json").read_text()).get("_class_name")
    if kind not in KNOWN:
        raise ValueError(f"it holds a {kind}; known: {', '.join(KNOWN)}")
    module = KNOWN[kind].from_pretrained(str(unet), use_safetensors=True)
    for place in (folder / "scheduler", folder):
        if (place / "scheduler_config.json").is_file():
            config = json.loads((place / "scheduler_config.json").read_text())
            return module, getattr(diffusers, config["_class_name"]).from_pretrained(str(place))
    return module, diffusers.DDIMScheduler(clip_sample=False)
