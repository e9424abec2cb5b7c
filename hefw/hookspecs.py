"""What a plugin may add to hefw: the whole interface, on one screen.

A plugin is any module (or object) that implements some of these hooks with `@hefw.hookimpl` and is named in the
entry-point group `hefw` of its distribution. Built-in plugins register through the same hooks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pluggy
from pydantic import BaseModel, ConfigDict, StrictBool

PROJECT = "hefw"
HOOKSPEC_VERSION = 1  # grows when a hook or `Entry` changes incompatibly

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Options(BaseModel):
    """Base of a plugin's declared options: unknown options are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BackendOptions(Options):
    """Base of a backend's declared options: what hefw itself offers for any backend."""

    hosted: StrictBool = False  # in worker processes, though its library could be imported here


@dataclass(frozen=True)
class Install:
    """One way to install a backend's library, for `hefw backends install NAME`.

    It goes into the environment that runs hefw if that fits, else into a managed one with an interpreter that does.
    """

    requirements: tuple[str, ...]  # as pip takes them, e.g. "openfhe==1.6.1.0.22.4"
    python: str | None = None  # the only Python it works on, e.g. "3.10"; None for whichever runs hefw
    minimum_glibc: tuple[int, int] | None = None  # of compiled code in the wheels, e.g. (2, 35)
    environment: Mapping[str, str] = field(default_factory=dict)  # for pip; "package:file" is a package's file
    note: str = ""  # said before it begins, e.g. "compiled from source, about 5 minutes"


@dataclass(frozen=True)
class Entry:
    """One backend, strategy, model, scheduler or attack: everything that can be known without importing it."""

    name: str
    target: str  # "package.module:attribute", imported when the entry is first used
    summary: str  # one line for `hefw plugins`
    options: type[Options] = Options
    requires: tuple[str, ...] = ()  # importable modules that the target needs
    advice: str = ""  # the command that makes it available, e.g. "pip install 'hefw[models]'"
    distribution: str = PROJECT  # whose version is shown
    hookspec_version: int = HOOKSPEC_VERSION
    install: tuple[Install, ...] = ()  # of a backend: ways to install its library, the preferred one first
    training: str = ""  # of a model: "package.module:attribute", a hefw.models.training.Training for `hefw train NAME`


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


@hookspec
def hefw_attacks() -> list[Entry]:  # type: ignore[empty-body]
    """What a server may try on what it sees; the target is a `hefw.audit.attacker.Attack`."""
