"""Chromium, as a person has it: pages with what they ask for and complain of."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass
class Opened:
    """A page that is open."""

    tab: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


class Browser:
    """One browser for all pages of a file of tests."""

    def __init__(self, chromium: Any) -> None:
        self._chromium = chromium

    @contextlib.contextmanager
    def page(self, path: Path, *, width: int = 1280, scheme: str = "light", script: bool = True) -> Iterator[Opened]:
        """A file, opened in a window of that width in a light or dark scheme."""
        context = self._chromium.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=script
        )
        opened = Opened(context.new_page())
        opened.tab.on("request", lambda asked: opened.requests.append(asked.url) if asked.url[:5] != "data:" else None)
        opened.tab.on("console", lambda said: opened.complaints.append(said.text))
        opened.tab.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.tab.goto(path.as_uri())
        yield opened
        context.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    assert program, f"a browser is needed: none of {', '.join(NAMES)}; on Debian and Ubuntu: apt install chromium"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield Browser(chromium)
        chromium.close()
