"""`hefw.generate`: one private generation, from configuration to pictures and record."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw import cache as caching
from hefw import editing, outlines
from hefw.backends.choose import with_capability
from hefw.cache import Cache
from hefw.config import Config, check_labels, merge
from hefw.core.errors import CapabilityError, ConfigError, ProtocolError
from hefw.core.graph import Graph, features
from hefw.core.lower import Request
from hefw.core.program import Interface
from hefw.core.progress import Progress, ProgressCallback
from hefw.core.unroll import check_every, unroll
from hefw.models.base import Prompted, PromptModel
from hefw.outlines import Outlined
from hefw.protocol.client import LATENT, Client
from hefw.protocol.process import ServerProcess
from hefw.request import request
from hefw.running import Drawn, Protocol, Result, Run, load

Array = NDArray[np.float64]

__all__ = ["Result", "generate"]


def generate(
    config: Config | str | Path | None = None,
    *,
    progress: ProgressCallback | None = None,
    passphrase: str | None = None,
    **overrides: Any,
) -> Result:
    """Draw pictures with the help of a server process that sees ciphertext, and of plaintext what a strategy shows it.

    Parameters
    ----------
    config : a Config, a file's path, or None for the defaults.
    progress : called with `Progress` as the run goes on.
    passphrase : of the key set that the configuration names; without it the environment variable HEFW_PASSPHRASE is.
    overrides : configuration keys that win over `config`, e.g. `labels="0-9", steps=10, backend="simulator"`.

    Raises HefwError, one clear line each: ConfigError and PluginError for bad input, ProtocolError for a failed server.
    """
    return prepared(merge(config, overrides), progress, passphrase).go()


def prepared(settings: Config, progress: ProgressCallback | None = None, passphrase: str | None = None) -> Run:
    """The run of a configuration, checked, before anything is done."""
    chosen = settings.resolve()
    cache = caching.default()
    model = outlines.find(settings, chosen, cache) or load(chosen["model"])
    told = progress or (lambda _: None)
    protocol = check(settings, model)
    if isinstance(model, Prompted):
        model = model.guided(settings.guidance_scale)
    if protocol == "end-to-end":
        return EndToEnd(settings, chosen, model, told, passphrase, cache=cache)
    from hefw.run_update import UpdateOnly  # needs torch, which the network of update-only needs anyhow

    return UpdateOnly(settings, chosen, model, told, passphrase)


def check(config: Config, model: Any) -> Protocol:
    """The protocol of a run; ConfigError if model and configuration do not go together."""
    wanted, name = config.protocol, model.name
    if config.mask is not None and isinstance(model, PromptModel):
        raise ConfigError(
            f"model {name!r} takes no mask; leave it out, or use a model that takes labels, such as digits"
        )
    if isinstance(model, PromptModel):
        if wanted == "end-to-end":
            raise ConfigError(
                f"model {name!r} has no graph that a server could evaluate on ciphertext: its network runs at the key "
                "holder; use protocol: update-only"
            )
        if config.labels != Config().labels:
            raise ConfigError(f"model {name!r} takes a prompt, not labels; for example --prompt 'a cat'")
        if not config.prompt:
            raise ConfigError(f"model {name!r} needs a prompt; for example --prompt 'a cat'")
        wanted = "update-only"
    elif isinstance(model, Prompted):
        if config.negative_prompt is not None:
            raise ConfigError(f"model {name!r} takes no negative prompt; leave it out")
        if config.prompt and config.labels != Config().labels:
            raise ConfigError(f"model {name!r} takes prompts or labels, not both; leave one of them out")
        model.check_prompts(config.prompt)
        check_labels(config.labels, model.labels, name)
        editing.check(config, model, wanted == "update-only")
    else:
        given = [
            key for key in ("prompt", "negative_prompt", "guidance_scale") if getattr(config, key) not in (None, ())
        ]
        if given:
            raise ConfigError(f"model {name!r} takes labels, not {given[0]}; for example --labels 0-{model.labels - 1}")
        check_labels(config.labels, model.labels, name)
        editing.check(config, model, wanted == "update-only")
    protocol: Protocol = "update-only" if wanted == "update-only" else "end-to-end"
    if protocol == "end-to-end" and config.noise_prediction != "encrypted":
        raise ConfigError(
            "noise_prediction: plaintext is for protocol: update-only; in end-to-end the server computes the "
            "predictions on ciphertext: leave it out"
        )
    if protocol == "update-only" and config.refresh != Config().refresh:
        asked = f"every {config.refresh.every}" if config.refresh.every > 1 else config.refresh.name
        raise ConfigError(
            f"refresh: {asked} is for protocol: end-to-end; in update-only the key holder encrypts every latent anew: "
            "leave it out"
        )
    if protocol == "update-only" and config.batch != "auto":
        raise ConfigError(
            "batch is for protocol: end-to-end; in update-only all images go in one request: leave it out"
        )
    return protocol


class EndToEnd(Run):
    """The server evaluates network and update on ciphertext."""

    protocol = "end-to-end"
    #: Of the graph's updates, once the graph is there.
    scheduler_name = ""

    def __init__(self, *arguments: Any, cache: Cache | None = None) -> None:
        super().__init__(*arguments)
        self._cache = cache

    def go(self) -> Result:
        """Draw, compare, record."""
        config, model = self.config, self.model
        start = self.start()
        graph, wanted = self.asking()
        with tempfile.TemporaryDirectory(prefix="hefw-") as folder:
            path = Path(folder) / "model.hefw"
            graph.save(path)
            options = self.chosen["backend"].options.model_dump(mode="json")
            with ServerProcess(path, self.backend.name, options, threads=config.threads) as server:
                client = Client(server, self.backend, self._told, self.keys)
                interface = client.open(
                    graph.digest, wanted, lambda told: _check_manifest(told, unroll(graph, wanted.every))
                )
                states = np.zeros((interface.messages + 1, *start.shape))
                states[0] = start
                size = interface.images if config.batch == "auto" else min(config.batch, interface.images)
                batches = [slice(k, k + size) for k in range(0, len(start), size)]
                for number, part in enumerate(batches):

                    def watch(
                        message: int, outputs: Mapping[str, Array], part: slice = part
                    ) -> Mapping[str, Array] | None:
                        states[message + 1, part] = kept = self.kept(message, model.latents(outputs), part)
                        masked = self.edit is not None and self.edit.mask is not None
                        return {LATENT: model.inputs(kept, self.asked[part])[LATENT]} if masked else None

                    inputs = _with_history(graph, model.inputs(start[part], self.asked[part]))
                    client.generate(inputs, watch, (number, len(batches)), self._select)
                client.close()
        seconds = time.perf_counter() - self.clock
        every = graph.steps // interface.messages
        drawn = Drawn(
            client,
            server.pid,
            graph.digest,
            self.scheduler_name,
            self.decode(states[-1]),
            np.stack([model.decode(state) for state in states]),
            tuple(every * message for message in range(len(states))),
            graph.steps,
            0.0,
            seconds,
        )
        twinned = time.perf_counter()
        plain = self._twin(start, graph.steps) if config.twin else None
        return self.result(drawn, plain, time.perf_counter() - twinned)

    def asking(self) -> tuple[Graph, Request]:
        """What the server evaluates, and how it is to be lowered."""
        config = self.config
        graph = self._graph()
        self._check_refresh()
        every = graph.steps if config.refresh.name == "none" else config.refresh.every
        check_every(graph, every)
        bootstrap = config.refresh.name == "bootstrap"
        return graph, request(config.params, config.allow_insecure, every, bootstrap, self._images())

    def _graph(self) -> Graph:
        """From the cache, or made and put there."""
        model = self.model
        if isinstance(model, Outlined):
            self.scheduler_name = model.scheduler_name
            return model.graph(None, self.steps)
        scheduler = self.scheduler()
        self.scheduler_name = type(scheduler).__name__
        graph: Graph = model.graph(scheduler, self.steps, **self.begun)
        outlines.keep(self.given, self.chosen, model, self.initial, self.scheduler_name, graph, self._cache)
        return graph

    def _told(self, progress: Progress) -> None:
        """While the server works on the first step, this process has time to load a network."""
        if progress.stage == "evaluate" and isinstance(self.model, Outlined):
            self.model.wake(twin=self.config.twin)
        self.progress(progress)

    def _images(self) -> int:
        return len(self.asked) if self.config.batch == "auto" else min(self.config.batch, len(self.asked))

    def _select(self, latents: Array) -> NDArray[np.bool_]:
        """The strategy's selection of latents (images, features) in the graph's order."""
        images = self.model.latents({"latent": latents})
        return np.stack([self.strategy.select(image) for image in images]).reshape(latents.shape)

    def _check_refresh(self) -> None:
        if self.config.refresh.name == "bootstrap" and not self.backend.capabilities.bootstrap:
            able = with_capability("bootstrap")
            raise CapabilityError(
                f"backend {self.backend.name!r} cannot bootstrap; those that can: {', '.join(able) or 'none here'}. "
                f"{'Choose one of them, or use' if able else 'Use'} refresh: client"
            )

    def _twin(self, start: Array, evaluations: int) -> Array:
        def watch(step: int, latents: Array) -> Array:
            self.progress(Progress("twin", step + 1, evaluations, f"step {step + 1} of {evaluations}"))
            return self.kept(step, latents)

        latents = self.model.twin(start, self.asked, self.scheduler(), self.steps, watch, **self.begun)
        return self.decode(latents)


def _with_history(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """A multistep scheduler has no history at first: zeros."""
    images = len(inputs["latent"])
    empty = {name: np.zeros((images, features(node))) for name, node in graph.inputs.items()}
    return {**empty, **inputs}


def _check_manifest(interface: Interface, graph: Graph) -> None:
    """The server's program must take and give what the key holder's own copy of the graph does, at every step."""
    inputs = {name: (node.shape, node.once, node.previous) for name, node in graph.inputs.items()}
    outputs = {
        name: (graph.nodes[output.node].shape, output.feedback, tuple(map(float, output.factors)))
        for name, output in graph.outputs.items()
    }
    told_inputs = {name: (port.shape, port.once, port.previous) for name, port in interface.inputs.items()}
    told_outputs = {name: (port.shape, port.feedback, port.factors) for name, port in interface.outputs.items()}
    if (inputs, outputs, graph.timesteps) != (told_inputs, told_outputs, interface.timesteps):
        raise ProtocolError("the server's manifest is not that of this model: inputs, outputs or timesteps differ")
