"""`inpaint`: the classical way, a smooth surface through the entries that were shown last."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.restoration import inpaint_biharmonic

from hefw.audit.attacker import Attacker, Guess
from hefw.audit.attacks.fill import means
from hefw.audit.trajectories import Array
from hefw.audit.view import View
from hefw.hookspecs import Options

#: A surface through fewer points than that is a plane, or less.
FEWEST = 3


class Inpaint:
    """Biharmonic inpainting of every channel of the latest latent, by scikit-image."""

    reference = "Damelin and Hoang 2018, On surface completion and image inpainting by biharmonic functions"

    def __init__(self, options: Options) -> None: ...

    def refusal(self, view: View, attacker: Attacker) -> str | None:
        return None

    def guess(self, view: View, attacker: Attacker, rng: np.random.Generator) -> Guess:
        latest = view.latest
        filled = np.where(np.isfinite(latest), latest, means(latest))
        for image, channel in np.ndindex(latest.shape[:2]):
            filled[image, channel] = _surface(filled[image, channel], np.isfinite(latest[image, channel]))
        return Guess(filled)


def _surface(plane: Array, known: NDArray[np.bool_]) -> Array:
    """A plane (height, width) with the entries that are not known replaced, within the range of the others."""
    if known.all() or known.sum() < FEWEST:
        return plane
    return np.asarray(inpaint_biharmonic(plane, ~known))
