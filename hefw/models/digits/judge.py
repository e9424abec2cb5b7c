"""Who judges pictures of digits: a classifier of scikit-learn's real ones, in the space of grey values."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.models.base import Reference
from hefw.models.digits.train import load_images

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

FEATURE_SPACE = "64 grey values of 0 to 16"


def to_grey(images: Array) -> Array:
    """Images (images, 1, 8, 8) -> rows (images, 64) of grey values, clamped to the digits' range 0..16."""
    return np.asarray((np.clip(images, -1, 1).reshape(len(images), -1) + 1) * 8)


@functools.cache
def reference() -> Reference:
    """All real digits: every one of them is a training picture."""
    images, labels = load_images()
    pictures = images.double().numpy()
    grey = to_grey(pictures)
    return Reference(grey, grey, pictures, labels.numpy())


@functools.cache
def _classifier() -> Any:
    from sklearn.svm import SVC

    real = reference()
    return SVC(gamma=0.001).fit(real.training, real.training_labels)


def predict(images: Array) -> Labels:
    """Labels (images,) that SVC(gamma=0.001), fitted on the real digits, gives to images (images, 1, 8, 8)."""
    return np.asarray(_classifier().predict(to_grey(images)), dtype=np.int64)
