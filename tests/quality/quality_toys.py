"""Models small enough to be judged in a second: the toy of three regions, with a judge of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from toy_model import CONFIG, LABELS, ToyModel, ToyPlugin, toy_registry

from hefw import hookimpl, plugins, running
from hefw.config import Config
from hefw.core.graph import Affine, Graph
from hefw.hookspecs import Entry, Options
from hefw.models.base import Model, Reference

Array = NDArray[np.float64]

PIXELS = 16


class Scheduler:
    """The toy's graph and twin have its update within."""

    init_noise_sigma = 1.0
    timesteps = ()

    def set_timesteps(self, steps: int) -> None: ...

    def step(self, *_: Any) -> None:
        raise NotImplementedError


class JudgedToy(ToyModel):
    """Judged in four features, by how bright a picture is."""

    feature_space = "four means of four pixels"

    def scheduler(self, kind: Any, options: Any) -> Any:
        return Scheduler()

    def features(self, images: Array) -> Array:
        return images.reshape(len(images), 4, 4).mean(2)

    def judge(self, images: Array) -> NDArray[np.int64]:
        return np.digitize(images.reshape(len(images), -1).mean(1), [-0.1, 0.1])

    def reference(self) -> Reference:
        rng = np.random.default_rng(5)
        return Reference(rng.normal(size=(80, 4)), rng.normal(size=(60, 4)))


class WithPictures(JudgedToy):
    """Whose data is here."""

    name = "pictures"

    def reference(self) -> Reference:
        images = np.random.default_rng(5).normal(size=(60, 1, 4, 4))
        rows = self.features(images)
        return Reference(rows, rows, images, np.arange(60) % LABELS)

    def original(self) -> Model | None:
        return Brighter(Options())


class Brighter(JudgedToy):
    """Another network of the same pictures."""

    name = "brighter"

    def decode(self, latents: Array) -> Array:
        return latents + 0.5


class Exploding(JudgedToy):
    """Whose second region is far too strong, so that pictures become infinite."""

    name = "exploding"

    def graph(self, scheduler: Any, steps: int) -> Graph:
        graph = super().graph(scheduler, steps)
        z1 = graph.nodes["z1"]
        assert isinstance(z1, Affine)
        return replace(graph, nodes={**graph.nodes, "z1": replace(z1, bias=z1.bias + 1e200)})

    def twin(self, latents: Array, *rest: Any) -> Array:
        return latents * np.inf


class Broken(JudgedToy):
    """Whose weights are not there."""

    name = "broken"

    def __init__(self, options: Options) -> None:
        from hefw.core.errors import ConfigError

        raise ConfigError("no weights; make some")


def _made(kind: Any) -> Entry:
    return Entry(kind.name, f"quality_toys:{kind.__name__}", f"a toy called {kind.name}")


class QualityPlugin(ToyPlugin):
    @hookimpl
    def hefw_models(self) -> list[Entry]:
        kinds = (WithPictures, Exploding, Broken)
        judged = Entry("toy", "quality_toys:JudgedToy", "a toy")
        return [judged, *map(_made, kinds), Entry("plain", "toy_model:ToyModel", "not judged")]


@pytest.fixture
def judged_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry of this process has these models."""
    found = toy_registry()
    for name in [key for key in found.entries if key[0] == "model"]:
        del found.entries[name]
    for entry in QualityPlugin().hefw_models():
        found.add("model", entry, "quality_toys")
    monkeypatch.setattr(plugins, "registry", lambda: found)
    monkeypatch.setattr(running, "registry", lambda: found)


def config(model: str = "toy", **values: Any) -> Config:
    return Config(**{**CONFIG, "model": model, "backend": "simulator", **values})
