"""What is judged: a model that can be, its scheduler, and the network that it was made from where there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pydantic import ValidationError

from hefw import plugins
from hefw.config import Config
from hefw.core.errors import ConfigError
from hefw.models.base import Judged, Model, PromptModel
from hefw.plugins import unavailable
from hefw.running import load, steps_of

#: What a class has whose models can be judged on both sides of encryption.
MEMBERS = ("judge", "features", "reference", "graph")


@runtime_checkable
class Converted(Protocol):
    """A model that was made from another network, such as one with activations that are no polynomials."""

    def original(self) -> Model | None:
        """That network as a model of the same pictures; None where it is not at hand."""
        ...


class JudgedModel(Model, Judged, Protocol):
    """A model that takes labels, has a graph, and can be judged."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model as a configuration has it.

    Attributes:
        config: with this model's own number of steps where none was given.
        original: what the model was made from, or None.
    """

    config: Config
    model: JudgedModel
    original: Model | None
    summary: str

    def scheduler(self, model: Model | None = None) -> Any:
        """A new scheduler, of the model's by default."""
        chosen = self.config.resolve()["scheduler"]
        kind = plugins.registry().load("scheduler", chosen.entry.name)
        return (model or self.model).scheduler(kind, chosen.options.model_dump())


def subject(config: Config) -> Subject:
    """The model of a configuration; ConfigError if it cannot be judged, or not in that protocol."""
    chosen = config.resolve()["model"]
    name = chosen.entry.name
    if not able(name):
        raise ConfigError(
            f"model {name!r} cannot be judged: it has no classifier and real pictures of its own; those that have: "
            f"{', '.join(judged_models()) or 'none here'}"
        )
    if config.protocol == "update-only":
        raise ConfigError(
            "protocol: update-only runs the network in plaintext, so that its pictures are the twin's; to judge those "
            "drawn on ciphertext use protocol: end-to-end"
        )
    model = load(chosen)
    settled = config.model_copy(update={"steps": steps_of(config, model)})
    original = model.original() if isinstance(model, Converted) else None
    return Subject(settled, model, original, chosen.entry.summary)


def judged_models() -> list[str]:
    """The models here that can be judged as they come, without an option that they must be given."""
    return [name for name in plugins.registry().names("model") if able(name)]


def able(name: str) -> bool:
    """Whether a registered model can be judged, as far as its class tells."""
    entry = plugins.registry().entry("model", name)
    if unavailable(entry):
        return False
    target = plugins.registry().load("model", name)
    if isinstance(target, type):
        return all(hasattr(target, member) for member in MEMBERS) and not hasattr(target, "draw")
    try:  # a function that makes models
        made = target(entry.options())
    except ValidationError:
        return False
    return isinstance(made, Judged) and not isinstance(made, PromptModel)
