"""The interface of an encryption strategy: which entries of a latent are encrypted, and how they are sent."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Strategy(Protocol):
    """Made from its declared options; stateless."""

    #: Encrypted entries travel as a dense list with their indices in the clear (HE-Diffusion's sparse way), where a
    #: protocol can send lists; otherwise they stay in their places, with zeros between them.
    packed: bool

    def select(self, latent: NDArray[np.float64]) -> NDArray[np.bool_]:
        """The selection of one latent (channels, height, width): True where an entry must be encrypted."""
        ...
