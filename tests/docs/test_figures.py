"""Every measured figure in README and docs comes from a results file in the repository."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

sys.path.insert(0, str(ROOT))
try:
    from benchmarks import figures
finally:
    sys.path.remove(str(ROOT))


@pytest.mark.parametrize("page", figures.SECTIONS, ids=lambda page: page.name)
def test_pages_say_what_the_files_say(page: Path) -> None:
    assert figures.filled(page) == page.read_text(encoding="utf-8"), "run: python -m benchmarks.figures"


def test_every_section_has_its_figures() -> None:
    marked = [page for page in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")) if figures.BEGIN in page.read_text()]
    assert set(marked) == set(figures.SECTIONS)


def test_refreshes_are_compared_run_by_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = json.loads((figures.RESULTS / "demo.json").read_text()) | {"messages": 10}
    bootstrap = {"name": "bootstrap", "every": 2}
    changes = {"config": run["config"] | {"backend": "openfhe", "refresh": bootstrap}, "messages": 1, "psnr_db": None}
    (tmp_path / "refresh-1.json").write_text(json.dumps(run))
    (tmp_path / "refresh-2.json").write_text(json.dumps(run | changes))
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    text = figures.no_round_trip()
    header, rule, first, second = (line for line in text.splitlines() if line.startswith("|"))
    assert len({line.count("|") for line in (header, rule, first, second)}) == 1
    assert first.startswith("| `tenseal` | `client` | 10 | 16 | 10 | 16384 | 420 |")
    assert second.startswith("| `openfhe` | `bootstrap`, every 2 steps | 10 | 16 | 1 | 16384 | 420 |")
    assert second.endswith("| equal |")
    assert "hefw generate --labels 0-9,0-5 --steps 10 --seed 0 --backend openfhe" in text
    assert "--refresh bootstrap --every 2" in text
    assert "--out" not in text
