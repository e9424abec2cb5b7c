"""Whether modules can be imported by an interpreter: only an import tells."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from hefw.install.errors import InstallError

#: Imports every module that is named, and prints what is installed.
TRY = """
import importlib, importlib.metadata, json, sys
sys.path[:] = [folder for folder in sys.path if folder]
for name in sys.argv[1:]:
    importlib.import_module(name)
found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
print("\\n" + json.dumps({name: version for name, version in found.items() if name and version}))
"""


def try_modules(python: Path, modules: Sequence[str], *, isolated: bool) -> Mapping[str, str]:
    """Import modules in an interpreter; what is installed there, by distribution. InstallError if one fails."""
    done = subprocess.run(
        [python, *(("-I",) if isolated else ()), "-c", TRY, *modules],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        told = [line for line in done.stdout.splitlines() if line.startswith("{")]  # a library may talk, too
        versions: dict[str, str] = json.loads(told[-1])
        return versions
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    reason = lines[-1] if lines else f"exit code {done.returncode}"
    raise InstallError(f"{', '.join(modules)} cannot be imported there: {reason}")
