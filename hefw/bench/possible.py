"""Which cells cannot be, and why: what is known before a key is made or a plan begun.

`python -m hefw.bench.possible` reads configurations as a JSON list on standard input and writes a list of reasons, null
where there is none. It is a process of its own, since it loads every model of a matrix.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from hefw import plugins
from hefw.backends.choose import with_capability
from hefw.bench.expansion import HEFW, Cell
from hefw.config import Config, Resolved
from hefw.core.errors import CapabilityError, ConfigError, HefwError, ParameterError, ProtocolError, line
from hefw.core.unroll import check_every
from hefw.models.base import PromptModel
from hefw.plugins import KINDS, registry, unavailable
from hefw.request import request
from hefw.run import check
from hefw.running import load, steps_of


def reasons(cells: Sequence[Cell]) -> list[str | None]:
    """Why each cell cannot be measured here, in a line; None where nothing speaks against it."""
    asked = json.dumps([{"config": cell.config.to_dict(), "way": cell.way} for cell in cells])
    done = subprocess.run(
        [sys.executable, "-m", "hefw.bench.possible"],
        input=asked,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    try:
        told = json.loads(done.stdout)
    except ValueError:
        told = None
    if not isinstance(told, list) or len(told) != len(cells):
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ProtocolError(f"the combinations could not be checked: {line(words[-1])}")
    return [None if reason is None else line(reason) for reason in told]


class Checker:
    """Checks configurations one after the other, and keeps what several of them need."""

    def __init__(self) -> None:
        self._models: dict[str, Any] = {}
        self._graphs: dict[str, str | None] = {}

    def reason(self, config: Config, way: str = HEFW) -> str | None:
        """Why a configuration cannot run; None where nothing speaks against it so far."""
        try:
            self._check(config, way)
        except HefwError as error:
            return str(error)
        except Exception as error:  # a stranger's plugin may raise anything
            return f"{type(error).__name__}: {error}"
        return None

    def _check(self, config: Config, way: str) -> None:
        for kind in KINDS:
            entry = registry().entry(kind, getattr(config, kind).name)
            if reason := unavailable(entry):
                raise ConfigError(f"{kind} {entry.name!r} is unavailable: {reason}")
        chosen = config.resolve()
        if way != HEFW and not plugins.importable("tenseal"):
            raise ConfigError("the published ways need tenseal, which is not installed; run: pip install tenseal")
        if way == HEFW:
            _check_backend(config, chosen["backend"])
        model = self._model(chosen["model"])
        protocol = check(config, model)
        load(chosen["strategy"]).select(np.zeros(model.latent_shape))
        if way != HEFW and (isinstance(model, PromptModel) or min(model.latent_shape[1:]) < 8):
            raise ConfigError(f"the published ways take latents of 8x8 and more, and labels; not model {model.name!r}")
        if protocol == "end-to-end":
            self._check_graph(config, chosen["scheduler"], model)

    def _model(self, chosen: Resolved) -> Any:
        key = json.dumps([chosen.entry.name, chosen.options.model_dump(mode="json")])
        if key not in self._models:
            self._models[key] = load(chosen)
        return self._models[key]

    def _check_graph(self, config: Config, chosen: Resolved, model: Any) -> None:
        steps = steps_of(config, model)
        every = config.refresh.steps_a_message(steps)
        key = json.dumps([config.to_dict()["model"], config.to_dict()["scheduler"], steps, every])
        if key not in self._graphs:
            self._graphs[key] = self._graph_fault(chosen, model, steps, every)
        if fault := self._graphs[key]:
            raise ConfigError(fault)

    @staticmethod
    def _graph_fault(chosen: Resolved, model: Any, steps: int, every: int) -> str | None:
        kind = registry().load("scheduler", chosen.entry.name)
        try:
            graph = model.graph(model.scheduler(kind, chosen.options.model_dump()), steps)
            check_every(graph, graph.steps if every == steps else every)
        except HefwError as error:
            return str(error)
        return None


def _check_backend(config: Config, chosen: Resolved) -> None:
    """What a backend declares that it cannot do."""
    name = chosen.entry.name
    able = plugins.imported("backend", chosen.entry).capabilities
    if config.refresh.name == "bootstrap" and not able.bootstrap:
        others = ", ".join(with_capability("bootstrap")) or "none here"
        raise CapabilityError(f"backend {name!r} cannot bootstrap; those that can: {others}")
    ring, wanted = config.params.ring_dimension, config.params
    if ring is not None and ring not in able.ring_dimensions:
        allowed = ", ".join(map(str, able.ring_dimensions))
        raise ParameterError(f"backend {name!r} has no ring dimension {ring}; allowed: {allowed}")
    for bits in (wanted.modulus_bits or ())[1:]:
        if bits > able.largest_prime_bits:
            raise ParameterError(
                f"backend {name!r} has no primes of {bits} bits after the first; the largest have "
                f"{able.largest_prime_bits}"
            )
    request(wanted, config.allow_insecure)  # refuses a chain that is below 128 bits, or half given


def main() -> None:
    """Read configurations, write reasons."""
    asked = json.loads(sys.stdin.read())
    checker = Checker()
    with contextlib.redirect_stdout(sys.stderr):  # a library that prints must not end up in the JSON
        found = [checker.reason(Config(**item["config"]), item["way"]) for item in asked]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
