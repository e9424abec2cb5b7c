"""What a plugin may add to hefw: the whole interface, on one screen.

A plugin is any module (or object) that implements some of these hooks with `@hefw.hookimpl` and is named in the
entry-point group `hefw` of its distribution. Built-in plugins register through the same hooks.
"""

from __future__ import annotations

from dataclasses import dataclass

import pluggy
from pydantic import BaseModel, ConfigDict

PROJECT = "hefw"
HOOKSPEC_VERSION = 1  # grows when a hook or `Entry` changes incompatibly

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Options(BaseModel):
    """Base of a plugin's declared options: unknown options are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Entry:
    """One backend, strategy, model or scheduler: everything that can be known without importing it."""

    name: str
    target: str  # "package.module:attribute", imported when the entry is first used
    summary: str  # one line for `hefw plugins`
    options: type[Options] = Options
    requires: tuple[str, ...] = ()  # importable modules that the target needs
    advice: str = ""  # the command that makes it available, e.g. "pip install 'hefw[tenseal]'"
    distribution: str = PROJECT  # whose version is shown
    hookspec_version: int = HOOKSPEC_VERSION


@hookspec
def hefw_backends() -> list[Entry]:  # type: ignore[empty-body]
    """HE libraries; the target is a `hefw.core.backend.Backend`."""


@hookspec
def hefw_strategies() -> list[Entry]:  # type: ignore[empty-body]
    """What of a latent is encrypted; the target is a `hefw.strategies.base.Strategy`."""


@hookspec
def hefw_models() -> list[Entry]:  # type: ignore[empty-body]
    """Diffusion models; the target is a `hefw.models.base.Model`."""


@hookspec
def hefw_schedulers() -> list[Entry]:  # type: ignore[empty-body]
    """Schedulers of diffusers' kind; the target is a scheduler class with `from_config`."""
