"""Writes a quality's files."""

from __future__ import annotations

import os
from pathlib import Path

from hefw.quality import page
from hefw.quality.run import Quality
from hefw.report import columns
from hefw.report.files import put

FILES = ("quality.png", "quality.html", "quality.json")
#: Columns in the order of the page.
ORDER = ("original", "twin", "simulated", "encrypted", "nearest", "real")


def write_quality(found: Quality, out: str | os.PathLike[str]) -> list[Path]:
    """Write the files of FILES into a folder and return their paths.

    Each is whole or not there; quality.json comes last, so a folder that has one holds one whole judgement.
    """
    record = found.record
    drawn = {name: found.columns[name] for name in ORDER if name in found.columns}
    heads = [str(item.label) for item in record.shown]
    light, dark = (columns.draw(drawn, len(heads), heads, dark=scheme) for scheme in (False, True))
    html = page.render(record, {"quality.png": light, "quality-dark.png": dark}, list(drawn)).encode()
    contents = {"quality.png": light, "quality.html": html, "quality.json": record.to_json().encode()}
    return put(Path(out), contents, FILES)
