"""What the folder of `mnist-text` holds: denoiser, scheduler and text encoder, and what it shares with `mnist`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusers import DDIMScheduler

from hefw.models.mnist.bundle import Shared, half, load_shared
from hefw.models.mnist.schedule import make_scheduler
from hefw.models.mnist.text.encoder import TextEncoder
from hefw.models.mnist.text.training import Prompted
from hefw.models.mnist.text.unet import TextUNet
from hefw.models.training import existing, load_network, save

ENCODER = "text_encoder"


@dataclass(frozen=True)
class TextBundle:
    """A denoiser and the encoder of its prompts in eval mode, the scheduler, and what it shares with others."""

    unet: TextUNet
    encoder: TextEncoder
    scheduler: DDIMScheduler
    shared: Shared


def load(folder: Path) -> TextBundle:
    """What `write` wrote; autoencoder and judge are the bundled ones where the folder has none of its own.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    name = existing(folder)
    unet, encoder = load_network(TextUNet, folder), load_network(TextEncoder, folder / ENCODER)
    return TextBundle(unet, encoder, DDIMScheduler.from_pretrained(name), load_shared(folder))


def write(folder: Path, trained: Prompted) -> None:
    """Denoiser, scheduler and encoder, with weights rounded to float16."""
    save(folder, half(trained.unet), make_scheduler())
    save(folder / ENCODER, half(trained.encoder))
