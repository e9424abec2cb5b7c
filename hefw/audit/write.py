"""Writes an audit's files."""

from __future__ import annotations

import os
from pathlib import Path

from hefw.audit import chart, page, pictures
from hefw.audit.run import Audit
from hefw.report.files import put

FILES = ("audit.png", "curves.svg", "audit.html", "audit.json")


def write_audit(audit: Audit, out: str | os.PathLike[str]) -> list[Path]:
    """Write the files of FILES into a folder, curves.svg only where there are curves, and return their paths.

    Each is whole or not there; audit.json comes last, so a folder that has one holds one whole audit.
    """
    light = {"audit.png": pictures.side_by_side(audit)}
    dark = {"audit-dark.png": pictures.side_by_side(audit, dark=True)}
    if audit.record.curves is not None:
        light["curves.svg"] = chart.draw(audit.record)
        dark["curves-dark.svg"] = chart.draw(audit.record, dark=True)
    html = page.render(audit.record, light | dark).encode()
    return put(Path(out), {**light, "audit.html": html, "audit.json": audit.record.to_json().encode()}, FILES)
