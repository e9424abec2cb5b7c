"""Console sessions in the docs: every command is run in a fresh environment, and prints what the page shows.

Numbers and runs of spaces may differ; a line `...` stands for any lines, `...` within a line for any text. A command
may fail only if the last line shown starts with `error: `.
"""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pages import PAGES, ROOT, blocks, has_console, name_of, write_files

MARK = "\x1e"


@dataclass(frozen=True)
class Command:
    line: str
    expected: str
    exact: bool


def session(page: Path) -> list[Command]:
    """The commands of a page, in order: those of console blocks, and its run blocks as Python on stdin."""
    found: list[Command] = []
    for block in blocks(page):
        if block.language == "console":
            assert block.text.startswith("$ "), block.text
            for part in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
                line, _, expected = part.partition("\n")
                found.append(Command(line, expected, exact=False))
        elif block.mark == "run":
            found.append(Command(f"python - <<'END'\n{block.text}END", "", exact=True))
        elif block.mark == "output":
            assert found[-1].exact, f"{name_of(page)}: an output without a run block before it"
            found[-1] = Command(found[-1].line, block.text, exact=True)
    return found


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of an activated environment with hefw, which sees what it needs in the one that runs the tests."""
    folder = tmp_path_factory.mktemp("environment")
    sources = folder / "hefw"
    shutil.copytree(ROOT / "hefw", sources / "hefw", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    home = folder / "venv"
    venv.create(home, with_pip=True)
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "tests.pth").write_text(
        "".join(f"import site; site.addsitedir({p!r})\n" for p in site.getsitepackages())
    )
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
    variables |= {
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_QUIET": "3",  # a warning of pip's own configuration is not the page's output
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        ["pip", "install", "--no-deps", str(sources)], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return variables


@pytest.fixture
def environment(installed: dict[str, str]) -> Iterator[dict[str, str]]:
    """The same, from which a page's package is removed again."""
    before = packages(installed)
    yield installed
    added = sorted(packages(installed) - before)
    if added:
        subprocess.run(["pip", "uninstall", "--yes", *added], env=installed, check=True)


def packages(variables: dict[str, str]) -> set[str]:
    """What is installed."""
    ask = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    done = subprocess.run(["python", "-c", ask], env=variables, stdout=subprocess.PIPE, text=True, check=True)
    return set(done.stdout.split())


def pattern(command: Command) -> re.Pattern[str]:
    """What the output must match."""
    if command.exact:
        return re.compile(re.escape(command.expected))
    lines = []
    for line in command.expected.splitlines():
        parts = [re.escape(" ".join(part.split(" "))) for part in line.split("...")]
        text = re.sub(r"(\\ )+", r" +", ".*".join(parts))
        text = re.sub(r"\d+(\\\.\d+)*", r"[\\d.]+", text)
        lines.append("(?:.*\n)*?" if line == "..." else text + " *\n")
    return re.compile("".join(lines))


@pytest.mark.parametrize("page", [page for page in PAGES if has_console(page)], ids=name_of)
def test_sessions_print_what_the_page_shows(page: Path, environment: dict[str, str], tmp_path: Path) -> None:
    write_files(page, tmp_path)
    commands = session(page)
    script = "set -o pipefail\n" + "".join(f"{c.line}\nprintf '{MARK}%s{MARK}' $?\n" for c in commands)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    outcomes = done.stdout.split(MARK)
    for command, output, status in zip(commands, outcomes[::2], outcomes[1::2], strict=False):
        shown = f"$ {command.line}\n{output}(exit status {status})"
        failing = command.expected.splitlines()[-1:] != [] and command.expected.splitlines()[-1].startswith("error: ")
        assert (status != "0") == failing, shown
        assert pattern(command).fullmatch(output), f"{name_of(page)} shows\n{command.expected}\nbut\n{shown}"
    assert len(outcomes) == 2 * len(commands) + 1, done.stdout[-2000:]
