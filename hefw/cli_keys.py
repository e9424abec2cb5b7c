"""The commands `hefw keys ...`: keys that are made once and kept. None of them prints a secret."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hefw.cli_options import run_options
from hefw.core.errors import ConfigError, KeyStoreError

if TYPE_CHECKING:
    from hefw.config import Config
    from hefw.keys.store import KeySet

MEGABYTE = 1e6

app = typer.Typer(help="Make, list, show and remove key sets, which runs can use again.", rich_markup_mode=None)


@app.callback()
def keys() -> None:
    """Make, list, show and remove key sets, which runs can use again."""


def new(
    settings: Config,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the new key set.")],
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Encrypt the secret key; asks, or takes HEFW_PASSPHRASE.")
    ] = False,
    passphrase_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Encrypt the secret key under the first line of a file.")
    ] = None,
) -> None:
    """Make keys for what a configuration wants, and keep them. All options are those of `hefw generate`."""
    from hefw.keymaking import make_keys
    from hefw.keys import store
    from hefw.report.terminal import show_progress

    store.check_new(name)
    word = _new_passphrase(passphrase, passphrase_file)
    # A library that prints must not end up on stdout.
    with contextlib.redirect_stdout(sys.stderr), show_progress(sys.stderr) as progress:
        made = make_keys(name, settings, passphrase=word, progress=progress)
    typer.echo(f"made key set {name}: {_summary(made)}", err=True)
    if not made.record.sealed:
        typer.echo(f"the secret key has no passphrase: whoever can read {made.folder} has it", err=True)


app.command("new")(run_options(new, without=("keys", "out", "twin")))


@app.command("list")
def list_keys(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the key sets: backend, parameters, sizes, and how many decrypted entries were shown under each."""
    from hefw.keys import store

    found: list[tuple[str, KeySet | str]] = []
    for name in store.names():
        try:
            found.append((name, store.find(name)))
        except KeyStoreError as error:
            found.append((name, str(error)))
    if as_json:
        rows = [_public(item) if not isinstance(item, str) else {"name": name, "error": item} for name, item in found]
        typer.echo(json.dumps(rows, indent=2))
        return
    if not found:
        typer.echo("no key sets; make one: hefw keys new NAME")
    for name, item in found:
        typer.echo(f"{name}: {item if isinstance(item, str) else _summary(item)}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A key set of `hefw keys list`.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a key set is, without any secret."""
    from hefw.keys import store

    found = store.find(name)
    if as_json:
        typer.echo(json.dumps(_public(found), indent=2))
        return
    record, params = found.record, found.record.resolved.params
    typer.echo(f"{name}: {_summary(found)}")
    typer.echo(f"made {record.created:%Y-%m-%d %H:%M} UTC for {record.made_for}, with {record.library}")
    typer.echo(f"key id {record.key_id}, parameters {record.resolved.digest.hex()}")
    typer.echo(f"primes of {list(params.modulus_bits)} bits, special primes of {list(params.special_bits)} bits")
    others = [kind for kind in ("relinearisation", "conjugation", "bootstrap") if getattr(record, kind)]
    steps = ", ".join(map(str, sorted(record.rotations)))
    typer.echo(f"evaluation keys: {', '.join([*others, *([f'rotations {steps}'] if steps else [])]) or 'none'}")
    typer.echo(f"files in {found.folder}")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A key set of `hefw keys list`.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a key set. What was encrypted under it can then be read by nobody."""
    from hefw.keys import store
    from hefw.keys.folders import folder

    if folder(name).exists() and not yes:  # otherwise `remove` says that it is not there
        if not sys.stdin.isatty():
            raise ConfigError(f"removing key set {name!r} needs a yes; run: hefw keys remove {name} --yes")
        if not typer.confirm(f"Remove key set {name}? What was encrypted under it can then be read by nobody."):
            raise typer.Abort
    store.remove(name)
    typer.echo(f"removed key set {name}", err=True)


def ask_passphrase(settings: Config) -> str | None:
    """The passphrase of the key set that a run is to use; None where it has none, or HEFW_PASSPHRASE has it."""
    from hefw.running import PASSPHRASE

    if settings.keys is None or PASSPHRASE in os.environ or not sys.stdin.isatty():
        return None
    from hefw.keys import store

    if not store.find(settings.keys).record.sealed:
        return None
    word: str = typer.prompt(f"Passphrase of key set {settings.keys}", hide_input=True, err=True)
    return word


def _new_passphrase(wanted: bool, file: str | None) -> str | None:
    from hefw.running import PASSPHRASE

    if file is not None:
        try:
            text = Path(file).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ConfigError(f"--passphrase-file {file!r} cannot be read: {reason}; give a file of one line") from None
        return text.partition("\n")[0].rstrip("\r")
    if not wanted:
        return None
    if PASSPHRASE in os.environ:
        return os.environ[PASSPHRASE]
    if not sys.stdin.isatty():
        raise ConfigError("--passphrase asks on a terminal; elsewhere set HEFW_PASSPHRASE or give --passphrase-file")
    word: str = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)
    return word


def _summary(found: KeySet) -> str:
    from hefw.protocol.client import SHOWN_LIMIT
    from hefw.record import INSECURE, SIMULATED

    record, params = found.record, found.record.resolved.params
    shown = (
        "count of shown entries lost: of no use" if found.shown is None else f"{found.shown:,} of {SHOWN_LIMIT:,} shown"
    )
    parts = [
        f"{record.backend}, N = {params.ring_dimension}, log2(QP) = {params.log_qp}",
        f"{len(record.rotations)} rotations",
        f"{found.bytes / MEGABYTE:,.0f} MB",
        "with a passphrase" if record.sealed else "no passphrase",
        shown,
        *([SIMULATED] if record.simulated else []),
        *([INSECURE] if params.insecure and not record.simulated else []),
    ]
    return ", ".join(parts)


def _public(found: KeySet) -> dict[str, Any]:
    return {
        "name": found.name,
        **found.record.model_dump(mode="json"),
        "params_digest": found.record.resolved.digest.hex(),
        "shown": found.shown,
        "bytes": found.bytes,
        "folder": str(found.folder),
    }
