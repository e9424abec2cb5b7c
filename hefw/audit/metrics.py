"""How close a guess is to the picture. Images are (images, channels, height, width), black -1 and white 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from skimage.metrics import structural_similarity

Array = NDArray[np.float64]

RANGE = 2.0
#: Side of the window of SSIM, and the least for one; pixels.
WINDOW, SMALLEST_WINDOW = 7, 3
#: The constant of gradient similarity for a range of 1: 170 for grey values of 0..255, as published.
GRADIENT_CONSTANT = 170 / 255**2
SMALLEST_SCALE = 4  # pixels


@dataclass(frozen=True)
class Metric:
    """One figure an image."""

    name: str
    title: str
    unit: str
    higher_is_closer: bool
    reference: str


def as_picture(images: Array) -> Array:
    """As pictures are written: within the range, 8 bits a channel. What is not finite becomes grey."""
    levels = np.rint((np.clip(np.nan_to_num(images, nan=0.0), -1, 1) + 1) * 127.5)
    return np.asarray(levels / 127.5 - 1)


def psnr(guesses: Array, truth: Array) -> Array:
    """Peak signal-to-noise ratio of each image in dB, for a range of 2."""
    error = np.square(guesses - truth).mean(axis=(1, 2, 3))
    # a guess in 8 bits is not nearer to a picture than its rounding but by chance
    return np.asarray(10 * np.log10(RANGE**2 / np.maximum(error, (RANGE / 255) ** 2 / 12)))


def ssim(guesses: Array, truth: Array) -> Array:
    """Structural similarity of each image, by scikit-image with a window of 7x7 pixels, or what fits."""
    side = min(truth.shape[2:])
    window = min(WINDOW, side - (side + 1) % 2)
    if window < SMALLEST_WINDOW:
        return np.full(len(truth), np.nan)
    found = [
        structural_similarity(guess, image, data_range=RANGE, channel_axis=0, win_size=window)
        for guess, image in zip(guesses, truth, strict=True)
    ]
    return np.array(found)


def gradient_distance(guesses: Array, truth: Array) -> Array:
    """1 - the mean gradient magnitude similarity of each image, over its scales: 0 is alike, 1 has nothing alike.

    The mean, not the deviation that GMSD pools by: a guess that is wrong everywhere alike deviates little.
    """
    a, b = guesses / RANGE, truth / RANGE
    scales = []
    while True:
        m, n = _gradient(a), _gradient(b)
        similarity = (2 * m * n + GRADIENT_CONSTANT) / (m**2 + n**2 + GRADIENT_CONSTANT)
        scales.append(similarity.mean(axis=(1, 2, 3)))
        if min(a.shape[2:]) < 2 * SMALLEST_SCALE:
            return np.asarray(1 - np.mean(scales, axis=0))
        a, b = _halved(a), _halved(b)


IMAGE_METRICS: dict[str, tuple[Metric, Callable[[Array, Array], Array]]] = {
    "psnr": (
        Metric("psnr", "PSNR", "dB", True, "peak signal-to-noise ratio for black -1 and white 1"),
        psnr,
    ),
    "ssim": (
        Metric("ssim", "SSIM", "", True, "Wang et al. 2004, by scikit-image, windows of 7x7 pixels"),
        ssim,
    ),
    "gradient_distance": (
        Metric(
            "gradient_distance",
            "Gradient distance",
            "",
            False,
            "1 - mean gradient magnitude similarity (Xue et al. 2014, section II), over scales that halve",
        ),
        gradient_distance,
    ),
}
LABEL = Metric("label", "Label recovered", "share", True, "the label that was named, or read off the guess, is right")


def _gradient(images: Array) -> Array:
    """Gradient magnitude by the Prewitt operator."""
    smooth, slope = np.full(3, 1 / 3), np.array([1.0, 0.0, -1.0])
    down = correlate1d(correlate1d(images, slope, axis=2), smooth, axis=3)
    across = correlate1d(correlate1d(images, slope, axis=3), smooth, axis=2)
    return np.asarray(np.hypot(down, across))


def _halved(images: Array) -> Array:
    """The mean of every 2x2 pixels."""
    height, width = (side // 2 * 2 for side in images.shape[2:])
    cut = images[:, :, :height, :width]
    return np.asarray(cut.reshape(*cut.shape[:2], height // 2, 2, width // 2, 2).mean(axis=(3, 5)))
