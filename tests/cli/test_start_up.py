"""What short commands import: that they are quick is measured elsewhere, what makes them slow is refused here."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Of typer itself and of Python's own.
TYPER = {"typer", "click", "annotated_doc", "shellingham", "pydantic", "pydantic_core", "annotated_types"}
TYPER |= {"typing_extensions", "typing_inspection", "colorama"}
PLUGINS = TYPER | {"pluggy"}
CONFIG = PLUGINS | {"yaml"}
#: Of hefw, what every command has: the command line, and errors.
ALWAYS = {"hefw", "hefw.core", "hefw.core.errors"}

SCRIPT = """
import sys
before = set(sys.modules)
from hefw import cli
code = cli.run(sys.argv[1:])
print("\\x1e" + " ".join(sorted(set(sys.modules) - before)))
sys.exit(code)
"""


def imported(*arguments: str) -> set[str]:
    """Every module that a command imports, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("\x1e")[2].split())


def foreign(modules: set[str]) -> set[str]:
    """Top-level names of what is neither Python's own nor hefw's."""
    names = {name.partition(".")[0] for name in modules}
    own = {name for name in names if name.startswith(("_", "hefw"))}  # what Python itself generates begins with _
    return names - own - sys.stdlib_module_names


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["generate", "--help"], ["keys", "--help"], ["profile", "--help"], ["cache", "--help"]],
    ids=" ".join,
)
def test_help_imports_the_command_line_alone(arguments) -> None:
    found = imported(*arguments)
    assert foreign(found) <= TYPER
    ours = {name for name in found if name.startswith("hefw") and not name.startswith("hefw.cli")}
    assert ours - {"hefw.cli"} <= ALWAYS


def test_bare_help_needs_no_validation(monkeypatch) -> None:
    """`hefw --help` itself does not even build models of pydantic's."""
    found = imported("--help")
    assert not {name for name in found if name.startswith(("pydantic", "rich", "numpy"))}


@pytest.mark.parametrize("arguments", [["plugins"], ["plugins", "--json"]], ids=" ".join)
def test_the_list_of_plugins_imports_no_library(arguments) -> None:
    found = imported(*arguments)
    assert foreign(found) <= PLUGINS
    assert not {name for name in found if name.startswith(("hefw.models.", "hefw.audit.")) and "plugin" not in name} - {
        "hefw.audit.attacks"
    }


def test_the_cache_is_listed_without_numpy() -> None:
    assert foreign(imported("cache", "list")) <= TYPER


def test_key_sets_are_listed_without_torch(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HEFW_HOME", str(tmp_path))
    found = imported("keys", "list")
    assert foreign(found) <= CONFIG | {"numpy", "msgpack", "psutil", "cython_runtime"}
    assert "hefw.run" not in found


REPORTS = """
import sys
from hefw.core.progress import Progress
from hefw.report import needs
heavy = {"matplotlib", "PIL", "jinja2"}
needs.check()
told = needs.meanwhile(lambda event: print(event.stage, sorted(heavy & set(sys.modules))))
for stage in ("encode", "evaluate", "evaluate"):
    told(Progress(stage, 1, 2, ""))
"""


def test_what_writes_reports_is_imported_when_the_server_evaluates() -> None:
    done = subprocess.run([sys.executable, "-c", REPORTS], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["encode []", "evaluate []", "evaluate ['PIL', 'jinja2', 'matplotlib']"]
