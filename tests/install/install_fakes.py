"""Distributions and interpreters made up in a folder, so that installs need no network and take seconds."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from pathlib import Path

from zip_wheel import wheel

from hefw.hookspecs import Entry, Install

NAME = "toy"
REQUIREMENT = "toy-he==1.0"
#: The version of an interpreter that no machine has.
PYTHON = "3.98"

BUILD = """
import os, subprocess, sys, time
from pathlib import Path

sys.path.insert(0, {folder!r})
from zip_wheel import metadata, wheel


def prepare_metadata_for_build_wheel(directory, config_settings=None):
    return metadata(Path(directory), "slow-he", "1.0").name


def build_wheel(directory, config_settings=None, metadata_directory=None):
    child = subprocess.Popen(["sleep", "300"])
    with open(os.environ["TOY_BUILDS"], "a") as file:
        file.write(f"{{os.getpid()}} {{child.pid}}\\n")
    while Path(os.environ["TOY_SLOW"]).exists():
        time.sleep(0.05)
    child.kill()
    child.wait()
    return wheel(Path(directory), "slow-he", "1.0", {{"slow_he/__init__.py": ""}}).name
"""


def wheelhouse(folder: Path) -> Path:
    """A folder of wheels: the toy library, a broken one, and what a worker needs."""
    folder.mkdir()
    wheel(folder, "toy-he", "1.0", {"toy_he/__init__.py": "works = True\n"})
    wheel(folder, "toy-he", "2.0", {"toy_he/__init__.py": "works = True\n"})
    wheel(folder, "broken-he", "1.0", {"broken_he/__init__.py": "from broken_he.core import missing\n"})
    for name in ("msgpack", "numpy", "safetensors"):
        wheel(folder, name, "99.0", {f"{name}/__init__.py": ""})
    return folder


def slow_sdist(folder: Path) -> None:
    """A source distribution `slow-he` that takes its time to build while the file $TOY_SLOW is there.

    Each build writes a line of its process id and that of a child of its own to the file $TOY_BUILDS.
    """
    files = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: slow-he\nVersion: 1.0\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "build"\nbackend-path = ["."]\n',
        "build.py": BUILD.format(folder=str(Path(__file__).parent)),
    }
    with tarfile.open(folder / "slow_he-1.0.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"slow_he-1.0/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))


def interpreter(path: Path, *, python: str = PYTHON, glibc: str | None = "glibc 2.36", missing: str = "") -> Path:
    """A program that answers as an interpreter of that version would; all else the present one does.

    It copies the environment $TOY_TEMPLATE where it is asked for a new one: pip need not be set up each time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    answer = {
        "version": [int(part) for part in f"{python}.0".split(".")][:3],
        "glibc": glibc,
        "missing": missing.split(),
    }
    path.write_text(
        f"""#!/bin/sh
        if [ "$2" = -c ]; then echo '{json.dumps(answer)}'
        elif [ "$3" = venv ] && [ -n "$TOY_TEMPLATE" ]; then /bin/cp -a "$TOY_TEMPLATE" "$4"
        else exec {sys.executable} "$@"; fi
        """
    )
    path.chmod(0o755)
    return path


def script(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def entry(**changes: object) -> Entry:
    """A backend whose library is the toy distribution, for the interpreter that no machine has."""
    values: dict[str, object] = {
        "requires": ("toy_he",),
        "distribution": "toy-he",
        "install": (Install((REQUIREMENT,), python=PYTHON),),
    }
    return Entry(NAME, "json:loads", "a toy library", **(values | changes))  # type: ignore[arg-type]


def alive(pid: int) -> bool:
    """Whether a process runs (one that only waits to be collected does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def offline(links: Path, home: Path) -> dict[str, str]:
    """Variables under which pip takes distributions from a folder only, and hefw keeps environments in another."""
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(links),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_CACHE_DIR": "1",
        "HEFW_HOME": str(home),
    }
