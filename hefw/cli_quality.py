"""The command `hefw quality`: how good a model's pictures are, in plaintext and on ciphertext."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hefw.core.errors import ConfigError, HefwError, PluginError

if TYPE_CHECKING:
    from hefw.quality.record import QualityRecord
    from hefw.quality.survey import SurveyRecord

DEFAULT_OUT = "hefw-quality"


def quality(
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="A YAML or TOML file, as for `hefw generate`.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Model to judge (default digits).")] = None,
    every_model: Annotated[
        bool, typer.Option("--all", help="Judge every model here that can be, with a page of all.")
    ] = False,
    samples: Annotated[
        str, typer.Option(metavar="N", help="Pictures in plaintext, of each network and number of steps.")
    ] = "900",
    steps: Annotated[
        str | None, typer.Option(metavar="LIST", help="Numbers of steps, separated by commas (default: the model's).")
    ] = None,
    simulated: Annotated[
        str | None, typer.Option(metavar="N", help="Pictures drawn with CKKS's noise, unencrypted (default 32).")
    ] = None,
    encrypted: Annotated[
        str | None, typer.Option(metavar="N", help="Pictures drawn on ciphertext (default 32); 0 for none.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(metavar="NAME", help="HE library of the encrypted pictures (default tenseal).")
    ] = None,
    seed: Annotated[str, typer.Option(metavar="N", help="Of noise, and of what is drawn at random.")] = "1",
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for page and figures.")] = DEFAULT_OUT,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures on stdout.")] = False,
) -> None:
    """Judge a model's pictures: in plaintext, with the noise of CKKS, and on ciphertext."""
    from hefw.cli_options import whole
    from hefw.config import MAX_LABELS, MAX_SEED, MAX_STEPS, merge

    if every_model and model is not None:
        raise ConfigError(f"--all judges every model, --model {model} one of them: leave one of the two out")
    settings = merge(config, {"backend": backend, "model": model})
    settings.resolve()
    counts = {
        name: None if text is None else whole(f"--{name}", text, 0, MAX_LABELS)
        for name, text in (("simulated", simulated), ("encrypted", encrypted))
    }
    try:
        numbers = tuple(whole("--steps", part.strip(), 1, MAX_STEPS) for part in steps.split(",")) if steps else ()
    except ConfigError as error:
        raise ConfigError(f"{error}, or several of them, separated by commas; for example --steps 5,10,20") from None
    wanted, start = whole("--samples", samples, 2), whole("--seed", seed, 0, MAX_SEED)
    try:
        from hefw.quality import run, survey
        from hefw.quality.page import summary
        from hefw.quality.write import write_quality
    except ImportError as error:
        raise PluginError(
            f"judging pictures needs {error.name}, which is not installed; run: pip install 'hefw[models,report]'"
        ) from error
    from hefw.report.files import check_writable
    from hefw.report.terminal import show_progress

    asked = run.Asked(wanted, numbers, counts["simulated"], counts["encrypted"], start)
    folder = Path(out).expanduser()
    check_writable(folder)
    words = [config] if config else []
    words += ["--backend", backend] if backend else []
    # a library that prints must not end up in the JSON
    record: QualityRecord | SurveyRecord
    with contextlib.redirect_stdout(sys.stderr), show_progress(sys.stderr) as progress:
        if every_model:
            all_found, paths = survey.survey(settings, asked, folder, words=words, progress=progress)
            record = all_found
            sentences, failed = survey.summary(all_found), survey.failures(all_found.failed)
        else:
            words += ["--model", model] if model else []
            found = run.quality(settings, asked, words=words, progress=progress)
            paths, record = write_quality(found, folder), found.record
            sentences, failed = summary(found.record), ""
    for path in paths:
        typer.echo(f"wrote {path}", err=True)
    if as_json:
        typer.echo(record.to_json(), nl=False)
    else:
        for sentence in sentences:
            typer.echo(sentence)
    if failed:
        raise HefwError(failed)
