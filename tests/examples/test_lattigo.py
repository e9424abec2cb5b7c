"""The example plugin `examples/hefw-lattigo`, as its author would check it: in an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 800  # for all: most of it is the package index
Run = Callable[..., str]


@pytest.fixture
def fresh(tmp_path: Path) -> Run:
    """Runs a module in a new environment with the plugin, its bindings from the package index, and hefw from here."""
    sources = {name: tmp_path / name for name in ("hefw", "hefw-lattigo")}
    shutil.copytree(ROOT / "hefw", sources["hefw"] / "hefw", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources["hefw"])
    shutil.copytree(ROOT / "examples" / "hefw-lattigo", sources["hefw-lattigo"])
    venv.create(tmp_path / "venv", with_pip=True)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [tmp_path / "venv" / "bin" / "python", "-m", *arguments],
            cwd=sources["hefw-lattigo"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    constraints = str(ROOT / "constraints.txt")
    run("pip", "install", "--quiet", "-c", constraints, str(sources["hefw"]), f"{sources['hefw-lattigo']}[test]")
    return run


@pytest.mark.timeout(SECONDS)
def test_the_lattigo_plugin_passes_the_kit_in_a_fresh_environment(fresh: Run, tmp_path: Path) -> None:
    listed = next(line for line in fresh("hefw", "plugins").splitlines() if "lattigo" in line)
    assert "not installed" not in listed
    fresh("pytest", "--junitxml", str(tmp_path / "report.xml"))
    (suite,) = ElementTree.parse(tmp_path / "report.xml").getroot().iter("testsuite")
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    assert counts["tests"] > 0
    assert counts == {"tests": counts["tests"], "failures": 0, "errors": 0, "skipped": 0}  # an xfail counts as skipped
