"""`report.html`: one self-contained page about a run, in words, pictures and tables."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from hefw.config import Config, format_labels
from hefw.record import RunRecord
from hefw.report import levels

TEMPLATE = "report.html.jinja"
FORMS = {
    "plaintext": "in plaintext",
    "ciphertext": "only as ciphertext",
    "derived": "in plaintext, derived",
    "public": "as public data",
}


def render(record: RunRecord, pictures: Mapping[str, bytes]) -> str:
    """The page's HTML: no script, no remote asset, the pictures embedded.

    Args:
        record: the run's record.
        pictures: files by name: images.png, plain.png (where there is a twin), steps.png, server_view.png, and
            levels.svg with levels-dark.svg.
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
        processes=len({item.process for item in record.processes}),
        a_message=_a_message(record),
        about_levels=levels.caption(record),
        command=Config(**record.config).command(),
        pictures={name: _embedded(name, data) for name, data in pictures.items()},
    )


def summary(record: RunRecord) -> list[str]:
    """The run in a few sentences."""
    count, steps, backend = len(record.labels), record.config["steps"], _name(record.config["backend"])
    images = _counted(count, "image")
    share = record.ledger.server_plaintext_fraction
    if record.simulated:
        how = f"The backend {backend!r} simulated the encrypted computation; nothing was encrypted."
    elif share == 0:
        how = "The server computed on ciphertext alone: it saw no entry of any latent or image in plaintext."
    else:
        how = f"The server saw {share:.1%} of the latents' entries in plaintext; the others were ciphertext to it."
    sentences = [
        f"The model {record.model.name!r} drew {images} in {_counted(steps, 'step')} with the backend {backend!r}, "
        f"{round_trips(record)}.",
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


def round_trips(record: RunRecord) -> str:
    """How often the key holder was needed: once ('from one message'), or after how many steps each for a round trip."""
    every = record.config["steps"] // record.messages
    if record.messages == 1:
        several = f" for each of {record.batches} batches" if record.batches > 1 else ""
        way = ": the server gave levels back by bootstrapping" if levels.bootstrapped(record) else ""
        return f"from one message{several}{way}"
    return f"with a round trip to the key holder after {'each step' if every == 1 else f'every {every} steps'}"


def seen(record: RunRecord) -> list[dict[str, Any]]:
    """The ledger, a row for each party, item and form: what it could see, how often, how many numbers and bytes.

    Items that differ only in what follows a slash (rotation keys by their step) share a row with their number. Messages
    are those of all batches.
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
                "times": 0,
                "messages": 0,
                "entries": 0,
                "bytes": 0,
            },
        )
        row["alike"] += bool(slash)
        row["entries"] += entry.entries
        row["bytes"] += entry.bytes
        row["times"] += 1
        row["messages"] += entry.step is not None
    for row in groups.values():
        messages, times, alike = (row.pop(name) for name in ("messages", "times", "alike"))
        if alike:
            row["item"] += f", {alike} of them"
        if messages:
            row["when"] = f"in {_counted(messages, 'message')}"
        else:
            row["when"] = "once" if alike or times == 1 else f"{times} times"
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


def _a_message(record: RunRecord) -> str:
    every = record.config["steps"] // record.messages
    if every == 1:
        return "one message a step"
    return "one message for all steps" if record.messages == 1 else f"one message every {every} steps"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _embedded(name: str, data: bytes) -> str:
    """A picture as the address that holds it."""
    kind = "svg+xml" if name.endswith(".svg") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _name(choice: Any) -> str:
    return str(choice["name"] if isinstance(choice, Mapping) else choice)
