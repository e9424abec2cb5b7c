"""The options that say what a run is, for every command that takes them: as text, then as a Config."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, get_type_hints

import typer

from hefw.core.errors import ConfigError

if TYPE_CHECKING:
    from hefw.config import Config

PLUGIN_KEYS = ("backend", "strategy", "model", "scheduler")
EXAMPLES = {"--param": "ring_dimension=16384", "--option": "backend.hosted=true"}


def run_options(command: Callable[..., None], without: Sequence[str] = ()) -> Callable[..., None]:
    """`command(settings, ...)` as a command with a run's options in the place of `settings`, but some.

    Its own arguments come first, its own options last.
    """
    own = list(inspect.signature(command).parameters.values())[1:]
    theirs = [p for p in inspect.signature(_settings).parameters.values() if p.name not in without]
    arguments = [p for p in own if p.default is p.empty]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        run_given = {p.name: given.pop(p.name) for p in theirs}
        command(_settings(**run_given), **given)

    parameters = [*arguments, *theirs, *(p for p in own if p not in arguments)]
    hints = get_type_hints(_settings, {**globals(), "Config": None}, include_extras=True) | get_type_hints(
        command, {**command.__globals__, "Config": None}, include_extras=True
    )
    keyword = inspect.Parameter.KEYWORD_ONLY
    signed = [p.replace(kind=keyword, annotation=hints[p.name]) for p in parameters]
    run.__signature__ = inspect.Signature(signed)  # type: ignore[attr-defined]  # which typer reads
    run.__annotations__ = {p.name: hints[p.name] for p in parameters}
    return run


def _settings(
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="A YAML or TOML file; options win over it.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Labels, one an image, for models that take them (default 0-9,0-5)."),
    ] = None,
    steps: Annotated[
        str | None, typer.Option(metavar="N", help="Steps of the scheduler (default: the model's own, else 10).")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(metavar="NAME", help="HE library (default tenseal); see `hefw plugins`.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(metavar="NAME", help="What of a latent is encrypted (default full).")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Diffusion model (default digits).")] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="NAME", help="Sampler; auto is the model's own (default auto).")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What the server computes: end-to-end (network and update), update-only (the scheduler's update; the "
            "network runs here), or auto: end-to-end where the model can (default auto).",
        ),
    ] = None,
    noise_prediction: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="How noise predictions are sent in protocol update-only: encrypted, or plaintext, which lets the "
            "server rebuild the picture (default encrypted).",
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="What to draw, for models that take prompts; once for each image."),
    ] = None,
    negative_prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What no picture should show, for models that take prompts.")
    ] = None,
    guidance_scale: Annotated[
        str | None, typer.Option(metavar="X", help="Weight of the prompt, 0 to 1000 (default: the model's own).")
    ] = None,
    init_image: Annotated[
        str | None, typer.Option(metavar="FILE", help="Picture to start from instead of noise alone.")
    ] = None,
    strength: Annotated[
        str | None,
        typer.Option(
            metavar="X",
            help="How much of that picture is changed, 0 to 1 (default: 0.8; 1 with a mask, or the model's own).",
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Picture that is white where that picture is drawn anew; the rest stays."),
    ] = None,
    twin: Annotated[
        bool | None,
        typer.Option("--twin/--no-twin", help="Draw the same in plaintext, too, and compare (default yes)."),
    ] = None,
    refresh: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What gives levels back: client (a round trip), bootstrap (on the server), or none: all steps from "
            "one message (default client).",
        ),
    ] = None,
    every: Annotated[
        str | None, typer.Option(metavar="N", help="Steps between two refreshes, a divisor of the steps (default 1).")
    ] = None,
    batch: Annotated[
        str | None, typer.Option(metavar="N", help="Most images in one request; auto is what fits (default auto).")
    ] = None,
    server_threads: Annotated[
        str | None,
        typer.Option(metavar="N", help="Threads of the server; auto: as many as processors (default auto)."),
    ] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="Fixes the noise and nothing else (default 0).")] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder for pictures and report (default hefw-run).")
    ] = None,
    allow_insecure: Annotated[
        bool | None,
        typer.Option("--allow-insecure/--no-allow-insecure", help="Allow less than 128-bit security (default no)."),
    ] = None,
    precision_db: Annotated[
        str | None, typer.Option(metavar="DB", help="PSNR wanted against the plaintext twin (default 60).")
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A CKKS parameter, e.g. ring_dimension=16384.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[KIND.]KEY=VALUE", help="An option of a plugin: of the model, or e.g. backend.KEY=VALUE."
        ),
    ] = None,
    keys: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A stored key set of `hefw keys` (default: new keys for this run)."),
    ] = None,
) -> Config:
    from hefw.config import merge

    overrides: dict[str, Any] = {
        "labels": labels,
        "steps": _number(steps),
        "protocol": protocol,
        "noise_prediction": noise_prediction,
        "prompt": prompt or None,
        "negative_prompt": negative_prompt,
        "guidance_scale": _real(guidance_scale),
        "init_image": init_image,
        "strength": _real(strength),
        "mask": mask,
        "twin": twin,
        "refresh": refresh
        if every is None
        else ({} if refresh is None else {"name": refresh}) | {"every": _number(every)},
        "batch": _number(batch),
        "server_threads": _number(server_threads),
        "seed": _number(seed),
        "out": out,
        "keys": keys,
        "allow_insecure": allow_insecure,
        "params": pairs("--param", param) | ({} if precision_db is None else {"precision_db": _number(precision_db)}),
    }
    names = {"backend": backend, "strategy": strategy, "model": model, "scheduler": scheduler}
    options = _plugin_options(option)
    for kind, name in names.items():
        overrides[kind] = ({} if name is None else {"name": name}) | options[kind] if options[kind] else name
    settings = merge(config, overrides)
    settings.resolve()
    return settings


def _number(text: str | None) -> int | float | str | None:
    """Text as a number where it is one; what is not is left for Config to refuse by its key's own words."""
    if text is not None:
        with contextlib.suppress(ValueError):
            return int(text)
        with contextlib.suppress(ValueError):
            return value if math.isfinite(value := float(text)) else text
    return text


def _real(text: str | None) -> float | str | None:
    """The same for a key that takes any real number."""
    number = _number(text)
    return float(number) if isinstance(number, int) else number


def whole(name: str, text: str, least: int, most: int | None = None) -> int:
    """An option's text as an integer within bounds, for commands that have no Config; ConfigError otherwise."""
    with contextlib.suppress(ValueError):
        if least <= (value := int(text)) <= (value if most is None else most):
            return value
    allowed = f"an integer from {least}" + ("" if most is None else f" to {'2^63 - 1' if most == 2**63 - 1 else most}")
    raise ConfigError(f"{name} {_number(text)!r} is not allowed; allowed: {allowed}")


def pairs(name: str, texts: Sequence[str] | None) -> dict[str, Any]:
    """KEY=VALUE texts as a mapping; a value is JSON where it can be read so, else text."""
    pairs: dict[str, Any] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not key or not equals:
            example = EXAMPLES[name]
            raise ConfigError(f"{name} {text!r} is not allowed; allowed: KEY=VALUE; for example {name} {example}")
        try:
            pairs[key] = json.loads(value, parse_constant=_no_number)
        except ValueError:
            pairs[key] = value
    return pairs


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are not JSON


def _plugin_options(texts: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """`--option` texts by kind of plugin; without a kind they are the model's."""
    options: dict[str, dict[str, Any]] = {kind: {} for kind in PLUGIN_KEYS}
    for key, value in pairs("--option", texts).items():
        kind, dot, name = key.partition(".")
        if dot and kind not in options:
            raise ConfigError(f"--option {key!r}: {kind!r} has no options; allowed: {', '.join(options)}")
        if not dot and kind in options:
            raise ConfigError(f"--option {key!r} names no option; write --option {kind}.KEY=VALUE, or --{kind} NAME")
        kind, name = (kind, name) if dot else ("model", key)
        if name == "name":
            raise ConfigError(f"--option {key!r} is not an option of a plugin; choose the {kind} by --{kind} NAME")
        options[kind][name] = value
    return options
