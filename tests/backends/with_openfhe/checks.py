"""Checks that an interpreter without pytest runs: collected by `check`, reported by `main`."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable

CHECKS: list[Callable[[], None]] = []


def check(function: Callable[[], None]) -> Callable[[], None]:
    """Adds one to what `main` runs."""
    CHECKS.append(function)
    return function


def main() -> None:
    """Every check, whatever came of those before: one line of JSON, each one's name, and how it failed or ""."""
    found = {}
    for one in CHECKS:
        try:
            one()
        except Exception:
            found[one.__name__] = traceback.format_exc()
        else:
            found[one.__name__] = ""
    print(json.dumps(found))
