"""`report.html`: one self-contained page about a run, in words, pictures and tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup, escape

from hefw.config import Config, format_labels
from hefw.record import RunRecord
from hefw.report import levels
from hefw.report.html import fill
from hefw.report.sight import notes, seen, shares
from hefw.report.summary import a_message, encrypted_part, how, summary, unit

TEMPLATE = Path(__file__).with_name("report.html.jinja")
MAX_PROMPTS = 32  # written out on the page
ALT_LENGTH = 200  # characters of prompts in a picture's alternative text


def render(record: RunRecord, pictures: Mapping[str, bytes]) -> str:
    """The page's HTML: no script, no remote asset, the pictures embedded.

    Args:
        record: the run's record.
        pictures: files by name: images.png and steps.png; plain.png where there is a twin; server_view.png where the
            server held ciphertext; levels.svg with levels-dark.svg where levels were used up; start.png where
            a picture was given to start from.
    """
    return fill(
        TEMPLATE,
        pictures,
        {"commands": _commands},
        record=record,
        noun="image" if record.count == 1 else "images",
        how=how(record),
        asked=_asked(record),
        prompts=record.prompts[:MAX_PROMPTS],
        more_prompts=len(record.prompts[MAX_PROMPTS:]),
        negative_prompt=record.config["negative_prompt"],
        summary=summary(record),
        shares=shares(record),
        seen=seen(record),
        notes=notes(record),
        processes=len({item.process for item in record.processes}),
        a_message=a_message(record),
        unit=unit(record),
        about_levels=levels.caption(record),
        encrypted_part=encrypted_part(record.seconds),
        all_else=max(0.0, record.seconds.total - record.seconds.model - encrypted_part(record.seconds)),
        command=Config(**record.config).command(),
    )


def _commands(text: str) -> Markup:
    """A text with what stands between backticks as code."""
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", str(escape(text))))


def _asked(record: RunRecord) -> str:
    """What the images are of."""
    if not record.prompts:
        return f"labels {format_labels(record.labels)}"
    text = "prompts " + "; ".join(record.prompts)
    return text if len(text) <= ALT_LENGTH else f"{text[: ALT_LENGTH - 3]}..."
