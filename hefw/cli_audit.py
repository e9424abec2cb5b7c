"""The command `hefw audit`: what a server makes of what a strategy shows it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from hefw.core.errors import ConfigError, PluginError

DEFAULT_OUT = "hefw-audit"


def audit(
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="A YAML or TOML file, as for `hefw generate`.")
    ] = None,
    images: Annotated[str, typer.Option(metavar="N", help="Pictures to attack; below 200 intervals are wide.")] = "200",
    seed: Annotated[
        str | None, typer.Option(metavar="N", help="Of pictures and attacks (default: the configuration's).")
    ] = None,
    attacks: Annotated[
        str | None, typer.Option(metavar="LIST", help="Names, separated by commas (default all); see `hefw plugins`.")
    ] = None,
    thresholds: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Points of the curves, 0 to 1 (default 0,0.001,0.01,0.05,0.2,1), or none."),
    ] = None,
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for the page and the record.")] = DEFAULT_OUT,
    as_json: Annotated[bool, typer.Option("--json", help="Print audit.json on stdout.")] = False,
) -> None:
    """Measure what a server makes of what a strategy leaves in plaintext."""
    from hefw.cli_options import whole
    from hefw.config import MAX_SEED, merge

    settings = merge(config, {})
    settings.resolve()
    count = whole("--images", images, 2)
    start = settings.seed if seed is None else whole("--seed", seed, 0, MAX_SEED)
    names = None if attacks is None else [part.strip() for part in attacks.split(",")]
    folder = Path(out).expanduser()
    try:
        from hefw.audit import run
        from hefw.audit.write import write_audit
    except ImportError as error:
        raise PluginError(
            f"audits need {error.name}, which is not installed; run: pip install 'hefw[audit]'"
        ) from error
    from hefw.report.files import check_writable
    from hefw.report.terminal import show_progress

    points = run.DEFAULT_THRESHOLDS if thresholds is None else _shares(thresholds)
    check_writable(folder)
    # a library that prints must not end up in the JSON
    with contextlib.redirect_stdout(sys.stderr), show_progress(sys.stderr) as progress:
        done = run.audit(settings, images=count, seed=start, attacks=names, thresholds=points, progress=progress)
        paths = write_audit(done, folder)
    for path in paths:
        typer.echo(f"wrote {path}", err=True)
    if as_json:
        typer.echo(done.record.to_json(), nl=False)
        return
    from hefw.audit.page import summary

    for sentence in summary(done.record):
        typer.echo(sentence)


def _shares(text: str) -> tuple[float, ...]:
    """Thresholds from text; none for the word `none`."""
    if text.strip() == "none":
        return ()
    found = []
    for part in text.split(","):
        try:
            found.append(float(part))
        except ValueError:
            raise ConfigError(
                f"--thresholds {part.strip()!r} is not a number; allowed: numbers from 0 to 1, separated by commas, or "
                "none; for example --thresholds 0,0.01,0.1,1"
            ) from None
    return tuple(found)
