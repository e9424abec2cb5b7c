"""The command `hefw`: thin over the Python API of the same words.

Exit codes: 0; 2 and one line `error: ...` for bad input; 1 and one line for a failed run; 130 for Ctrl-C. A traceback
is printed only if HEFW_DEBUG is set. Commands import what they need when they run, so that `hefw --help` is quick.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from hefw import __version__, cli_audit, cli_backends, cli_models, cli_quality
from hefw.core.errors import (
    CapabilityError,
    ConfigError,
    GraphError,
    HefwError,
    LoweringError,
    ParameterError,
    PluginError,
    SchedulerError,
)

OK, FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
BAD_INPUT_ERRORS = (
    CapabilityError,
    ConfigError,
    GraphError,
    LoweringError,
    ParameterError,
    PluginError,
    SchedulerError,
)
PLUGIN_KEYS = ("backend", "strategy", "model", "scheduler")
EXAMPLES = {"--param": "ring_dimension=16384", "--option": "backend.hosted=true"}

app = typer.Typer(
    name="hefw",
    help="Diffusion models on a server that never sees the picture.",
    rich_markup_mode=None,  # rich would be imported for --help
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_backends.app, name="backends")
app.command("audit")(cli_audit.audit)
app.command("compile")(cli_models.compile_model)
app.command("inspect")(cli_models.inspect_model)
app.command("quality")(cli_quality.quality)
app.command("train")(cli_models.train)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hefw {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def hefw(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def generate(
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
    as_json: Annotated[bool, typer.Option("--json", help="Print run.json on stdout.")] = False,
) -> None:
    """Draw images with the help of a server that sees ciphertext, and write them with a report into a folder."""
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
        "seed": _number(seed),
        "out": out,
        "allow_insecure": allow_insecure,
        "params": pairs("--param", param) | ({} if precision_db is None else {"precision_db": _number(precision_db)}),
    }
    names = {"backend": backend, "strategy": strategy, "model": model, "scheduler": scheduler}
    options = _plugin_options(option)
    for kind, name in names.items():
        overrides[kind] = ({} if name is None else {"name": name}) | options[kind] if options[kind] else name
    settings = merge(config, overrides)
    settings.resolve()

    try:
        from hefw.report.write import write_run
    except ImportError as error:
        raise ConfigError(
            f"reports need {error.name}, which is not installed; run: pip install 'hefw[report]'"
        ) from error
    from hefw.report.files import check_writable
    from hefw.report.terminal import show_progress

    check_writable(settings.folder)
    import hefw.run

    # A library that prints must not end up in the JSON.
    with contextlib.redirect_stdout(sys.stderr), show_progress(sys.stderr) as progress:
        result = hefw.run.generate(settings, progress=progress)
        paths = write_run(result, settings.folder)
    if result.record.banner:
        typer.echo(result.record.banner, err=True)
    for path in paths:
        typer.echo(f"wrote {path}", err=True)
    if as_json:
        typer.echo(result.record.to_json(), nl=False)


@app.command("plugins")
def list_plugins(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List backends, strategies, models, schedulers and attacks, and why some are unavailable."""
    import dataclasses

    from hefw import plugins

    rows = plugins.registry().listing()
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
        return
    header = ("kind", "name", "version", "what it is")
    cells = [(row.kind, row.name, row.version, _describe(row.summary, row.unavailable)) for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*header)
        for row, cell in zip(rows, cells, strict=True):
            table.add_row(*map(Text, cell), style="dim" if row.unavailable else None)
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)][:-1]
    for line in (header, *cells):
        typer.echo("  ".join([*(text.ljust(width) for text, width in zip(line, widths, strict=False)), line[-1]]))


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


def _describe(summary: str, unavailable: str | None) -> str:
    text = f"{summary} (unavailable: {unavailable})" if summary and unavailable else summary or f"failed: {unavailable}"
    return " ".join(text.split())


def run(arguments: Sequence[str]) -> int:
    """Run the command line with these arguments; returns the exit code. No exception gets out but SystemExit."""
    try:
        code = typer.main.get_command(app).main(list(arguments), prog_name="hefw", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BAD_INPUT_ERRORS as error:
        return _fail(BAD_INPUT, str(error))
    except HefwError as error:
        return _fail(FAILED, str(error))
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of typer's; its class has moved between releases
            command = getattr(getattr(error, "ctx", None), "command_path", "hefw")
            return _fail(BAD_INPUT, f"{error.format_message().rstrip('.')} (see `{command} --help`)")
        hint = "" if os.environ.get("HEFW_DEBUG") else " (set HEFW_DEBUG=1 for a traceback)"
        return _fail(FAILED, f"{type(error).__name__}: {str(error) or 'no further message'}{hint}")
    if code == INTERRUPTED:
        typer.echo("interrupted", err=True)
    return code if isinstance(code, int) else OK


def _fail(code: int, message: str) -> int:
    if os.environ.get("HEFW_DEBUG"):
        import traceback

        traceback.print_exc()
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    return code


def _terminate(*_: object) -> NoReturn:
    raise SystemExit(TERMINATED)


def main() -> None:
    """The console script `hefw`."""
    signal.signal(signal.SIGTERM, _terminate)  # so that a run ends its server and removes its files
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # a terminal that closes; not so under nohup
        signal.signal(signal.SIGHUP, _terminate)
    sys.exit(run(sys.argv[1:]))
