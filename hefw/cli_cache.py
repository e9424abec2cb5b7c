"""The commands `hefw cache ...`: what is kept so that it need not be made again. Never a key, a picture or a label."""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict
from typing import Annotated

import typer

MEGABYTE = 1e6
WHAT = {
    "graph": "graphs of models",
    "program": "programs: graphs with layouts, levels and scales",
    "weights": "encoded weights of programs, for runs with stored keys",
}

app = typer.Typer(help="List and clear what is kept so that it need not be made again.", rich_markup_mode=None)


@app.callback()
def cache() -> None:
    """List and clear what is kept so that it need not be made again."""


@app.command("list")
def list_cache(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the cache's entries, those used last first, and its size and limit."""
    from hefw.cache import FOLDER, default

    found = default()
    if found is None:
        typer.echo("[]" if as_json else f"the cache is switched off by {FOLDER}")
        return
    entries = found.entries()
    if as_json:
        typer.echo(json.dumps([asdict(entry) for entry in entries], indent=2))
        return
    for entry in entries:
        used = datetime.datetime.fromtimestamp(entry.used)
        typer.echo(f"{entry.kind:8} {entry.digest}  {entry.bytes / MEGABYTE:10,.1f} MB  used {used:%Y-%m-%d %H:%M}")
    size = sum(entry.bytes for entry in entries)
    typer.echo(f"{size / MEGABYTE:,.1f} MB of at most {found.limit / MEGABYTE:,.0f} MB in {found.folder}")
    for kind in sorted({entry.kind for entry in entries} & WHAT.keys()):
        typer.echo(f"{kind}: {WHAT[kind]}")


@app.command()
def clear() -> None:
    """Remove everything from the cache. It is made again when it is needed."""
    from hefw.cache import FOLDER, default

    found = default()
    if found is None:
        typer.echo(f"the cache is switched off by {FOLDER}", err=True)
        return
    typer.echo(f"removed {found.clear() / MEGABYTE:,.1f} MB from {found.folder}", err=True)
