"""Pictures side by side: a row a picture, a column for each way that it was had."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hefw.report.levels import DARK, LIGHT, style

Array = NDArray[np.float64]

TILE = 0.85  # inches
RESOLUTION = 110  # pixels an inch
NO_NUMBER = "#7a5ea8"


def draw(columns: Mapping[str, Array], rows: int, heads: Sequence[str] | None = None, *, dark: bool = False) -> bytes:
    """A PNG file of `columns`: pictures (images, channels, height, width) by title, the first `rows` of each.

    A column that has fewer ends earlier. What is not a number is violet. `heads` stand before the rows.
    """
    colours = DARK if dark else LIGHT
    with matplotlib.rc_context(style(colours)):
        figure = Figure((TILE * len(columns) + 0.3, TILE * rows + 0.5), layout="constrained")
        panels = figure.subplots(rows, len(columns), squeeze=False)
        for place, (title, images) in enumerate(columns.items()):
            panels[0, place].set_title(title, fontsize=9)
            for row in range(rows):
                _draw(panels[row, place], images[row] if row < len(images) else None)
        for row, head in enumerate((heads or ())[:rows]):
            panels[row, 0].set_ylabel(head, rotation=0, va="center", labelpad=8)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=RESOLUTION, metadata={"Software": None})
    return file.getvalue()


def _draw(axes: Axes, image: Array | None) -> None:
    """One image (channels, height, width), or an empty place."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if image is None:
        return
    known = np.isfinite(image).all(axis=0)
    grey = np.clip((np.nan_to_num(image) + 1) / 2, 0, 1)
    pixels = np.moveaxis(np.broadcast_to(grey, (3, *grey.shape[1:])), 0, -1).copy()
    pixels[~known] = to_rgb(NO_NUMBER)
    axes.imshow(pixels, interpolation="nearest")
