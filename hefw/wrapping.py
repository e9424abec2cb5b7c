"""`hefw.wrap`: a diffusers pipeline whose scheduler's update runs on ciphertext, on a server process."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, get_args

import diffusers

from hefw.backends.choose import make
from hefw.config import Choice, Config, Params, resolve
from hefw.core.backend import Backend
from hefw.core.errors import ConfigError, HefwError
from hefw.core.ledger import Ledger
from hefw.core.progress import ProgressCallback
from hefw.models.encrypted import encrypted
from hefw.models.schedules import converted
from hefw.plugins import registry
from hefw.protocol.client import Figures
from hefw.protocol.keysource import KeySource
from hefw.request import request
from hefw.running import stored
from hefw.updating import NoisePrediction, Updating

if TYPE_CHECKING:
    from hefw.keys.store import KeySet

Plugin = str | Mapping[str, Any] | Choice


def wrap(
    pipe: Any,
    backend: Plugin = "tenseal",
    strategy: Plugin = "full",
    noise_prediction: NoisePrediction = "encrypted",
    scheduler: Any = None,
    params: Params | Mapping[str, Any] | None = None,
    allow_insecure: bool = False,
    progress: ProgressCallback | None = None,
    keys: str | None = None,
    passphrase: str | None = None,
) -> Any:
    """A pipeline that is called as `pipe` is, with every update of its scheduler computed on ciphertext.

    It is an instance of `pipe`'s class and shares all its parts but the scheduler; `pipe` stays as it was. The networks
    run here, at the key holder, as they did; a server process, started at the first step, computes
    x_{t-1} = f x_t + sum_i a_i eps_i on what the strategy encrypts (HE-Diffusion, arXiv 2403.05794: the protocol
    `update-only`). The process is kept for calls of the same schedule and size.

    Parameters
    ----------
    pipe : a diffusers pipeline with a UNet and a scheduler whose update is linear.
    backend, strategy : a name, or a mapping of `name` and the plugin's options.
    noise_prediction : 'encrypted', or 'plaintext' as HE-Diffusion was published.
    scheduler : another one than the pipeline's: a name or a mapping as above, which is made from the pipeline's own, or
        a diffusers scheduler. One that is assigned to the result later, as diffusers' users do, is encrypted too.
    params, allow_insecure, progress : as in `hefw.generate`.
    keys : the name of a stored key set, which `Session.make_keys` makes; new keys for each server process without it.
    passphrase : of that key set; without it the environment variable HEFW_PASSPHRASE is.

    Returns
    -------
    The pipeline. Its attribute `hefw` is a `Session`; in a `with` statement the pipeline closes it.

    Raises
    ------
    HefwError : one line; for a scheduler that is not linear, or a key set that does not serve its updates, when the
        pipeline is called.
    """
    _check(pipe)
    if noise_prediction not in get_args(NoisePrediction):
        allowed = " or ".join(get_args(NoisePrediction))
        raise ConfigError(f"noise_prediction {noise_prediction!r} is not allowed; allowed: {allowed}")
    config = Config(
        backend=backend,
        strategy=strategy,
        params={} if params is None else params,
        allow_insecure=allow_insecure,
        keys=keys,
    )
    library, selection = resolve("backend", config.backend), resolve("strategy", config.strategy)
    evaluated = make(library.entry, library.options)
    updating = Updating(
        evaluated,
        library.options.model_dump(mode="json"),
        registry().load("strategy", selection.entry.name)(selection.options),
        noise_prediction,
        request(config.params, allow_insecure),
        progress,
        None if keys is None else _stored(keys, evaluated, passphrase),
    )
    base: Any = type(pipe)
    made = object.__new__(_wrapped_class(base))
    vars(made).update(vars(pipe))
    made.hefw = Session(updating)
    made.scheduler = _scheduler(pipe, scheduler)
    return made


class Session:
    """What a wrapped pipeline computes elsewhere. A context manager that closes itself."""

    def __init__(self, updating: Updating) -> None:
        self._updating = updating

    @property
    def ledger(self) -> Ledger:
        """What each party could see, since the present server process was started; empty before the first step."""
        client = self._updating.client
        return Ledger() if client is None else client.ledger

    @property
    def figures(self) -> Figures:
        """Times in seconds and sizes in bytes, since the present server process was started."""
        client = self._updating.client
        return Figures() if client is None else client.figures

    @property
    def largest_difference(self) -> float:
        """Between latents that were decrypted and the key holder's own plaintext arithmetic, over all steps."""
        return self._updating.largest_difference

    def make_keys(self, name: str, passphrase: str | None = None) -> KeySet:
        """Make keys for the updates of the last call and keep them as the key set `name`, for `hefw.wrap(keys=name)`.

        Calls of the same schedule and size can use them, and others whose updates get the same parameters. The secret
        key is kept under a passphrase if one is given.

        Raises
        ------
        HefwError : one line; no call was made, or there is such a set already.
        """
        from hefw.keys import store  # most pipelines make new keys

        updating, client = self._updating, self._updating.client
        if client is None:
            raise ConfigError("keys are made for the updates of a call; call the pipeline once, then make_keys")
        store.check_new(name)
        return store.create(
            name, updating.backend, client.interface, "a wrapped pipeline, update-only", passphrase, updating.progress
        )

    def close(self) -> None:
        """End the server process. Ledger and figures stay; the pipeline starts another one when it is called again."""
        self._updating.close()

    def encrypted(self, scheduler: Any) -> Any:
        """A copy of a scheduler with its updates computed on ciphertext. The session ends with it, at the latest."""
        made = encrypted(scheduler, self._updating)
        weakref.finalize(made, _end, self._updating)
        return made

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _stored(name: str, backend: Backend, passphrase: str | None) -> KeySource:
    """A stored key set; what no command line can make is made by a pipeline."""
    from hefw.keys import store

    renew = f"call the pipeline that was wrapped without keys, then its hefw.make_keys({store.free_name(name)!r})"
    return stored(name, backend, passphrase, renew)


def _end(updating: Updating) -> None:
    """Nobody is left to be told of an error."""
    with suppress(HefwError):
        updating.close()


class _Wrapped:
    """What a wrapped pipeline does besides what its own class does."""

    hefw: Session

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, self.hefw.encrypted(value) if name == "scheduler" else value)

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hefw.close()


@functools.cache
def _wrapped_class(base: Any) -> Any:
    """The subclass of a pipeline's class. It has its name, by which diffusers finds what can be made of it."""
    names = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    return type(base.__name__, (_Wrapped, base), names)


def _check(pipe: Any) -> None:
    kind = type(pipe).__name__
    if not isinstance(pipe, diffusers.DiffusionPipeline):
        raise ConfigError(f"a {kind} cannot be wrapped; give a diffusers pipeline, such as StableDiffusionPipeline")
    if isinstance(pipe, _Wrapped):
        raise ConfigError(f"this {kind} is wrapped already; wrap the pipeline that it was made from")
    for part, called in (("unet", "UNet"), ("scheduler", "scheduler")):
        if getattr(pipe, part, None) is None:
            raise ConfigError(
                f"{kind} has no {called} (its parts: {', '.join(sorted(pipe.components)) or 'none'}); give a pipeline "
                "with a UNet and a scheduler, such as StableDiffusionPipeline"
            )


def _scheduler(pipe: Any, wanted: Any) -> Any:
    if wanted is None:
        return pipe.scheduler
    if hasattr(wanted, "step") and not isinstance(wanted, type):
        return wanted
    try:
        chosen = resolve("scheduler", Choice.parse(wanted))
    except ValueError as error:
        raise ConfigError(f"scheduler: {error}, or a diffusers scheduler") from None
    kind = registry().load("scheduler", chosen.entry.name)
    return converted(pipe.scheduler, kind, chosen.options.model_dump())
