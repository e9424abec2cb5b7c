"""What every strategy asks of a latent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hefw.core.errors import EncodingError


def checked(latent: NDArray[np.float64]) -> NDArray[np.float64]:
    """The latent (channels, height, width) as float64.

    Raises:
        EncodingError: it has another number of axes, no entries, or values that are not finite.
    """
    values = np.asarray(latent, dtype=np.float64)
    if values.ndim != 3 or not values.size:
        raise EncodingError(
            f"a latent of shape {values.shape} is not allowed; allowed: (channels, height, width), each at least 1; "
            "select for one image at a time"
        )
    wrong = values.size - int(np.isfinite(values).sum())
    if wrong:
        raise EncodingError(
            f"{wrong} of {values.size} entries of a latent are not finite; allowed: finite numbers; look for an "
            "overflow in the model or the scheduler"
        )
    return values
