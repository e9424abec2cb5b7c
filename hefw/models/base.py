"""The interfaces of models: those whose network a server can evaluate, and those that draw from a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hefw.core.graph import Graph

Array = NDArray[np.float64]
#: Called with a step, from 0, and the latents after it; what it returns takes their place.
Watch = Callable[[int, Array], "Array | None"]


class Model(Protocol):
    """A model that takes labels, in either protocol. Made from its declared options.

    Images and latents are (count, channels, height, width), float64. In the protocol `update-only` the key holder runs
    `twin` with a scheduler whose `step` has its update computed on ciphertext.
    """

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


@runtime_checkable
class Editable(Protocol):
    """A model that can start from a picture.

    `graph(scheduler, steps, begin)` and `twin(latents, labels, scheduler, steps, watch, begin)` then take the index in
    the scheduler's timesteps at which they begin; `twin` goes on with the latents that `watch` returns, if any.
    """

    def encode(self, images: Array) -> Array:
        """Latents of pictures (images, channels, height, width), black -1 and white 1; by the key holder."""
        ...


@runtime_checkable
class Prompted(Protocol):
    """A `Model` that takes prompts in the place of labels, in either protocol.

    `inputs` and `twin` are given the prompts (images,) as text, or labels where a run has no prompts.
    """

    #: Number of labels, each of which stands for a prompt.
    labels: int

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """ConfigError for the first prompt that the model does not understand."""
        ...

    def guided(self, scale: float | None) -> Any:
        """The same model with a guidance scale, which is public; its own for None."""
        ...


@runtime_checkable
class OwnSteps(Protocol):
    """A model made for one number of steps, which a run takes where its configuration gives none."""

    steps: int


@dataclass(frozen=True)
class Reference:
    """Real pictures to judge by, as rows of a model's feature space (pictures, features).

    Samples are compared with `real`; rows of `training`, drawn at random, stand for a perfect model, and are what a
    sample may have been copied from. `training_images` (pictures, channels, height, width) are there where the data is,
    `training_labels` (pictures,) where they are known.
    """

    real: Array
    training: Array
    training_images: Array | None = None
    training_labels: NDArray[np.int64] | None = None


@runtime_checkable
class Judged(Protocol):
    """A model whose pictures can be judged without a download: by a classifier and features of its own."""

    #: What `features` are, in words.
    feature_space: str

    def judge(self, images: Array) -> NDArray[np.int64]:
        """Labels (images,) that a classifier of real pictures reads off images (images, channels, height, width)."""
        ...

    def features(self, images: Array) -> Array:
        """Features (images, features) in which Fréchet distances and nearest neighbours are taken."""
        ...

    def reference(self) -> Reference:
        """Real pictures in the same space."""
        ...


@dataclass(frozen=True)
class Wish:
    """What a prompt model is to draw: one image a prompt.

    The seed fixes the noise and nothing else. `init_image` is a picture to start from instead of noise alone, of which
    `strength` (0 to 1) is changed. None stands for the model's own value.
    """

    prompts: tuple[str, ...]
    steps: int
    seed: int = 0
    negative_prompt: str | None = None
    guidance_scale: float | None = None
    init_image: Path | None = None
    strength: float | None = None


@runtime_checkable
class PromptModel(Protocol):
    """A model that takes prompts, in the protocol `update-only`: its network runs at the key holder.

    Made from its declared options. Images and latents are (count, channels, height, width), float64.
    """

    name: str
    #: (channels, height, width) of a latent.
    latent_shape: tuple[int, int, int]

    def scheduler(self, kind: Any, options: Mapping[str, Any]) -> Any:
        """A scheduler of class `kind` as this model was trained for, with some options replaced."""
        ...

    def draw(self, wish: Wish, scheduler: Any, watch: Watch) -> Array:
        """Final latents; every update is `scheduler.step`'s. `watch(step, latents)` after each step."""
        ...

    def decode(self, latents: Array) -> Array:
        """Images from final latents, black -1 and white 1."""
        ...
