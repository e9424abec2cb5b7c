"""The truth, what is shown of it, and what attacks make of that, side by side."""

from __future__ import annotations

from hefw.audit.run import Audit
from hefw.report import columns

MOST_ROWS = 8
SHOWN_TITLE = "shown last"


def side_by_side(audit: Audit, *, dark: bool = False) -> bytes:
    """A PNG file: a row a picture, a column for the truth, what is shown, who sees nothing, and every attack tried.

    What is not shown is nan, and drawn in violet.
    """
    drawn = {"truth": audit.truth}
    if audit.shown is not None:
        drawn[SHOWN_TITLE] = audit.shown
    drawn |= {"sees nothing": audit.nothing, **audit.guesses}
    titled = {title.replace("_", "\n"): images for title, images in drawn.items()}
    heads = None if audit.labels is None else [str(label) for label in audit.labels]
    return columns.draw(titled, min(len(audit.truth), MOST_ROWS), heads, dark=dark)
