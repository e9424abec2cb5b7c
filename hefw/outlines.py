"""What a run needs of a model before its first step, from the cache: its graph, shapes and counts, without the network.

Importing torch and diffusers takes longer than planning. A model whose graph was made before is stood in for by an
outline of it; the network itself is loaded while the server works, for the decoder and the plaintext twin.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from hefw import cache as caching
from hefw.cache import Cache
from hefw.config import Config, Resolved
from hefw.core.errors import GraphError
from hefw.core.graph import Graph
from hefw.core.graph_file import to_bytes
from hefw.models.base import OwnSteps, Watch
from hefw.plugins import registry
from hefw.record import versions_info

Array = NDArray[np.float64]

GRAPH = "graph"
#: Models of this package: what their graphs depend on is known.
OWN = "hefw.models."
#: Keys of a configuration that ask for more of a model than an outline has.
ASKS_MORE = ("prompt", "negative_prompt", "guidance_scale", "init_image", "mask", "strength")
#: Schedulers that are known likewise.
SCHEDULERS = (OWN, "diffusers:")
#: On which a graph depends besides hefw.
LIBRARIES = ("torch", "diffusers", "numpy")


class Outlined:
    """A model that takes labels, as `hefw.models.base.Model`, of which only the graph is there.

    `initial` is the deviation of x_T, `scheduler_name` the class that the graph's updates are of.
    """

    def __init__(self, chosen: Resolved, told: Mapping[str, Any], graph: Graph) -> None:
        self.name: str = told["name"]
        self.labels: int = told["labels"]
        self.latent_shape: tuple[int, int, int] = tuple(told["latent_shape"])
        self.initial: float = told["initial"]
        self.scheduler_name: str = told["scheduler"]
        self._decodes: bool = told["decodes"]
        if told["steps"] is not None:
            self.steps: int = told["steps"]
        self._graph = graph
        self._chosen = chosen
        self._lock = threading.Lock()
        self._model: Any = None
        self._awake = False

    def wake(self, twin: bool) -> None:
        """Begin to load the network if it will be used, beside what else this process does.

        What goes wrong is raised when it is used.
        """
        if (self._decodes or twin) and not self._awake:
            self._awake = True
            threading.Thread(target=self._wake, daemon=True).start()

    def graph(self, scheduler: Any, steps: int) -> Graph:
        """The one that was made before."""
        return self._graph

    def inputs(self, latents: Array, labels: NDArray[np.int64]) -> dict[str, Array]:
        """Latents (images, features) and one-hot labels (images, labels)."""
        return {"latent": latents.reshape(len(latents), -1), "label": np.eye(self.labels)[labels]}

    def latents(self, outputs: Mapping[str, Array]) -> Array:
        """(images, *latent_shape) from the graph's output."""
        return outputs["latent"].reshape(-1, *self.latent_shape)

    def decode(self, latents: Array) -> Array:
        """Pictures of latents; without the network where they are pictures already."""
        return np.asarray(self.model.decode(latents)) if self._decodes else latents

    def scheduler(self, kind: Any, options: Mapping[str, Any]) -> Any:
        """Of the network."""
        return self.model.scheduler(kind, options)

    def twin(self, latents: Array, labels: NDArray[np.int64], scheduler: Any, steps: int, watch: Watch) -> Array:
        """By the network."""
        return np.asarray(self.model.twin(latents, labels, scheduler, steps, watch))

    @property
    def model(self) -> Any:
        """The model itself."""
        self.load()
        return self._model

    def load(self) -> None:
        """Have the network here; waits for the thread that does it, if there is one."""
        with self._lock:
            if self._model is None:
                self._model = registry().load(self._chosen.kind, self._chosen.entry.name)(self._chosen.options)

    def _wake(self) -> None:
        try:
            self.load()
        except Exception:  # raised again where it is used
            return


def find(config: Config, chosen: Mapping[Any, Resolved], cache: Cache | None) -> Outlined | None:
    """The outline of a configuration's model, if its graph was made before."""
    key = _key(config, chosen)
    data = None if cache is None or key is None else cache.get(GRAPH, key)
    if cache is None or key is None or data is None:
        return None
    try:
        told = msgpack.unpackb(data, raw=False)
        with tempfile.NamedTemporaryFile(prefix="hefw-") as file:
            file.write(told["graph"])
            file.flush()
            graph = Graph.load(Path(file.name))
        if graph.digest == told["digest"]:
            return Outlined(chosen["model"], told, graph)
    except (GraphError, LookupError, TypeError, ValueError, msgpack.UnpackException):
        pass
    cache.damaged(GRAPH, key)
    return None


def keep(
    config: Config,
    chosen: Mapping[Any, Resolved],
    model: Any,
    initial: float,
    scheduler_name: str,
    graph: Graph,
    cache: Cache | None,
) -> None:
    """Put a graph into the cache, if an outline says all of its model that a run needs before the first step.

    `initial` and `scheduler_name` as in `Outlined`; `config` and `chosen` as `find` will be given them.
    """
    key = _key(config, chosen)
    if cache is None or key is None or isinstance(model, Outlined):
        return
    from hefw.models.labelled import LabelModel  # is imported already, with the model

    kind = type(model)
    if not isinstance(model, LabelModel) or (kind.inputs, kind.latents) != (LabelModel.inputs, LabelModel.latents):
        return
    told = {
        "name": model.name,
        "labels": model.labels,
        "latent_shape": list(model.latent_shape),
        "initial": initial,
        "scheduler": scheduler_name,
        "decodes": kind.decode is not LabelModel.decode,
        "steps": model.steps if isinstance(model, OwnSteps) else None,
        "digest": graph.digest,
        "graph": to_bytes(graph),
    }
    cache.put(GRAPH, key, [msgpack.packb(told, use_bin_type=True)])


def _key(config: Config, chosen: Mapping[Any, Resolved]) -> str | None:
    """Of all that a graph depends on; None where that is not known."""
    model, scheduler = chosen["model"], chosen["scheduler"]
    more = any(getattr(config, key) != Config.model_fields[key].default for key in ASKS_MORE)
    if more or config.protocol == "update-only" or not model.entry.target.startswith(OWN):
        return None
    if not scheduler.entry.target.startswith(SCHEDULERS):
        return None
    paths = [Path(value).expanduser() for value in model.options.model_dump().values() if isinstance(value, str)]
    options = [
        (item.entry.name, item.entry.target, item.options.model_dump(mode="json")) for item in (model, scheduler)
    ]
    return caching.digest(options, config.steps, caching.stamp_of(paths), versions_info(LIBRARIES))
