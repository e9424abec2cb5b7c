"""Writes a run's files: pictures, report and record."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from hefw.report import images, levels, page
from hefw.report.files import check_writable, put
from hefw.report.result import RunResult
from hefw.report.summary import how, unit

FILES = (
    "start.png",
    "images.png",
    "plain.png",
    "steps.png",
    "server_view.png",
    "levels.svg",
    "report.html",
    "run.json",
)

__all__ = ["FILES", "check_writable", "write_run"]


def write_run(result: RunResult, out: str | os.PathLike[str]) -> list[Path]:
    """Write pictures, report.html and run.json: the names in FILES.

    There is plain.png only with a twin, server_view.png only if the server held ciphertext, levels.svg only if levels
    were used up, start.png only where a picture was given to start from. Each file is whole or not there; run.json
    comes last, so a folder that has one holds one whole run. Files of an earlier run in `out` are replaced.

    Returns:
        the paths of the files written.
    """
    return put(Path(out), _contents(result), FILES)


def _contents(result: RunResult) -> dict[str, bytes]:
    """The files' bytes by name."""
    record, banner = result.record, result.record.banner
    drawn = {
        "images.png": images.grid(result.images, record.captions, title=f"Images drawn {how(record)}", banner=banner),
        "steps.png": images.steps_strip(
            result.trajectory,
            after=result.after,
            every=record.every,
            unit=unit(record),
            start="start" if record.config["init_image"] else "noise",
            heads=record.captions,
            banner=banner,
        ),
    }
    if result.source is not None:
        tiles, captions = [result.source], ["start"]
        if result.mask is not None:
            tiles.append(np.broadcast_to(2.0 * result.mask - 1, result.source.shape))
            captions.append("mask: white is drawn anew")
        drawn["start.png"] = images.grid(
            np.stack(tiles), captions, title="What the key holder started from", banner=banner
        )
    if result.plain is not None:
        title = "The same seed in plaintext"
        drawn["plain.png"] = images.grid(result.plain, record.captions, title=title, banner=banner)
    if result.server_view:
        drawn["server_view.png"] = images.server_view(
            result.server_view,
            record.count,
            messages=record.messages,
            in_part=record.ledger.server_plaintext_fraction > 0,
            banner=banner,
        )
    contents = {name: _png(picture) for name, picture in drawn.items()}
    pictures = dict(contents)
    if levels.used(record):
        contents["levels.svg"] = pictures["levels.svg"] = levels.draw(record)
        pictures["levels-dark.svg"] = levels.draw(record, dark=True)
    contents["report.html"] = page.render(record, pictures).encode()
    contents["run.json"] = record.to_json().encode()
    return contents


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
