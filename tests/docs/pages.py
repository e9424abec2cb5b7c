"""The pages of README and docs, and the code blocks in them.

Marks in a page, on the line before a code block:

- `<!-- run -->`: Python that is executed, in a folder with the page's files (and, where the page has no console block,
  two made-up runs);
- `<!-- output -->`: text; what the run block before it prints;
- `<!-- config: NAME -->`: a configuration file;
- `<!-- file: PATH -->`: a file of an example package; the page's run blocks can import it.

A block in the language `console` is a session: lines that start with `$ ` are run, the others are what they print.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]

BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>run|output|config|file)(?:: (?P<name>\S+))? -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    page: Path
    language: str
    mark: str | None
    name: str | None
    text: str


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(page, m["language"], m["mark"], m["name"], m["text"]) for m in found]


def name_of(page: Path) -> str:
    """A page's path in the repository."""
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def has_console(page: Path) -> bool:
    """Whether the page's run blocks belong to a session."""
    return any(block.language == "console" for block in blocks(page))


def write_files(page: Path, folder: Path) -> set[str]:
    """Write the page's files and configurations; the names at the top of the folder."""
    names = set()
    for block in blocks(page):
        if block.mark in ("file", "config"):
            assert block.name is not None
            path = folder / block.name
            path.parent.mkdir(parents=True, exist_ok=True)
            assert not path.exists(), f"{block.name} is there twice"
            path.write_text(block.text)
            names.add(path.relative_to(folder).parts[0])
    return names
