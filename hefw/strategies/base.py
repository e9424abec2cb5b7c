"""The interface of an encryption strategy: which entries of a latent are encrypted."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Strategy(Protocol):
    """Made from its declared options; stateless."""

    def select(self, latent: NDArray[np.float64]) -> NDArray[np.bool_]:
        """The selection of one latent (channels, height, width): True where an entry must be encrypted."""
        ...
