"""Who judges pictures: a small convolutional network that knows real digits well."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional

BATCH = 500


class Judge(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A classifier of 28x28 digits whose last hidden layer is the space of Fréchet distances.

    Args:
        features: width of that layer.
        num_classes: number of labels.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, features: int = 64, num_classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_block(1, 16), nn.MaxPool2d(2), *_block(16, 32), nn.MaxPool2d(2), *_block(32, 64), nn.Flatten()
        )
        self.dropout = nn.Dropout(0.3)
        self.hidden = nn.Linear(64 * 7 * 7, features)
        self.head = nn.Linear(features, num_classes)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Images (count, 1, 28, 28), black -1 and white 1 -> (count, features), none negative."""
        return functional.relu(self.hidden(self.dropout(self.body(images))))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images -> scores (count, num_classes)."""
        scores: torch.Tensor = self.head(self.features(images))
        return scores


def _block(channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]


@torch.no_grad()  # type: ignore[untyped-decorator]
def features(judge: Judge, images: torch.Tensor) -> torch.Tensor:
    """`Judge.features` of any number of images."""
    return torch.cat([judge.features(batch) for batch in images.split(BATCH)])


@torch.no_grad()  # type: ignore[untyped-decorator]
def labels_of(judge: Judge, features: torch.Tensor) -> torch.Tensor:
    """The labels (count,) that the judge reads off features (count, features)."""
    found: torch.Tensor = judge.head(features).argmax(1)
    return found
