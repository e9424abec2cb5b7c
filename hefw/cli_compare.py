"""The command `hefw compare`: a matrix of configurations, measured side by side on this machine."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hefw.core.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from hefw.bench.comparison import Plan

DEFAULT_OUT = "hefw-compare"


def compare(
    matrix: Annotated[
        str | None, typer.Argument(metavar="MATRIX", help="A YAML or TOML file: axes, repeats, seeds, limits.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A matrix of hefw's own: paper, backends, strategies, models or quick."),
    ] = None,
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Folder for runs, tables and page; goes on where it was left.")
    ] = DEFAULT_OUT,
    repeats: Annotated[
        str | None, typer.Option(metavar="N", help="Runs of each cell and seed (default: the matrix's).")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a matrix with combinations that cannot be, instead of leaving out.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Measure again what failed or passed a limit.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells, and measure nothing.")] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Write tables and page of what is measured already.")
    ] = False,
    most_cells: Annotated[str | None, typer.Option(metavar="N", help="Allow so many cells (default 200).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json on stdout.")] = False,
) -> None:
    """Measure every combination of a matrix, each in a process of its own, and write tables and a page."""
    from hefw.bench import matrix as matrices
    from hefw.cli_options import whole

    if (matrix is None) == (preset is None):
        known = ", ".join(matrices.presets())
        raise ConfigError(
            f"give a matrix or a preset{'' if matrix is None else ', not both'}; for example hefw compare matrix.yaml, "
            f"or --preset with one of {known}"
        )
    path = Path(matrix) if matrix is not None else matrices.preset(preset or "")
    most = matrices.MOST_CELLS if most_cells is None else whole("--most-cells", most_cells, 1)
    wanted = matrices.load(path, most)
    if repeats is not None:
        wanted = wanted.repeated(whole("--repeats", repeats, 1, matrices.MOST_REPEATS))
    folder = Path(out).expanduser()
    try:
        import pyarrow  # noqa: F401 (the last thing that a comparison needs, missed before hours of measuring)

        from hefw.bench import comparison
        from hefw.bench.store import MANIFEST, opened
        from hefw.bench.write import write_comparison
    except ImportError as error:
        raise PluginError(
            f"comparisons need {error.name}, which is not installed; run: pip install 'hefw[compare]'"
        ) from error
    from hefw.bench.watching import watch
    from hefw.report.files import check_writable

    check_writable(folder)
    if report_only and not (folder / MANIFEST).is_file():
        raise ConfigError(f"--report-only: nothing is measured in {str(folder)!r}; leave it out to measure")
    if sys.stderr.isatty():  # it loads every model
        typer.echo("checking the combinations", err=True)
    planned = comparison.plan(wanted)
    _tell(planned)
    if strict and planned.impossible:
        cell, reason = planned.impossible[0]
        raise ConfigError(
            f"{len(planned.impossible)} combinations cannot be, and --strict refuses them; the first, "
            f"{planned.name(cell)}: {reason}"
        )
    if dry_run:
        for number, cell in enumerate(planned.cells, 1):
            typer.echo(f"{number} {planned.name(cell)}")
        return
    words = ["hefw", "compare", *([str(path)] if preset is None else ["--preset", preset])]
    words += [] if repeats is None else ["--repeats", repeats]
    words += [] if out == DEFAULT_OUT else ["--out", out]
    with opened(folder) as store:
        if retry:
            typer.echo(f"measuring again what failed: {comparison.forget_failed(planned, store)}", err=True)
        if not report_only:
            try:
                with watch(sys.stderr) as watcher:
                    comparison.measure(planned, store, watcher)
            except (KeyboardInterrupt, SystemExit):
                typer.echo(
                    f"what was measured is kept in {str(folder)!r}; the same command goes on from there", err=True
                )
                raise
        record, paths = write_comparison(planned, store, shlex.join(words))
    for item in paths:
        typer.echo(f"wrote {item}", err=True)
    if as_json:
        typer.echo(record.to_json(), nl=False)
        return
    from hefw.bench.words import banner, summary

    for sentence in [text for text in (banner(record),) if text] + summary(record):
        typer.echo(sentence)


def _tell(planned: Plan) -> None:
    """What is to be measured, and what cannot be, with why: alike reasons together."""
    settings = planned.matrix.settings
    runs = len(planned.jobs)
    typer.echo(
        f"{len(planned.cells)} cells, {runs} runs: {settings.repeats} of each cell"
        + (f" and seed, {len(settings.seeds)} seeds" if len(settings.seeds) > 1 else ""),
        err=True,
    )
    by_reason: dict[str, list[str]] = {}
    for cell, reason in planned.impossible:
        by_reason.setdefault(reason, []).append(planned.name(cell))
    for reason, names in by_reason.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        typer.echo(f"left out: {'; '.join(names[:3])}{more}: {reason}", err=True)
