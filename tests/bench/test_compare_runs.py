"""`hefw compare` as it is run: killed and resumed, limits, failures, folders that hold something else; and its page.

Toy models on a small insecure ring, on three backends; every cell in a process of its own.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pyarrow.parquet
import pytest
from compare_browser import Browser, browser  # noqa: F401 (a fixture)
from compare_toys import MATRIX, ONCE, environment, hefw, start
from processes import gone

from hefw.bench.record import SCHEMA_PATH, ComparisonRecord, schema_text

PATIENCE = 120.0  # seconds, for what takes a few: a failed test, not a hang
SMALL = """
model: toy
scheduler: toy
steps: 1
labels: 0-2
allow_insecure: true
params: {ring_dimension: 4096}
reports: false
"""


@dataclass(frozen=True)
class Resumed:
    """24 cells, killed half-way and resumed."""

    folder: Path
    variables: dict[str, str]
    said: str  # by the resumed run
    before: dict[str, str]  # what was measured before the kill: text by file name
    killed: list[int]  # ids of all processes of the killed run
    planned: list[str]  # cells by name, as listed without measuring

    @property
    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "out" / "results.json").read_text())
        return found


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    folder = tmp_path_factory.mktemp("resumed")
    variables = environment(folder / "toys")
    (folder / "matrix.yaml").write_text(MATRIX)
    code, listed, _ = hefw(["compare", "matrix.yaml", "--dry-run"], folder, variables)
    assert code == 0
    assert not (folder / "hefw-compare").exists()
    process = start(["compare", "matrix.yaml", "--out", "out"], folder, variables)
    runs = folder / "out" / "runs"
    while not (runs.is_dir() and len(list(runs.glob("*.json"))) >= 12):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    processes = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    ended = [gone(pid) for pid in processes]
    assert all(ended)
    before = {path.name: path.read_text() for path in runs.glob("*.json")}
    code, _, said = hefw(["compare", "matrix.yaml", "--out", "out"], folder, variables)
    assert code == 0, said
    planned = [line.partition(" ")[2] for line in listed.splitlines()]
    return Resumed(folder, variables, said, before, processes, planned)


# -- killed and resumed ------------------------------------------------------------------------------------------------


def test_a_killed_comparison_ends_with_all_its_cells(resumed: Resumed) -> None:
    cells = resumed.record["cells"]
    assert [cell["name"] for cell in cells] == resumed.planned
    assert len({cell["digest"] for cell in cells}) == 24
    assert {cell["outcome"] for cell in cells} == {"measured"}
    assert [len(cell["runs"]) for cell in cells] == [1] * 24


def test_nothing_is_measured_twice(resumed: Resumed) -> None:
    assert 12 <= len(resumed.before) < 24
    runs = resumed.folder / "out" / "runs"
    assert {name: (runs / name).read_text() for name in resumed.before} == resumed.before
    assert len(list(runs.iterdir())) == 24
    assert f"{len(resumed.before)} of 24 are measured already" in resumed.said
    measured = re.findall(r"^  measured, ", resumed.said, re.M)
    assert len(measured) == 24 - len(resumed.before)


def test_a_third_time_measures_nothing(resumed: Resumed) -> None:
    code, out, said = hefw(["compare", "matrix.yaml", "--out", "out", "--json"], resumed.folder, resumed.variables)
    assert code == 0
    assert "24 of 24 are measured already" in said
    assert "  measured" not in said
    found = ComparisonRecord.model_validate_json(out)
    assert [cell.model_dump(mode="json") for cell in found.cells] == resumed.record["cells"]


# -- files -------------------------------------------------------------------------------------------------------------


def test_results_json_keeps_to_the_committed_schema(resumed: Resumed) -> None:
    schema = json.loads(SCHEMA_PATH.read_text())
    assert SCHEMA_PATH.read_text() == schema_text(), "run: python -m hefw.bench.record"
    jsonschema.validate(resumed.record, schema)


def test_tables_have_a_row_a_cell_with_the_same_figures(resumed: Resumed) -> None:
    out = resumed.folder / "out"
    with open(out / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    table = pyarrow.parquet.read_table(out / "results.parquet").to_pylist()
    assert len(rows) == len(table) == 24
    assert list(rows[0]) == list(table[0])
    for row, same, cell in zip(rows, table, resumed.record["cells"], strict=True):
        figures = cell["figures"]
        assert int(row["cell"]) == same["cell"] == cell["number"]
        assert float(row["seconds_median"]) == same["seconds_median"] == figures["seconds"]["median"]
        assert float(row["peak_memory_bytes_median"]) == same["peak_memory_bytes_median"] > 1e7
        assert int(row["bytes_evaluation_keys"]) == same["bytes_evaluation_keys"] > 0
        assert float(row["shown"]) == same["shown"] == figures["shown"]
        assert int(row["count_rotate"]) == same["count_rotate"] == figures["counts"]["rotate"]
        assert row["command"] == same["command"] == cell["command"]


def test_figures_are_those_of_the_runs(resumed: Resumed) -> None:
    for cell in resumed.record["cells"]:
        run = json.loads((resumed.folder / "out" / "runs" / f"{cell['digest']}-seed0-run0.json").read_text())
        record, figures = run["measured"]["record"], cell["figures"]
        assert figures["seconds"]["median"] == record["seconds"]["total"]
        assert figures["seconds_per_image"]["median"] == pytest.approx(record["seconds"]["total"] / 3)
        assert figures["psnr_db"]["median"] == record["psnr_db"] > 40
        assert figures["simulated"] == (cell["config"]["backend"] != "tenseal")
        assert sum(figures["regions"].values()) == pytest.approx(sum(item["seconds"] for item in record["trace"]))
        assert figures["shown"] == record["ledger"]["server_plaintext_fraction"]
        assert (figures["shown"] > 0) == (cell["config"]["strategy"] != "full")
        assert (figures["accuracy"] is not None) == (cell["config"]["model"] == "toy-judged")
        assert run["peak_memory_bytes"] == figures["peak_memory_bytes"]["median"]
    assert {cell["front"] for cell in resumed.record["cells"]} == {True, False}


def test_the_command_of_a_cell_repeats_it(resumed: Resumed) -> None:
    cell = next(cell for cell in resumed.record["cells"] if cell["config"]["backend"] == "tenseal")
    program, *words = cell["command"].split()
    assert program == "hefw"
    code, out, said = hefw([*words, "--json", "--out", "again"], resumed.folder, resumed.variables)
    assert code == 0, said
    again = json.loads(out)
    assert again["config"] == cell["config"] | {"out": "again"}
    assert again["counts"] == cell["figures"]["counts"]


# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def toys(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    return tmp_path, environment(tmp_path / "toys")


def test_a_damaged_run_is_named_and_nothing_is_changed(resumed: Resumed) -> None:
    runs = resumed.folder / "out" / "runs"
    victim = min(runs.iterdir())
    text = victim.read_text()
    before = {path: path.stat().st_mtime_ns for path in (resumed.folder / "out").rglob("*") if path.name != ".lock"}
    for damage in (text[: len(text) // 2], "", text.replace('"outcome"', '"outcomes"', 1)):
        victim.write_text(damage)
        code, out, said = hefw(["compare", "matrix.yaml", "--out", "out"], resumed.folder, resumed.variables)
        error = said.splitlines()[-1]
        assert (code, out) == (2, "")
        assert error.startswith(f"error: 'out/runs/{victim.name}' is damaged")
        assert "remove it, and it is measured again" in error
        assert victim.read_text() == damage
    victim.write_text(text)
    after = {path: path.stat().st_mtime_ns for path in (resumed.folder / "out").rglob("*") if path.name != ".lock"}
    del before[victim], after[victim]
    assert {path: time for path, time in after.items() if path.is_file()} == {
        path: time for path, time in before.items() if path.is_file()
    }


def test_runs_of_another_machine_are_not_mixed_with(resumed: Resumed) -> None:
    path = resumed.folder / "out" / "comparison.json"
    text = path.read_text()
    other = json.loads(text)
    other["machine"]["cpu"] = "another one"
    path.write_text(json.dumps(other))
    code, _, said = hefw(["compare", "matrix.yaml", "--out", "out"], resumed.folder, resumed.variables)
    path.write_text(text)
    assert code == 2
    assert "of another one; this is hefw" in said.splitlines()[-1]
    assert "name another folder" in said.splitlines()[-1]


def test_a_folder_of_something_else_is_left_alone(toys: tuple[Path, dict[str, str]]) -> None:
    folder, variables = toys
    (folder / "matrix.yaml").write_text(f"{SMALL}backend: simulator\n")
    (folder / "mine").mkdir()
    (folder / "mine" / "report.html").write_text("mine")
    code, _, said = hefw(["compare", "matrix.yaml", "--out", "mine"], folder, variables)
    assert code == 2
    assert "'mine' is no folder of a comparison and holds 'report.html'" in said.splitlines()[-1]
    assert (folder / "mine" / "report.html").read_text() == "mine"


# -- limits, failures, interruptions -----------------------------------------------------------------------------------


def test_cells_that_fail_are_recorded_and_the_others_go_on(toys: tuple[Path, dict[str, str]]) -> None:
    folder, variables = toys
    child = folder / "child"
    (folder / "matrix.yaml").write_text(
        SMALL.replace("model: toy", "models: [toy-stuck, toy-crashing, toy, toy-broken]")
        + "backend: simulator\nrepeats: 2\nlimits: {memory_gb: 0.25}\n"
    )
    code, out, said = hefw(
        ["compare", "matrix.yaml", "--out", "out"], folder, variables | {"HEFW_TEST_CHILD": str(child)}
    )
    assert code == 0, said
    assert "left out: simulator, full, toy-broken: RuntimeError: this toy is broken" in said
    found = json.loads((folder / "out" / "results.json").read_text())
    stuck, crashed, fine = found["cells"]
    assert stuck["outcome"] == "over memory"
    assert "more than the limit of 250 MB" in stuck["reason"]
    assert stuck["runs"][0]["peak_memory_bytes"] > 2.5e8
    assert crashed["outcome"] == "failed"
    assert "ended by signal 9" in crashed["reason"]
    assert "out of luck" in crashed["reason"]
    assert (fine["outcome"], len(fine["runs"])) == ("measured", 2)
    assert stuck["figures"] is crashed["figures"] is None
    assert [len(cell["runs"]) for cell in (stuck, crashed)] == [1, 1]  # what fails is not tried again
    assert [item["reason"] for item in found["impossible"]] == ["RuntimeError: this toy is broken"]
    assert gone(int(child.read_text()))
    assert "1 cell of 3 measured, 2 runs each" in out
    assert "1 failed; 1 passed the limit of memory; 1 combination cannot be" in out
    code, _, said = hefw(["compare", "matrix.yaml", "--out", "out", "--strict"], folder, variables)
    assert code == 2
    assert "1 combinations cannot be, and --strict refuses them" in said.splitlines()[-1]


def test_what_a_backend_makes_once_is_in_no_figure(toys: tuple[Path, dict[str, str]]) -> None:
    folder, variables = toys
    variables |= {"HEFW_TEST_MADE": str(folder / "made")}
    (folder / "matrix.yaml").write_text(f"{SMALL}backends: [toy-slow-once, simulator]\nrepeats: 1\n")
    code, _, said = hefw(["compare", "matrix.yaml", "--out", "out"], folder, variables)
    assert code == 0, said
    assert said.count("trying toy-slow-once first, unmeasured\ntrying simulator first, unmeasured\n1 of 2: ") == 1
    assert (folder / "made").exists()
    for cell in json.loads((folder / "out" / "results.json").read_text())["cells"]:
        assert cell["figures"]["stages"]["keygen"]["median"] < ONCE
        assert cell["figures"]["seconds"]["median"] < ONCE
    code, _, said = hefw(["compare", "matrix.yaml", "--out", "out"], folder, variables)
    assert code == 0, said
    assert "trying" not in said


def test_a_profile_times_the_operations_of_the_server(toys: tuple[Path, dict[str, str]]) -> None:
    folder, variables = toys
    (folder / "matrix.yaml").write_text(f"{SMALL}backend: simulator\nrepeats: 1\nprofile: true\n")
    code, _, said = hefw(["compare", "matrix.yaml", "--out", "out"], folder, variables)
    assert code == 0, said
    (cell,) = json.loads((folder / "out" / "results.json").read_text())["cells"]
    assert cell["profile_reason"] is None
    assert cell["profile"]["messages"] == 1
    operations = cell["profile"]["operations"]
    assert {"rotate", "rescale"} <= set(operations)
    times = [item["seconds"] for item in operations.values()]
    assert times == sorted(times, reverse=True)
    page = (folder / "out" / "report.html").read_text()
    assert "On the server, by operation" in page


def test_time_has_a_limit_and_what_failed_can_be_measured_again(toys: tuple[Path, dict[str, str]]) -> None:
    folder, variables = toys
    matrix = folder / "matrix.yaml"
    text = SMALL.replace("model: toy", "model: toy-stuck") + "backend: simulator\nrepeats: 1\naudit: 2\n"
    matrix.write_text(text + "limits: {seconds: 1}\n")
    code, _, said = hefw(["compare", "matrix.yaml", "--out", "out"], folder, variables)
    assert code == 0, said
    (cell,) = json.loads((folder / "out" / "results.json").read_text())["cells"]
    assert (cell["outcome"], cell["reason"]) == ("over time", "took longer than the limit of 1 s")
    assert cell["audit_reason"]  # a failed audit is no failed cell, and is told of
    code, _, said = hefw(["compare", "matrix.yaml", "--out", "out"], folder, variables)
    assert "2 of 2 are measured already" in said
    matrix.write_text(text + "limits: {seconds: 1.5}\n")
    code, _, said = hefw(["compare", "matrix.yaml", "--out", "out", "--retry"], folder, variables)
    assert "measuring again what failed: 2" in said
    (cell,) = json.loads((folder / "out" / "results.json").read_text())["cells"]
    assert cell["reason"] == "took longer than the limit of 1.5 s"


def test_ctrl_c_ends_the_cell_and_says_how_to_go_on(toys: tuple[Path, dict[str, str]]) -> None:
    folder, variables = toys
    (folder / "matrix.yaml").write_text(SMALL.replace("model: toy", "model: toy-stuck") + "backend: simulator\n")
    child, aside = folder / "child", folder / "aside"
    aside.mkdir()
    variables |= {"HEFW_TEST_CHILD": str(child), "TMPDIR": str(aside)}
    process = start(["compare", "matrix.yaml", "--out", "out"], folder, variables)
    end = time.monotonic() + PATIENCE
    while not (child.exists() and child.read_text()):
        assert time.monotonic() < end
        time.sleep(0.02)
    # meanwhile nobody else may work in this folder
    code, _, said = hefw(["compare", "matrix.yaml", "--out", "out"], folder, variables)
    assert code == 2
    assert f"another hefw compare (process {process.pid}) is at work in 'out'" in said.splitlines()[-1]
    processes = [found.pid for found in psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "what was measured is kept in 'out'; the same command goes on from there" in said
    assert said.endswith("interrupted\n")
    ended = [gone(pid) for pid in [*processes, int(child.read_text())]]
    assert all(ended)
    assert list((folder / "out" / "runs").iterdir()) == []
    assert list(aside.iterdir()) == []


# -- the page ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(browser: Browser, resumed: Resumed) -> Iterator[Any]:  # noqa: F811
    with browser.page(resumed.folder / "out" / "report.html") as opened:
        yield opened


def test_the_page_asks_for_nothing_and_complains_of_nothing(browser: Browser, resumed: Resumed) -> None:  # noqa: F811
    path = resumed.folder / "out" / "report.html"
    for width in (360, 1280):
        for scheme in ("light", "dark"):
            with browser.page(path, width=width, scheme=scheme) as opened:
                assert opened.requests == [path.as_uri()]
                assert opened.complaints == []
                wide, inner = opened.tab.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
                assert wide <= inner == width
    text = path.read_text()
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert len(text) < 8e6


def test_headings_sort_and_say_so(page: Any) -> None:
    tab = page.tab

    def column(heading: str) -> list[str]:
        heads = [text.split("\n")[0] for text in tab.locator("#cells thead th").all_inner_texts()]
        place = heads.index(heading) + 1
        values = tab.locator(f"#cells tbody tr > :nth-child({place})")
        return [item.get_attribute("data-value") or item.inner_text() for item in values.all()]

    assert column("Cell") == [str(number) for number in range(1, 25)]
    button = tab.get_by_role("button", name="Time an image")
    button.focus()
    tab.keyboard.press("Enter")
    times = [float(text) for text in column("Time an image")]
    assert times == sorted(times)
    head = tab.locator("#cells thead th", has=button)
    assert head.get_attribute("aria-sort") == "ascending"
    assert tab.get_by_role("status").inner_text() == "Sorted by Time an image, least first"
    tab.keyboard.press("Enter")
    assert [float(text) for text in column("Time an image")] == sorted(times, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    tab.get_by_role("button", name="Strategy").click()
    assert column("Strategy") == sorted(column("Strategy"))
    assert tab.locator("#cells thead th[aria-sort]").count() == 1


def test_words_and_choices_filter(page: Any, resumed: Resumed) -> None:
    tab, rows = page.tab, page.tab.locator("#cells tbody tr:visible")
    tab.get_by_label("Backend").select_option("tenseal")
    assert rows.count() == 8
    assert tab.get_by_role("status").inner_text() == "8 of 24 cells shown"
    tab.get_by_label("Words").fill("half judged")
    assert rows.count() == 1
    tab.get_by_label("Words").fill("")
    tab.get_by_label("Backend").select_option("")
    tab.get_by_label("on the front only").check()
    assert rows.count() == sum(cell["front"] for cell in resumed.record["cells"])


def test_every_cell_has_its_pictures_its_ledger_and_its_command(page: Any, resumed: Resumed) -> None:
    tab = page.tab
    assert tab.locator(".gallery figure").count() == 24
    for picture in tab.locator("img").all():
        assert picture.get_attribute("alt")
        assert picture.evaluate("image => image.complete && image.naturalWidth > 0")
    tab.get_by_role("link", name="10", exact=True).first.click()
    details = tab.locator("#cell-10")
    details.locator("summary").click()
    assert resumed.record["cells"][9]["command"] in details.inner_text()
    assert "evaluation keys" in details.inner_text().lower()
    assert "latent x_t" in details.inner_text()


def test_the_page_warns_of_what_is_not_encrypted(page: Any) -> None:
    banner = page.tab.get_by_role("alert").inner_text()
    assert banner.startswith("16 cells of 24 SIMULATED")
    assert "INSECURE" in banner


def test_the_page_can_be_read_without_its_script(browser: Browser, resumed: Resumed) -> None:  # noqa: F811
    with browser.page(resumed.folder / "out" / "report.html", script=False) as opened:
        assert opened.tab.locator("#cells tbody tr:visible").count() == 24
        assert not opened.tab.locator("#filter").is_visible()


def test_the_page_has_names_for_what_it_has(page: Any) -> None:
    """What screen readers need: one main heading, a language, headings in order, labels, captions, scopes."""
    tab = page.tab
    assert tab.locator("html").get_attribute("lang") == "en"
    levels = tab.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert tab.evaluate("[...document.querySelectorAll('input, select')].every(e => e.labels.length)")
    assert tab.evaluate("[...document.querySelectorAll('table')].every(t => t.caption && t.caption.textContent.trim())")
    assert tab.evaluate("[...document.querySelectorAll('th')].every(h => h.scope)")
    wide = "[...document.querySelectorAll('.wide')].every(e => e.tabIndex === 0 && e.getAttribute('aria-label'))"
    assert tab.evaluate(wide)
