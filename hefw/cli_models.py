"""The commands `hefw compile`, `hefw inspect` and `hefw train`: a compiled file, what is in it, and new weights."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from hefw.core.errors import ConfigError, HefwError, PluginError

DEFAULT_OUT = "model.hefw"
MEGABYTE = 1e6


def compile_model(
    source: Annotated[
        str,
        typer.Argument(metavar="PATH|ID", help="Folder of a saved diffusers UNet or pipeline, or a name on the hub."),
    ],
    out: Annotated[str, typer.Option(metavar="FILE", help="Where the compiled model goes.")] = DEFAULT_OUT,
    steps: Annotated[str, typer.Option(metavar="N", help="Steps of the scheduler.")] = "10",
    scheduler: Annotated[
        str, typer.Option(metavar="NAME", help="Sampler; auto is the one saved beside the network, or DDIM.")
    ] = "auto",
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An option of the scheduler, e.g. clip_sample=false.")
    ] = None,
) -> None:
    """Compile a saved UNet into one file that a server evaluates on ciphertext."""
    from hefw.cli_options import pairs, whole
    from hefw.config import MAX_STEPS, Choice, resolve

    count = whole("--steps", steps, 1, MAX_STEPS)
    chosen = resolve("scheduler", Choice(name=scheduler, options=pairs("--option", option)))
    path = Path(out).expanduser()
    if path.is_dir():
        raise ConfigError(f"--out {out!r} is a folder; give a file, for example {DEFAULT_OUT}")
    try:
        from hefw.models.compiler.compile import compile as compile_
        from hefw.models.compiler.load import load_saved
        from hefw.models.schedules import converted
        from hefw.plugins import registry
    except ImportError as error:
        raise PluginError(
            f"compiling needs {error.name}, which is not installed; run: pip install 'hefw[models]'"
        ) from error
    from hefw.report.files import check_writable

    check_writable(path.parent)
    started = time.monotonic()
    with contextlib.redirect_stdout(sys.stderr):
        saved = load_saved(source)
        kind = registry().load("scheduler", scheduler)
        made = converted(saved.scheduler, kind, chosen.options.model_dump())
        graph = compile_(
            saved.module,
            saved.sample_shape,
            scheduler=made,
            steps=count,
            classes=saved.classes,
            metadata={"source": Path(source).name, "scheduler": type(made).__name__},
        )
    graph.save(path)
    weights = sum(p.numel() * p.element_size() for p in saved.module.parameters())
    size = path.stat().st_size
    typer.echo(
        f"compiled {type(saved.module).__name__} in {time.monotonic() - started:.1f} s: {len(graph.nodes)} nodes, "
        f"{graph.steps} steps, {size / MEGABYTE:.1f} MB ({size / weights:.1f} times the network's weights)",
        err=True,
    )
    typer.echo(f"wrote {path}", err=True)


def inspect_model(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A compiled model.")],
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="HE library to plan for; none only lists the regions.")
    ] = "simulator",
    precision_db: Annotated[str, typer.Option(metavar="DB", help="PSNR wanted against plaintext.")] = "60",
    svg: Annotated[str | None, typer.Option(metavar="FILE", help="Draw the graph.")] = None,
    png: Annotated[str | None, typer.Option(metavar="FILE", help="Draw the graph as pixels.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show what a compiled model computes and what it costs on a backend."""
    from hefw import inspecting
    from hefw.core.files import write_atomically
    from hefw.core.graph import Graph

    request = _request(precision_db)
    graph = Graph.load(Path(file).expanduser())
    for form, where in (("svg", svg), ("png", png)):
        if where is not None:
            write_atomically(Path(where).expanduser(), _drawn(graph, form))
            typer.echo(f"wrote {where}", err=True)
    program, why = None, ""
    if backend != "none":
        from hefw.core.lower import lower

        made = _backend(backend)
        try:
            program = lower(graph, made, request)
        except HefwError as error:
            why = f"no program on {backend}: {error}"
    if as_json:
        typer.echo(json.dumps(inspecting.record(graph, program) | ({"refused": why} if why else {}), indent=2))
        return
    for line in _regions(inspecting.regions(graph)):
        typer.echo(line)
    typer.echo("")
    typer.echo(f"{graph.steps} steps, {Path(file).stat().st_size / MEGABYTE:.1f} MB, digest {graph.digest}")
    for line in [why] if why else [] if program is None else _costs(inspecting.costs(program)):
        typer.echo(line)


def _request(precision_db: str) -> Any:
    from hefw.core.lower import Request

    try:
        return Request(precision_db=float(precision_db))
    except ValueError:
        raise ConfigError(f"--precision-db {precision_db!r} is not allowed; allowed: a number, in dB") from None


def _backend(name: str) -> Any:
    from hefw.backends.choose import make
    from hefw.config import Choice, resolve

    chosen = resolve("backend", Choice(name=name))
    return make(chosen.entry, chosen.options)


def _drawn(graph: Any, form: str) -> bytes:
    try:
        from hefw.report.drawing import draw
    except ImportError as error:
        raise PluginError(
            f"drawings need {error.name}, which is not installed; run: pip install 'hefw[report]'"
        ) from error
    return draw(graph, form)


def _regions(found: Any) -> list[str]:
    rows = [("node", "kind", "shape", "weights", "reads")]
    rows += [
        (r.name, r.kind, "x".join(map(str, r.shape)), f"{r.weights:,}" if r.weights else "", ", ".join(r.reads))
        for r in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        "  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[4]]).rstrip()
        for row in rows
    ]


def _costs(found: dict[str, Any]) -> list[str]:
    operations = ", ".join(f"{count:,} {name}" for name, count in found["operations_per_step"].items())
    chain = found["modulus_bits"]
    return [
        f"on {found['backend']}: ring dimension {found['ring_dimension']}, {len(chain)} primes of {sum(chain)} bits "
        f"in all, {found['security_bits']}-bit security, {found['images_per_request']} images a request"
        + (", two images a slot" if found["images_per_slot"] == 2 else ""),
        f"depth {found['depth']}, {found['levels']} levels, {found['affine_regions_and_squares']} affine regions and "
        "squares",
        f"a step: {operations}",
        f"{found['rotation_keys']} rotation keys; evaluation keys at most {found['key_bytes'] / MEGABYTE:,.0f} MB, "
        f"{found['weight_plaintexts']:,} encoded weights of {found['weight_bytes'] / MEGABYTE:,.0f} MB",
        f"forecast: {found['forecast_db']} dB against plaintext after all steps",
    ]


def train(
    model: Annotated[str, typer.Argument(metavar="NAME", help="A model of `hefw plugins` that can be trained.")],
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder for the weights; the model's name by default.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of the training data, for models that need one.")
    ] = None,
    seed: Annotated[str, typer.Option(metavar="N", help="Seeds weights, batches and noise.")] = "0",
    iterations: Annotated[
        str | None, typer.Option(metavar="N", help="Optimiser steps; the model's own number by default.")
    ] = None,
) -> None:
    """Train a bundled model again and save its weights."""
    from hefw.cli_options import whole
    from hefw.config import MAX_SEED

    asked = None if iterations is None else whole("--iterations", iterations, 1)
    start = whole("--seed", seed, 0, MAX_SEED)
    from hefw.core.progress import Progress
    from hefw.plugins import registry
    from hefw.report.files import check_writable
    from hefw.report.terminal import show_progress

    run = registry().training(model)
    folder = Path(out or model).expanduser()
    check_writable(folder)
    with show_progress(sys.stderr) as show:
        run(
            folder,
            seed=start,
            iterations=asked,
            data=None if data is None else Path(data).expanduser(),
            progress=lambda done, total, detail: show(Progress("train", done, total, detail)),
        )
    typer.echo(f"wrote {folder}", err=True)
