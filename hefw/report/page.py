"""`report.html`: one self-contained page about a run, in words, pictures and tables."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from hefw.config import Config, format_labels
from hefw.record import RunRecord

TEMPLATE = "report.html.jinja"
FORMS = {"plaintext": "in plaintext", "ciphertext": "only as ciphertext", "public": "as public data"}


def render(record: RunRecord, pictures: Mapping[str, bytes]) -> str:
    """The page's HTML: no script, no remote asset, the pictures embedded.

    Args:
        record: the run's record.
        pictures: PNG files by name: images.png, plain.png (where there is a twin), steps.png, server_view.png.
    """
    count = len(record.labels)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"size": size, "duration": duration, "number": number}
    return environment.get_template(TEMPLATE).render(
        record=record,
        count=count,
        noun="image" if count == 1 else "images",
        steps=record.config["steps"],
        labels=format_labels(record.labels),
        backend=_name(record.config["backend"]),
        summary=summary(record),
        seen=seen(record),
        command=Config(**record.config).command(),
        pictures={name: "data:image/png;base64," + base64.b64encode(png).decode() for name, png in pictures.items()},
    )


def summary(record: RunRecord) -> list[str]:
    """The run in a few sentences."""
    count, steps, backend = len(record.labels), record.config["steps"], _name(record.config["backend"])
    images = "1 image" if count == 1 else f"{count} images"
    share = record.ledger.server_plaintext_fraction
    if record.simulated:
        how = f"The backend {backend!r} simulated the encrypted computation; nothing was encrypted."
    elif share == 0:
        how = "The server computed on ciphertext alone: it saw no entry of any latent or image in plaintext."
    else:
        how = f"The server saw {share:.1%} of the latents' entries in plaintext; the others were ciphertext to it."
    sentences = [
        f"The model {record.model.name!r} drew {images} in {steps} steps with the backend {backend!r}.",
        how,
        f"It took {duration(record.seconds.total)} in all, {duration(record.seconds_per_image_step)} an image and step,"
        f" and at most {size(record.peak_rss_bytes)} of memory.",
    ]
    if record.max_abs_error is not None:
        psnr = "" if record.psnr_db is None else f" (PSNR {record.psnr_db:.1f} dB)"
        sentences.append(
            f"The images differ from those computed in plaintext from the same seed by at most "
            f"{record.max_abs_error:.2g}{psnr}; black is -1, white is 1."
        )
    return sentences


def seen(record: RunRecord) -> list[dict[str, Any]]:
    """The ledger, a row for each party, item and form: what it could see, how often, how many numbers and bytes.

    Items that differ only in what follows a slash (rotation keys by their step) share a row with their number.
    """
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for entry in record.ledger.entries:
        item, slash, _ = entry.item.partition("/")
        row = groups.setdefault(
            (entry.party, item, entry.form),
            {
                "party": entry.party,
                "item": item,
                "alike": 0,
                "form": FORMS[entry.form],
                "steps": set(),
                "entries": 0,
                "bytes": 0,
            },
        )
        row["alike"] += bool(slash)
        row["entries"] += entry.entries
        row["bytes"] += entry.bytes
        if entry.step is not None:
            row["steps"].add(entry.step)
    for row in groups.values():
        steps = len(row["steps"])
        alike = row.pop("alike")
        if alike:
            row["item"] += f", {alike} of them"
        row["when"] = "once" if not steps else "in 1 step" if steps == 1 else f"in {steps} steps"
    return list(groups.values())


def size(count: float) -> str:
    """A number of bytes for people: decimal prefixes."""
    for prefix in ("", "k", "M", "G"):
        if count < 1000:
            return f"{_three(count)} {prefix}B"
        count /= 1000
    return f"{_three(count)} TB"


def duration(seconds: float) -> str:
    """A time in seconds for people."""
    if seconds < 1:
        return f"{_three(1000 * seconds)} ms"
    if seconds < 100:
        return f"{_three(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def number(value: float) -> str:
    """A number with thousands apart, three decimals at most."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}".rstrip("0").rstrip(".")


def _three(value: float) -> str:
    """Three significant digits, never in exponent form."""
    return f"{float(f'{value:.3g}'):,g}"


def _name(choice: Any) -> str:
    return str(choice["name"] if isinstance(choice, Mapping) else choice)
