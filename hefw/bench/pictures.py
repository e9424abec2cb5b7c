"""The first pictures of a run in a row, small enough to stand in a page hundreds of times."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MOST = 8
#: Sides of a picture in the row, in pixels: enlarged without smoothing to the least at least, never beyond the most.
LEAST, LARGEST = 32, 96
GAP = 2
NOT_FINITE = (255, 0, 255)


def row(images: NDArray[np.float64]) -> str:
    """Images (count, channels, height, width), black -1 and white 1, as a PNG in base64. Magenta: not a number."""
    tiles = [_tile(image) for image in images[:MOST]]
    height, width = tiles[0].shape[:2]
    strip = np.zeros((height, len(tiles) * (width + GAP) - GAP, 4), dtype=np.uint8)  # gaps are transparent
    for place, tile in enumerate(tiles):
        strip[:, place * (width + GAP) :][:, :width, :3] = tile
        strip[:, place * (width + GAP) :][:, :width, 3] = 255
    file = io.BytesIO()
    Image.fromarray(strip).save(file, format="PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _tile(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(height, width, 3) of one image (channels, height, width)."""
    finite = np.isfinite(image).all(axis=0)
    grey = np.clip((np.nan_to_num(image) + 1) * 127.5, 0, 255).round().astype(np.uint8)
    pixels = np.array(np.moveaxis(np.broadcast_to(grey, (3, *grey.shape[1:])), 0, -1), order="C")
    pixels[~finite] = NOT_FINITE
    side = max(pixels.shape[:2])
    if side > LARGEST:
        smaller = Image.fromarray(pixels)
        smaller.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        return np.array(smaller)
    factor = -(-LEAST // side)
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)
