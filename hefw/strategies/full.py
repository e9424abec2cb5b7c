"""`full`: every entry of the latent is encrypted; the server sees none of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hefw.hookspecs import Options


class Full:
    """Encrypts everything. The baseline of HE-Diffusion (section 4), here with packed slots."""

    packed = False

    def __init__(self, options: Options) -> None:
        self.options = options

    def select(self, latent: NDArray[np.float64]) -> NDArray[np.bool_]:
        """All True, of the latent's shape (channels, height, width)."""
        return np.ones(latent.shape, dtype=np.bool_)
