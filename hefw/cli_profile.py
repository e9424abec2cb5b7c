"""The command `hefw profile`."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hefw.cli_options import run_options, whole

if TYPE_CHECKING:
    from hefw.config import Config

#: Of the run's configuration, where nothing else is given.
FOLDER = "hefw-profile"
TRACE, RECORD = "trace.json", "profile.json"


def profile(
    settings: Config,
    messages: Annotated[
        str | None, typer.Option(metavar="N", help="Messages to profile, from the first (default 1).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print profile.json on stdout, and no table.")] = False,
) -> None:
    """Show where a run's time goes, region by region and operation by operation, and what noise each leaves.

    Both parties are in one process, so that the key holder can decrypt what the server holds: a diagnosis. Writes
    trace.json, which Perfetto and Chrome open, and profile.json.
    """
    count = 1 if messages is None else whole("--messages", messages, 1)
    from pathlib import Path

    from hefw.config import Config
    from hefw.profiling.run import profile as run
    from hefw.profiling.trace import to_trace
    from hefw.report.files import check_writable, put
    from hefw.report.terminal import show_progress

    folder = Path(FOLDER) if settings.out == Config().out else settings.folder
    check_writable(folder)
    # A library that prints must not end up in the JSON.
    with contextlib.redirect_stdout(sys.stderr), show_progress(sys.stderr) as progress:
        found = run(settings, messages=count, progress=progress)
    record = asdict(found)
    del record["events"], record["spans"]  # trace.json has them
    text = json.dumps(record, indent=2) + "\n"
    for path in put(folder, {TRACE: to_trace(found).encode(), RECORD: text.encode()}, (TRACE, RECORD)):
        typer.echo(f"wrote {path}", err=True)
    if as_json:
        typer.echo(text, nl=False)
        return
    from rich.console import Console

    from hefw.profiling.table import WIDTH, show

    show(found, Console(width=None if sys.stdout.isatty() else WIDTH))


command = run_options(profile, without=("keys", "twin"))
