"""Quantities with a unit in the running text of README and docs: each is measured, or known without measuring.

Text between the markers of `benchmarks.figures`, code, and commands are left out: the first is written from results
files, the others are no claims.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"

UNIT = "ms|s|seconds?|minutes?|min|hours?|h|GB|MB|kB|GiB|MiB|dB|%|times"
QUANTITY = re.compile(rf"(?<![\w.^-])\d[\d.,]*(?:e-?\d+)?(?: to \d[\d.,]*)?[ -]?(?:{UNIT})(?![\w-])")
GENERATED = re.compile(r"<!-- figures -->.*?<!-- /figures -->", re.DOTALL)
BLOCK = re.compile(r"^(`{3,}).*?^\1", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`[^`\n]*`")

Source = tuple[str, Callable[[dict[str, Any]], str]]  # a results file, and what it says in the page's words


def quantities(text: str) -> set[str]:
    """Those in the running text of a page."""
    return set(QUANTITY.findall(CODE.sub("", BLOCK.sub("", GENERATED.sub("", text)))))


def _build(found: dict[str, Any]) -> str:
    return f"{math.ceil(found['pyfhel_build_seconds']['value'] / 60)} minutes"


def _selection(found: dict[str, Any]) -> str:
    return f"{1e3 * found['fastest_seconds']:.1f} to {1e3 * found['nine_of_ten_seconds']:.1f} ms"


def _shown(found: dict[str, Any]) -> str:
    return f"{found['shown_share']:.0%}".replace("%", " %")


def _compiled(model: str, words: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], str]:
    return lambda found: words(next(row for row in found["rows"] if row["model"] == model))


def _times(row: dict[str, Any]) -> str:
    return f"{row['file_times_weights']:.1f} times"


LARGE = "UNet2DModel (32, 64), 16 x 16, 2 layers"

#: Measured: by page and quantity, where it is from.
MEASURED: Mapping[str, Mapping[str, Source]] = {
    "README.md": {"5 minutes": ("quoted", _build)},
    "docs/how-to/install-backends.md": {"5 minutes": ("quoted", _build)},
    "docs/how-to/strategies.md": {"0.9 to 1.3 ms": ("selection", _selection)},
    "docs/reference/operators.md": {
        "3.6 MB": ("compiled-sizes", _compiled(LARGE, lambda row: f"{row['weight_bytes'] / 1e6:.1f} MB")),
        "5.4 MB": ("compiled-sizes", _compiled(LARGE, lambda row: f"{row['file_bytes'] / 1e6:.1f} MB")),
        "1.5 times": ("compiled-sizes", _compiled(LARGE, _times)),
        "40 ms": (
            "compiled-sizes",
            _compiled(LARGE, lambda row: f"{round(row['load_processor_seconds'], 2) * 1e3:.0f} ms"),
        ),
        "7.4 s": ("compiled-sizes", _compiled(LARGE, lambda row: f"{row['compile_processor_seconds']:.1f} s")),
        "0.7 GB": ("compiled-sizes", _compiled(LARGE, lambda row: f"{row['compile_memory_bytes'] / 1e9:.1f} GB")),
        "0.7 times": ("compiled", _compiled("`digits`", _times)),
        "1.7 times": ("compiled-sizes", _compiled("UNet2DModel (8, 16), 8 x 8", _times)),
        "2.8 times": ("compiled", _compiled("plain torch", _times)),
        "20 kB": ("compiled", _compiled("plain torch", lambda row: f"{row['weight_bytes'] / 1e3:.0f} kB")),
    },
    "docs/explanation/threat-model.md": {"11 %": ("selection", _shown)},
}

#: Not measured: limits, definitions and other people's claims.
GIVEN: Mapping[str, Mapping[str, str]] = {
    "docs/benchmarks.md": {"256 MiB": "a limit in the code"},
    "docs/explanation/security-model.md": {"24 GiB": "a limit in the code"},
    "docs/how-to/compare.md": {"95 %": "of intervals", "59 dB": "what rounding to 8 bits leaves: 10.8 + 6.02 x 8"},
    "docs/how-to/keys-and-cache.md": {"4 GB": "a limit in the code"},
    "docs/how-to/judge-quality.md": {"95 %": "of intervals", "40 dB": "a common rule"},
    "docs/how-to/write-a-backend.md": {"2 GB": "a limit of messages"},
    "docs/reference/configuration.md": {"25 GB": "counted by the planner"},
    "docs/reference/models.md": {"40 dB": "a value to ask for"},
    "docs/reproduction.md": {"500 times": "the paper's claim", "1 %": "the paper's threshold"},
}


def said(file: str, words: Callable[[dict[str, Any]], str]) -> str:
    """What a results file says."""
    return words(dict(json.loads((RESULTS / f"{file}.json").read_text(encoding="utf-8"))))
