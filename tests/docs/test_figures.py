"""Every measured figure in the README comes from a results file in the repository."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_readme_says_what_the_files_say() -> None:
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.figures import filled
    finally:
        sys.path.remove(str(ROOT))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert filled(readme) == readme, "run: python -m benchmarks.figures"
