"""A run of the protocol `update-only`: the network at the key holder, the scheduler's updates on a server process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hefw.core.graph import Graph
from hefw.core.lower import Request
from hefw.core.progress import Progress
from hefw.models.base import PromptModel, Wish
from hefw.models.encrypted import encrypted
from hefw.models.schedules import LinearUpdate
from hefw.models.seeded import seeded
from hefw.request import request
from hefw.running import Drawn, Result, Run
from hefw.updating import Updating, graph_of, magnitude

Array = NDArray[np.float64]

#: Latents of a run that are decoded to show the denoising: a decoder may take longer than everything else.
MOMENTS = 6


class UpdateOnly(Run):
    """HE-Diffusion as it was published (section 4), with a server that is one."""

    protocol = "update-only"

    def go(self) -> Result:
        """Draw, compare, record."""
        config = self.config
        options = self.chosen["backend"].options.model_dump(mode="json")
        how, wanted = config.noise_prediction, self.wanted()
        updating = Updating(self.backend, options, self.strategy, how, wanted, self.progress, self.keys)
        scheduler = encrypted(self.scheduler(), updating)
        started = time.perf_counter()
        try:
            latents = self.draw(scheduler, "network", updating)
        finally:
            updating.close()
        drawing = time.perf_counter() - started
        client, graph = updating.client, updating.graph
        assert client is not None
        assert graph is not None  # the schedule has steps
        states = [latents if k == 0 else self.kept(k - 1, latents) for k, latents in enumerate(updating.trajectory)]
        after = tuple(int(k) for k in np.unique(np.linspace(0, len(states) - 1, MOMENTS).round()))
        drawn = Drawn(
            client,
            updating.server,
            graph.digest,
            type(scheduler).__name__,
            self.decode(latents),
            np.stack([self.model.decode(states[k]) for k in after]),
            after,
            graph.steps,
            max(0.0, drawing - sum(client.figures.seconds.values())),
            time.perf_counter() - self.clock,
        )
        twinned = time.perf_counter()
        plain = self.decode(self.draw(self.scheduler(), "twin", updating)) if config.twin else None
        return self.result(drawn, plain, time.perf_counter() - twinned)

    def asking(self) -> tuple[Graph, Request]:
        """Known once the network gave its first prediction."""
        reader = _FirstStep()
        with suppress(Enough):
            self.draw(encrypted(self.scheduler(), reader), "network", reader)
        assert reader.sample is not None  # the schedule has steps
        sample = reader.sample
        graph = graph_of(reader.updates, sample.size, magnitude(sample), self.backend)
        return graph, self.wanted()

    def wanted(self) -> Request:
        """How updates are to be lowered."""
        return request(self.config.params, self.config.allow_insecure)

    def draw(self, scheduler: object, stage: str, updating: Updating | _FirstStep) -> Array:
        """Final latents by the model with a scheduler; random noise in its steps is fixed by the seed."""
        config, model = self.config, self.model

        def watch(step: int, latents: Array) -> Array:
            total = updating.evaluations
            self.progress(Progress(stage, step + 1, total, f"evaluation {step + 1} of {total}"))
            return self.kept(step, latents)

        with seeded(config.seed):
            if isinstance(model, PromptModel):
                wish = Wish(
                    config.prompt,
                    self.steps,
                    config.seed,
                    config.negative_prompt,
                    config.guidance_scale,
                    None if config.init_image is None else Path(config.init_image).expanduser(),
                    config.strength,
                )
                return np.asarray(model.draw(wish, scheduler, watch))
            return np.asarray(model.twin(self.start(), self.asked, scheduler, self.steps, watch, **self.begun))


class Enough(Exception):  # noqa: N818 (no error)
    """Ends a sampling loop."""


class _FirstStep:
    """An `Updater` that wants to know the updates and the first latents, and no more."""

    def __init__(self) -> None:
        self.updates: Sequence[LinearUpdate] = ()
        self.sample: Array | None = None

    @property
    def evaluations(self) -> int:
        return len(self.updates)

    def begin(self, updates: Sequence[LinearUpdate], shape: tuple[int, ...]) -> None:
        self.updates = tuple(updates)

    def step(self, index: int, sample: Array, prediction: Array, noise: Array | None, own: Array) -> Array:
        self.sample = sample
        raise Enough
