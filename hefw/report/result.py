"""What a report is made from."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hefw.record import RunRecord


class RunResult(Protocol):
    """The result of `hefw.generate`, as the reports use it. Images are float64, black -1, white 1."""

    @property
    def images(self) -> NDArray[np.float64]:
        """The decrypted images (count, channels, height, width)."""
        ...

    @property
    def plain(self) -> NDArray[np.float64] | None:
        """The plaintext twin's images of the same seed (count, channels, height, width), or None."""
        ...

    @property
    def trajectory(self) -> NDArray[np.float64]:
        """Moments of the denoising (moments, count, channels, height, width): x_T, then what was decrypted, decoded."""
        ...

    @property
    def after(self) -> tuple[int, ...]:
        """Evaluations of the network before each moment of the trajectory; 0 is x_T."""
        ...

    @property
    def server_view(self) -> tuple[bytes, ...]:
        """The beginning of the latents' first ciphertext in each message that had one: the very bytes."""
        ...

    @property
    def source(self) -> NDArray[np.float64] | None:
        """The picture that the run started from, as it was taken (channels, height, width), or None."""
        ...

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """What of it was drawn anew (height, width), or None where that is all."""
        ...

    @property
    def record(self) -> RunRecord:
        """The run's record."""
        ...
