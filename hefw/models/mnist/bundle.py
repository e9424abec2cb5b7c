"""What a model's folder holds: its denoiser and scheduler, and the autoencoder and judge that go with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from diffusers import DDIMScheduler
from diffusers.models.modeling_utils import ModelMixin
from safetensors.numpy import load_file, save_file

from hefw.models.base import Reference
from hefw.models.mnist import judge as judges
from hefw.models.mnist.autoencoder import Autoencoder
from hefw.models.mnist.data import Mnist
from hefw.models.mnist.judge import Judge
from hefw.models.mnist.schedule import make_scheduler
from hefw.models.mnist.unet import LatentUNet
from hefw.models.training import existing, load_network, save

BUNDLED = Path(__file__).parent / "weights"
AUTOENCODER = "autoencoder"
JUDGE = "judge"
REFERENCE = "reference.safetensors"
Network = TypeVar("Network", bound=ModelMixin)


@dataclass(frozen=True)
class Shared:
    """What the denoisers of one training share, all in eval mode: judged by `reference`, as rows of features."""

    autoencoder: Autoencoder
    judge: Judge
    reference: Reference


@dataclass(frozen=True)
class Bundle:
    """A denoiser in eval mode, the scheduler that it was trained for, and what it shares with others."""

    unet: LatentUNet
    scheduler: DDIMScheduler
    shared: Shared


def load(folder: Path) -> Bundle:
    """What `write` wrote; autoencoder and judge are the bundled ones where the folder has none of its own.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    name = existing(folder)
    return Bundle(load_network(LatentUNet, folder), DDIMScheduler.from_pretrained(name), load_shared(folder))


def load_shared(folder: Path) -> Shared:
    """Autoencoder, judge and reference from their own folders within `folder`; the bundled ones if it has none."""
    folder = folder if (folder / AUTOENCODER).is_dir() else BUNDLED
    judge = folder / JUDGE
    found = load_file(judge / REFERENCE)
    reference = Reference(
        found["real"].astype(np.float64),
        found["training"].astype(np.float64),
        training_labels=found["training_labels"].astype(np.int64),
    )
    return Shared(load_network(Autoencoder, folder / AUTOENCODER), load_network(Judge, judge), reference)


def write(folder: Path, unet: LatentUNet) -> None:
    """Denoiser and scheduler. Weights are rounded to float16, which costs less than CKKS does."""
    save(folder, half(unet), make_scheduler())


def write_shared(folder: Path, shared: Shared) -> None:
    """Autoencoder, judge and reference, each in a folder within `folder`; rounded to float16, too."""
    save(folder / AUTOENCODER, half(shared.autoencoder))
    save(folder / JUDGE, half(shared.judge), _Rows(shared.reference))


def make_reference(judge: Judge, data: Mnist) -> Reference:
    """The judge's features of the pictures that were kept out of training, and of those that were not."""
    real, training = (
        judges.features(judge, part.images).numpy().astype(np.float64) for part in (data.held_out, data.training)
    )
    return Reference(real, training, training_labels=data.training.labels.numpy())


@dataclass(frozen=True)
class _Rows:
    """A reference with labels, written like a network."""

    reference: Reference

    def save_pretrained(self, folder: str) -> None:
        labels = self.reference.training_labels
        assert labels is not None
        rows = {
            "real": self.reference.real.astype(np.float16),
            "training": self.reference.training.astype(np.float16),
            "training_labels": labels.astype(np.uint8),
        }
        save_file(rows, Path(folder) / REFERENCE)


def half(network: Network) -> Network:
    """A copy in float16, whose configuration does not say where the network was loaded from."""
    own = {name: value for name, value in network.config.items() if not name.startswith("_")}
    copied: Network = type(network)(**own)
    copied.load_state_dict(network.state_dict())
    copied.half()
    return copied
