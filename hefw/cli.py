"""The command `hefw`: thin over the Python API of the same words.

Exit codes: 0; 2 and one line `error: ...` for bad input; 1 and one line for a failed run; 130 for Ctrl-C. A traceback
is printed only if HEFW_DEBUG is set. Commands import what they need when they run, so that `hefw --help` is quick.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from hefw import (
    __version__,
    cli_audit,
    cli_backends,
    cli_cache,
    cli_compare,
    cli_keys,
    cli_models,
    cli_profile,
    cli_quality,
)
from hefw.cli_options import run_options
from hefw.core.errors import (
    CapabilityError,
    ConfigError,
    GraphError,
    HefwError,
    KeyStoreError,
    LoweringError,
    ParameterError,
    PluginError,
    SchedulerError,
)

if TYPE_CHECKING:
    from hefw.config import Config

OK, FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
BAD_INPUT_ERRORS = (
    CapabilityError,
    ConfigError,
    GraphError,
    KeyStoreError,
    LoweringError,
    ParameterError,
    PluginError,
    SchedulerError,
)

app = typer.Typer(
    name="hefw",
    help="Diffusion models on a server that never sees the picture.",
    rich_markup_mode=None,  # rich would be imported for --help
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_backends.app, name="backends")
app.add_typer(cli_cache.app, name="cache")
app.add_typer(cli_keys.app, name="keys")
app.command("audit")(cli_audit.audit)
app.command("compare")(cli_compare.compare)
app.command("compile")(cli_models.compile_model)
app.command("inspect")(cli_models.inspect_model)
app.command("profile")(cli_profile.command)
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
@run_options
def generate(
    settings: Config, as_json: Annotated[bool, typer.Option("--json", help="Print run.json on stdout.")] = False
) -> None:
    """Draw images with the help of a server that sees ciphertext, and write them with a report into a folder."""
    from hefw.report import needs
    from hefw.report.files import check_writable
    from hefw.report.terminal import show_progress

    needs.check()
    check_writable(settings.folder)
    import hefw.run

    passphrase = cli_keys.ask_passphrase(settings)

    # A library that prints must not end up in the JSON.
    with contextlib.redirect_stdout(sys.stderr), show_progress(sys.stderr) as progress:
        result = hefw.run.generate(settings, progress=needs.meanwhile(progress), passphrase=passphrase)
        paths = needs.writer()(result, settings.folder)
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
