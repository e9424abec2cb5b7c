"""Writes a run's files: pictures, report and record."""

from __future__ import annotations

import io
import os
from pathlib import Path

from PIL import Image

from hefw.report import images, levels, page
from hefw.report.files import check_writable, put
from hefw.report.result import RunResult

FILES = ("images.png", "plain.png", "steps.png", "server_view.png", "levels.svg", "report.html", "run.json")

__all__ = ["FILES", "check_writable", "write_run"]


def write_run(result: RunResult, out: str | os.PathLike[str]) -> list[Path]:
    """Write the pictures, plain.png only where there is a twin, report.html and run.json: the names in FILES.

    Each is whole or not there; run.json comes last, so a folder that has one holds one whole run. Files of an earlier
    run in `out` are replaced.

    Returns:
        the paths of the files written.
    """
    return put(Path(out), _contents(result), FILES)


def _contents(result: RunResult) -> dict[str, bytes]:
    """The files' bytes by name."""
    record, banner = result.record, result.record.banner
    title = "Images drawn in simulation" if record.simulated else "Images drawn on ciphertext"
    drawn = {
        "images.png": images.grid(result.images, result.labels, title=title, banner=banner),
        "steps.png": images.steps_strip(
            result.trajectory, steps=record.config["steps"], labels=result.labels, banner=banner
        ),
        "server_view.png": images.server_view(result.server_view, len(result.labels), banner=banner),
    }
    if result.plain is not None:
        title = "The same seed in plaintext"
        drawn["plain.png"] = images.grid(result.plain, result.labels, title=title, banner=banner)
    contents = {name: _png(picture) for name, picture in drawn.items()}
    contents["levels.svg"] = levels.draw(record)
    pictures = contents | {"levels-dark.svg": levels.draw(record, dark=True)}
    contents["report.html"] = page.render(record, pictures).encode()
    contents["run.json"] = record.to_json().encode()
    return contents


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
