"""`digits` as a plugin: the bundled network, its graph, and a classifier that judges its pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.core.graph import Graph
from hefw.models.base import Reference
from hefw.models.digits import judge
from hefw.models.digits.graph import digits_graph
from hefw.models.digits.train import BUNDLED, load
from hefw.models.digits.unet import LabelledUNet
from hefw.models.labelled import LabelModel, load_weights
from hefw.models.plugin import DigitsOptions
from hefw.models.schedules import initial_noise, linear_updates

Array = NDArray[np.float64]


class JudgedDigits(LabelModel):
    """A model of 8x8 digits, by whatever network: pictures are judged by scikit-learn's digits."""

    feature_space = judge.FEATURE_SPACE

    def judge(self, images: Array) -> NDArray[np.int64]:
        """Labels (images,) that a classifier fitted on the real digits reads off images (images, 1, 8, 8)."""
        return judge.predict(images)

    def features(self, images: Array) -> Array:
        """Grey values (images, 64) of 0 to 16."""
        return judge.to_grey(images)

    def reference(self) -> Reference:
        """All real digits: the network was trained on them, and there are no others."""
        return judge.reference()


class PatchDigits(JudgedDigits):
    """By a network on 2x2 patches, whose configuration says for which pictures and labels it is."""

    def __init__(self, name: str, unet: LabelledUNet, scheduler: Any) -> None:
        size = int(unet.config.sample_size)
        super().__init__(name, unet, scheduler, (1, size, size), int(unet.config.num_classes))


class Digits(PatchDigits):
    """8x8 handwritten digits, by a UNet of squares and affine maps only."""

    unet: Any

    def __init__(self, options: DigitsOptions) -> None:
        super().__init__("digits", *load_weights("digits", options.pretrained, BUNDLED, load))

    def graph(self, scheduler: Any, steps: int, begin: int = 0) -> Graph:
        """One denoising step with the scheduler's update, for `steps` steps from `begin` on, without a compiler."""
        updates = linear_updates(scheduler, steps, begin=begin)
        return digits_graph(self.unet, updates, initial_noise(scheduler, steps, begin))
