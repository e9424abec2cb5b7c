"""Self-contained HTML pages from templates: no script, no remote asset."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from hefw.report.words import duration, number, size


def fill(template: Path, pictures: Mapping[str, bytes], filters: Mapping[str, Any], **values: Any) -> str:
    """The page of a Jinja2 template: text is escaped, a name without a value is an error.

    The template has `pictures`, the address of each by file name with the picture in it, the filters `duration`,
    `number` and `size`, and those given.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "number": number, "size": size, **filters}
    embedded = {name: _embedded(name, data) for name, data in pictures.items()}
    return environment.get_template(template.name).render(pictures=embedded, **values)


def _embedded(name: str, data: bytes) -> str:
    """A picture as the address that holds it."""
    kind = "svg+xml" if name.endswith(".svg") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
