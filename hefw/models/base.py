"""The interface of a model: a graph for the server, a plaintext twin for the key holder's comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hefw.core.graph import Graph

Array = NDArray[np.float64]
Watch = Callable[[int, Array], None]


class Model(Protocol):
    """Made from its declared options. Images and latents are (count, channels, height, width), float64."""

    name: str
    #: Number of labels; label l is one-hot in the graph's input `label`.
    labels: int
    #: (channels, height, width) of a latent.
    latent_shape: tuple[int, int, int]

    def scheduler(self, kind: Any, options: Mapping[str, Any]) -> Any:
        """A scheduler of class `kind` as this model was trained for, with some options replaced."""
        ...

    def graph(self, scheduler: Any, steps: int) -> Graph:
        """One denoising step with the scheduler's update, for a number of steps; SchedulerError if it is not linear."""
        ...

    def inputs(self, latents: Array, labels: NDArray[np.int64]) -> dict[str, Array]:
        """The graph's encrypted inputs, (images, features) each."""
        ...

    def latents(self, outputs: Mapping[str, Array]) -> Array:
        """Latents from the graph's outputs; the inverse of `inputs`."""
        ...

    def decode(self, latents: Array) -> Array:
        """Images from final latents, black -1 and white 1; by the key holder, in the clear."""
        ...

    def twin(self, latents: Array, labels: NDArray[np.int64], scheduler: Any, steps: int, watch: Watch) -> Array:
        """Final latents by the original network and scheduler in plaintext; `watch(step, latents)` after each step."""
        ...
