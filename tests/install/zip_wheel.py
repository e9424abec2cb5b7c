"""Wheels written by hand. Needs nothing but Python: builds that run apart from hefw use it, too."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def metadata(folder: Path, name: str, version: str) -> Path:
    """A folder of a distribution's metadata."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA.format(name=name, version=version))
    return info


def wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> Path:
    """A wheel that any Python takes."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    contents = {
        **files,
        f"{info}/METADATA": METADATA.format(name=name, version=version),
        f"{info}/WHEEL": WHEEL,
    }
    record = []
    for path, text in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(text.encode())}")
    contents[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    written = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(written, "w") as archive:
        for path, text in contents.items():
            archive.writestr(path, text)
    return written
