"""Every measured figure in README and docs comes from a results file in the repository."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from quantities import GIVEN, MEASURED, quantities, said

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
    bits = f"{run['params']['log_qp']:.0f}"
    assert first.startswith(f"| `tenseal` | `client` | 10 | 16 | 10 | 16384 | {bits} |")
    assert second.startswith(f"| `openfhe` | `bootstrap`, every 2 steps | 10 | 16 | 1 | 16384 | {bits} |")
    assert second.endswith("| equal |")
    assert "hefw generate --labels 0-9,0-5 --steps 10 --seed 0 --backend openfhe" in text
    assert "--refresh bootstrap --every 2" in text
    assert "--out" not in text


PAGES = (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_quantities_of_running_text_are_known(page: Path) -> None:
    name = str(page.relative_to(ROOT))
    measured, given = MEASURED.get(name, {}), GIVEN.get(name, {})
    assert quantities(page.read_text(encoding="utf-8")) == measured.keys() | given.keys(), (
        "a measured quantity needs a results file (tests/docs/quantities.py), or a place between the markers"
    )
    for quantity, (file, words) in measured.items():
        assert said(file, words) == quantity, f"{name}: benchmarks/results/{file}.json says {said(file, words)}"


def test_quantities_are_found_outside_of_code_and_generated_sections() -> None:
    block = "```bash\nsleep 5 s\n```\n"
    text = f"It takes 3.5 s and 20 MB, `12 ms` apart.\n{block}{figures.BEGIN}\n7 dB\n{figures.END}\n1 to 2 minutes"
    assert quantities(text) == {"3.5 s", "20 MB", "1 to 2 minutes"}
