"""Starts `hefw.testing.child` with one backend, as another process of the same interpreter."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from hefw.testing.parties import Parties

TIMEOUT_SECONDS = 120


def prepare(folder: Path, target: str, parties: Parties) -> None:
    """Write what a child needs to make the same backend at the same parameters."""
    spec = {
        "target": target,
        "params": parties.params.params.to_dict(),
        "rotations": {str(step): level for step, level in parties.manifest.rotations.items()},
        "conjugation": parties.manifest.conjugation,
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    (folder / "options.pickle").write_bytes(pickle.dumps(parties.backend.options))


def run_child(command: str, folder: Path) -> Any:
    """The child's answer; AssertionError with its last words if it died."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-m", "hefw.testing.child", command, str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"the process ended with {done.returncode}; its last words:\n{done.stderr[-2000:]}"
    return json.loads(done.stdout.splitlines()[-1])
