"""The truth, what is shown of it, and what attacks make of that, side by side."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from hefw.audit.run import Audit
from hefw.audit.trajectories import Array
from hefw.report.levels import DARK, LIGHT, style

MOST_ROWS = 8
TILE = 0.85  # inches
RESOLUTION = 110  # pixels an inch
NOT_SHOWN = "#7a5ea8"
SHOWN_TITLE = "shown last"


def side_by_side(audit: Audit, *, dark: bool = False) -> bytes:
    """A PNG file: a row a picture, a column for the truth, what is shown, who sees nothing, and every attack tried."""
    columns = {"truth": audit.truth}
    if audit.shown is not None:
        columns[SHOWN_TITLE] = audit.shown
    columns |= {"sees nothing": audit.nothing, **audit.guesses}
    rows = min(len(audit.truth), MOST_ROWS)
    colours = DARK if dark else LIGHT
    with matplotlib.rc_context(style(colours)):
        figure = Figure((TILE * len(columns) + 0.3, TILE * rows + 0.5), layout="constrained")
        panels = figure.subplots(rows, len(columns), squeeze=False)
        for place, (title, images) in enumerate(columns.items()):
            panels[0, place].set_title(title.replace("_", "\n"), fontsize=9)
            for row in range(rows):
                _draw(panels[row, place], images[row])
        for row in range(rows):
            if audit.labels is not None:
                panels[row, 0].set_ylabel(str(audit.labels[row]), rotation=0, va="center", labelpad=8)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=RESOLUTION, metadata={"Software": None})
    return file.getvalue()


def _draw(axes: Axes, image: Array) -> None:
    """One image (channels, height, width); what is nan in a coloured tone."""
    known = np.isfinite(image).all(axis=0)
    grey = np.clip((np.nan_to_num(image) + 1) / 2, 0, 1)
    pixels = np.moveaxis(np.broadcast_to(grey, (3, *grey.shape[1:])), 0, -1).copy()
    pixels[~known] = to_rgb(NOT_SHOWN)
    axes.imshow(pixels, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
