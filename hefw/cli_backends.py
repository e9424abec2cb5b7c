"""The commands `hefw backends ...`: which HE libraries are there, installing one, trying one."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from hefw.core.errors import HefwError

if TYPE_CHECKING:
    from hefw.install.availability import Availability

app = typer.Typer(help="List, install and try HE libraries.", rich_markup_mode=None)


@app.callback()
def backends() -> None:
    """List, install and try HE libraries."""


@app.command("list")
def list_backends(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List backends: where each is available, what it can do, or why it cannot be used and what to do."""
    from hefw import plugins
    from hefw.install.availability import availability, describe

    registry = plugins.registry()
    rows = [availability(registry.entry("backend", name)) for name in registry.names("backend")]
    if as_json:
        typer.echo(json.dumps([row.to_json() for row in rows], indent=2))
        return
    for row in rows:
        typer.echo(f"{row.name}: {_where(row)}")
        can = "; ".join(describe(row.capabilities)) if row.capabilities else "what it can do is known once installed"
        typer.echo(f"    {can}")


@app.command()
def install(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A backend; see `hefw backends list`.")],
    python: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Interpreter of a managed environment; found if it is not given."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Install again what is there.")] = False,
) -> None:
    """Install a backend's library, here or in a managed environment with an interpreter that it works on."""
    from hefw import plugins
    from hefw.install import install
    from hefw.report.stages import show_stages

    entry = plugins.registry().entry("backend", name)
    with show_stages(sys.stderr) as report:
        done = install(entry, python=python, force=force, report=report)
    where = f"in the environment of {sys.executable}"
    if done.environment:
        where = f"in a managed environment of Python {done.environment.python_version}: {done.environment.folder}"
    typer.echo(f"{name}: installed {where}" if done.fresh else f"{name}: is there already, {where}")


@app.command()
def doctor(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A backend; see `hefw backends list`.")],
    bootstrap: Annotated[bool, typer.Option("--bootstrap", help="Bootstrap, too; takes minutes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Try every operation of a backend at 128-bit parameters, and check the results."""
    from hefw.doctor import Check, diagnose
    from hefw.record import SIMULATED

    stdout = sys.stdout

    def show(check: Check) -> None:
        if not as_json:
            taken = "" if check.seconds is None else f"{1000 * check.seconds:,.1f} ms"
            typer.echo(f"{check.outcome:<11} {check.name:<28} {taken:>12}  {check.detail}".rstrip(), file=stdout)

    with contextlib.redirect_stdout(sys.stderr):  # a library that prints must not end up in the JSON
        diagnosis = diagnose(name, bootstrap=bootstrap, show=show)
    if diagnosis.simulated:
        typer.echo(SIMULATED, err=as_json)
    if as_json:
        typer.echo(json.dumps(diagnosis.to_json(), indent=2))
    if diagnosis.failed:
        raise HefwError(
            f"backend {name!r}: {len(diagnosis.failed)} of {len(diagnosis.checks)} checks failed: "
            + ", ".join(check.name for check in diagnosis.failed)
        )


def _where(row: Availability) -> str:
    library = f"{row.library} {row.version}" if row.version else row.library
    if row.where == "process":
        return f"{library}, in this process (Python {row.python_version})"
    if row.where == "environment":
        return f"{library}, in a managed environment (Python {row.python_version}, {row.python})"
    return f"not available: {row.reason}" + (f"; run: {row.advice}" if row.advice else "")
