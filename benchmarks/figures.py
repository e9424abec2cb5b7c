"""The measured figures of README and docs, written from the results files in this folder.

    python -m benchmarks.figures          # rewrites the sections between the markers
    python -m benchmarks.figures --check  # exit code 1 if one is not what the files say

Those of the README are `demo.json` and `demo-40db.json` (run.json of `make demo`, and of the same at --precision-db
40), `quality.json` (`hefw quality`, by the command in it), `sweep.json` (the same over numbers of steps), `step.json`
(`python -m benchmarks.step`), and in short those of the guides: docs/how-to/no-round-trip.md has `refresh-*.json`,
run.json of one run each, in the order of their names, docs/how-to/install-backends.md `backends.json` (`python -m
benchmarks.backends`), docs/reproduction.md `update.json` and `generation.json` (`python -m benchmarks.update` and
`python -m benchmarks.generation`), docs/benchmarks.md `peers.json`, `peers-avx512.json`, `step.json`, `threads.json`
and `suite.json` (`python -m benchmarks.peers`, `python -m benchmarks.step`, `python -m benchmarks.threads` and
`python -m benchmarks.runs --publish` after `make bench`),
docs/explanation/threat-model.md `audit-*.json` (`python -m benchmarks.audits`), docs/reference/models.md
`models.json`, `models/NAME.json` and `compiled.json` (`python -m benchmarks.models`, `hefw quality` and `python -m
benchmarks.compiled`), and docs/explanation/design-a-unet.md `design.json` (`python -m benchmarks.design`) and
`sweep.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.audit_figures import threat_model
from benchmarks.compiled_figures import compiled
from benchmarks.design_figures import design
from benchmarks.model_figures import models
from benchmarks.peer_figures import benchmarks
from hefw.config import Config
from hefw.quality.page import figure, share
from hefw.quality.record import QualityRecord
from hefw.report.words import duration, size

RESULTS = Path(__file__).with_name("results")
ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


def readme() -> str:
    """The section of the README."""
    demo, coarse, step, backends = map(_read, ("demo", "demo-40db", "step", "backends"))
    params, machine = demo["params"], demo["machine"]
    counts = [run["params"]["fresh_level"] + 1 for run in (coarse, demo)]
    primes = f"both have {counts[0]}" if counts[0] == counts[1] else f"{counts[0]} instead of {counts[1]}"
    rows = [
        ("whole run, from configuration to decrypted pictures", f"{demo['seconds']['total']:.0f} s"),
        ("evaluation of ten steps", f"{demo['seconds']['evaluate']:.1f} s"),
        ("evaluation, an image and step", f"{demo['seconds_per_image_step']:.3f} s"),
        ("PSNR against plaintext, same seed (data range 2)", f"{demo['psnr_db']:.0f} dB"),
        ("largest error of a pixel (black -1, white 1)", f"{demo['max_abs_error']:.1e}"),
        ("evaluation keys, sent once", f"{demo['bytes']['evaluation_keys'] / 1e6:.0f} MB"),
        (
            "upload and download, a step of 16 images",
            f"{demo['bytes']['upload_per_step'] / 1e3:.0f} kB, {demo['bytes']['download_per_step'] / 1e3:.0f} kB",
        ),
        ("peak memory, both processes", f"{demo['peak_rss_bytes'] / 1e9:.1f} GB"),
        ("latents and labels that the server saw in plaintext", _share(demo)),
    ]
    lines = [
        f"`make demo` ({len(demo['labels'])} images, {demo['config']['steps']} steps, backend "
        f"`{demo['config']['backend']}`, N = {params['ring_dimension']}, log2(QP) = {params['log_qp']:.0f}, "
        f"{params['security_bits']}-bit security) on {machine['cores']} cores of an {machine['cpu']}:",
        "",
        "| what | value |",
        "| --- | --- |",
        *(f"| {what} | {value} |" for what, value in rows),
        "",
        f"Asked for 40 dB instead of 60, the same takes {coarse['seconds']['evaluate']:.1f} s of evaluation and "
        f"{coarse['bytes']['evaluation_keys'] / 1e6:.0f} MB of keys, and reaches {coarse['psnr_db']:.0f} dB with a "
        f"largest error of {coarse['max_abs_error']:.1e}. Levels come in whole primes: {primes}.",
        "",
        _quality(),
        "",
        *_sweep(),
        "",
        f"`python -m benchmarks.step`, {step['what']}: a raw loop that evaluates each matrix by itself and rescales "
        f"after every layer takes {step['speedup_over_raw_loop']:.1f} times as long as hefw; hefw's own transforms "
        f"with a rescale after every layer take {step['speedup_over_plain_chain']:.1f} times as long. hefw adds "
        f"{step['framework_overhead']:.1%} to a flat loop of the very calls that it makes, to the library and "
        "to loops on its memory.",
        "",
        f"The same digits by other libraries, {backends['what']}: evaluation takes "
        + ", ".join(f"{row['evaluation_over_tenseal']:.2f} ({row['backend']})" for row in backends["rows"][1:])
        + " times as long as by tenseal; the pictures differ by at most "
        f"{backends['largest_grey_difference']} of 255 grey levels. "
        "[How to install backends](docs/how-to/install-backends.md) has the table.",
        "",
        "All steps of 16 digits [from one message](docs/how-to/no-round-trip.md), 128 bits:",
        "",
        "| backend | refresh | steps | whole run | peak memory | PSNR |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| `{run['config']['backend']}` | `{Config(**run['config']).refresh.name}` | {run['config']['steps']} | "
            f"{duration(run['seconds']['total'])} | {size(run['peak_rss_bytes'])} | {run['psnr_db']:.0f} dB |"
            for run in _refreshes()
        ),
    ]
    return "\n".join(lines)


def _quality() -> str:
    """How good the pictures of `digits` are."""
    record = QualityRecord.model_validate(_read("quality"))
    twin, encrypted = record.of("twin"), record.of("encrypted")
    assert twin is not None
    assert twin.accuracy is not None
    assert encrypted is not None
    assert encrypted.twin is not None
    floor = "" if record.reference.held_out else ", which are among those that are compared with,"
    return (
        f"`{record.command}`: of {twin.pictures} plaintext samples of {twin.steps} steps, {twin.accuracy.value:.1%} "
        f"are classified as their label. Fréchet distance to the real digits in {record.feature_space}: "
        f"{figure(twin.distance)}, that of as many real ones{floor} {figure(twin.floor)}, with 95 % intervals. Of "
        f"{encrypted.pictures} encrypted samples, {encrypted.twin.label_agreement} are classified like their plaintext "
        f"twins; PSNR {encrypted.twin.psnr_db:.0f} dB, {encrypted.twin.lowest_psnr_db:.0f} dB for the worst one."
    )


def _sweep() -> list[str]:
    """`digits` over numbers of steps."""
    record = QualityRecord.model_validate(_read("sweep"))
    twins = [item for item in record.sets if item.kind == "twin"]
    return [
        f"`{record.command}`, {twins[0].pictures:,} plaintext samples each:",
        "",
        "| steps | classified as their label | Fréchet distance | largest pre-activation | diverged |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {item.steps} | {share(item.accuracy)} | {figure(item.distance)} | "
            f"{item.ranges.largest:.1f} | {item.diverged} |"
            for item in twins
            if item.ranges is not None and item.ranges.largest is not None
        ),
    ]


def no_round_trip() -> str:
    """The section of the guide to refreshes: a row for each run, and the commands that repeat them."""
    runs = _refreshes()
    if not runs:
        return "No run has been measured here yet."
    machines = dict.fromkeys(f"{run['machine']['cores']} cores of an {run['machine']['cpu']}" for run in runs)
    lines = [
        f"On {' and on '.join(machines)}:",
        "",
        "| backend | refresh | steps | images | messages | N | log2(QP) | evaluation, an image and step | whole run | "
        "evaluation keys | sent both ways, a batch | peak memory | PSNR |",
        "| --- " * 13 + "|",
        *map(_refresh_row, runs),
        "",
        "```bash",
        *(Config(**{key: value for key, value in run["config"].items() if key != "out"}).command() for run in runs),
        "```",
    ]
    return "\n".join(lines)


def backends() -> str:
    """The section of the guide to backends: what one configuration costs on each."""
    found = _read("backends")
    machine = found["machine"]
    lines = [
        f"{found['what']}, 128-bit security, on {machine['cores']} cores of an {machine['cpu']}. Their pictures differ "
        f"by at most {found['largest_grey_difference']} of 255 grey levels.",
        "",
        "| backend | evaluation | over tenseal | whole run | over tenseal | log2(QP) | evaluation keys | peak memory | "
        "largest error |",
        "| --- " * 9 + "|",
    ]
    for row in found["rows"]:
        cells = [
            row["backend"],
            duration(row["seconds"]["evaluate"]),
            f"{row['evaluation_over_tenseal']:.2f}",
            duration(row["seconds"]["total"]),
            f"{row['whole_over_tenseal']:.2f}",
            f"{row['params']['log_qp']:.0f}",
            size(row["evaluation_keys"]),
            size(row["peak_rss_bytes"]),
            f"{row['max_abs_error']:.1e}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def reproduction() -> str:
    """The section of the page on the paper's claims: each with a figure, and tables of all ways."""
    steps, pictures = _read("update"), _read("generation")
    rows = {row["way"]: row for row in steps["rows"]}
    full, sparse = rows["published full"], rows["published sparse"]
    ours = [row for row in steps["rows"] if row["way"].startswith("hefw full")]
    drawn = {row["way"]: row for row in pictures["rows"]}
    one_step, whole = "`python -m benchmarks.update`", "`python -m benchmarks.generation`"
    count = pictures["steps"]
    claims = [
        (
            "500 times",
            f"published sparse is {_times(sparse, full)} times as fast as published full, a step"
            + "".join(f"; {row['way']}: {_times(row, full)} times" for row in ours),
            one_step,
        ),
        (
            "minutes",
            f"{count} published steps: full {duration(count * full['median_seconds'])}, sparse "
            f"{duration(count * sparse['median_seconds'])}",
            one_step,
        ),
        (
            "minutes",
            "a picture without the time of its networks: "
            + "; ".join(f"{row['way']}: {duration(drawn[row['way']]['seconds'])}" for row in ours),
            whole,
        ),
        (
            "on par with plaintext",
            f"largest error of a step: published sparse {sparse['max_abs_error']:.1e}"
            + "".join(f"; {row['way']}: {row['max_abs_error']:.1e}" for row in ours),
            one_step,
        ),
        (
            "on par with plaintext",
            "pictures against the same pipeline without encryption: "
            + "; ".join(f"{row['way']}: {drawn[row['way']]['psnr_db']:.0f} dB" for row in ours),
            whole,
        ),
    ]
    return "\n".join(
        [
            "| claim | here | command |",
            "| --- | --- | --- |",
            *(f"| {' | '.join(claim)} |" for claim in claims),
            "",
            *_steps_table(steps, full, sparse),
            "",
            *_pictures_table(pictures),
        ]
    )


def _steps_table(found: dict[str, Any], full: dict[str, Any], sparse: dict[str, Any]) -> list[str]:
    parts = list(sparse["median_seconds_by_part"])
    lines = [
        f"{found['what']}: medians of {len(sparse['seconds'])} steps on one core of an {found['machine']['cpu']}, "
        f"TenSEAL {found['versions']['tenseal']}. Published full and partial: medians of {len(full['seconds'])} steps, "
        f"extrapolated from {full['measured_entries']:,} entries. Min-distortion selects "
        f"{sparse['encrypted_entries'] / full['encrypted_entries']:.1%} of the entries.",
        "",
        "| way | encrypted entries | ciphertexts | a step | fastest | times as fast as published full | as published "
        "sparse | largest error |",
        "| --- " * 8 + "|",
    ]
    for row in found["rows"]:
        cells = [
            row["way"] + (", extrapolated" if row["extrapolated"] else ""),
            f"{row['encrypted_entries']:,.0f}",
            f"{row['ciphertexts']:,.0f}",
            duration(row["median_seconds"]),
            duration(row["fastest_seconds"]),
            _times(row, full),
            _times(row, sparse),
            f"{row['max_abs_error']:.1e}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"| way | {' | '.join(parts)} |", "| --- " * (1 + len(parts)) + "|"]
    for row in found["rows"]:
        times = (duration(row["median_seconds_by_part"][part]) for part in parts)
        lines.append(f"| {row['way']} | {' | '.join(times)} |")
    return lines


def _pictures_table(found: dict[str, Any]) -> list[str]:
    plain, *ways = found["rows"]
    return [
        f"{found['what']}: medians of {found['rounds']} pictures on one core of an {found['machine']['cpu']}. The "
        f"pipeline without encryption takes {duration(plain['seconds'])}.",
        "",
        "| way | a picture | the first, with server and keys | largest error of a latent | PSNR |",
        "| --- " * 5 + "|",
        *(
            f"| {row['way']} | {duration(row['seconds'])} | {duration(row['first_seconds'])} | "
            f"{row['max_abs_error']:.1e} | {row['psnr_db']:.0f} dB |"
            for row in ways
        ),
    ]


#: What writes the section of each page.
SECTIONS: Mapping[Path, Callable[[], str]] = {
    ROOT / "README.md": readme,
    ROOT / "docs" / "how-to" / "no-round-trip.md": no_round_trip,
    ROOT / "docs" / "how-to" / "install-backends.md": backends,
    ROOT / "docs" / "benchmarks.md": lambda: benchmarks(RESULTS),
    ROOT / "docs" / "reproduction.md": reproduction,
    ROOT / "docs" / "reference" / "models.md": lambda: f"{models(RESULTS)}\n\n{compiled(RESULTS)}",
    ROOT / "docs" / "explanation" / "threat-model.md": lambda: threat_model(RESULTS),
    ROOT / "docs" / "explanation" / "design-a-unet.md": lambda: design(RESULTS),
}


def filled(page: Path) -> str:
    """The text of a page with its section replaced."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{SECTIONS[page]()}\n\n{END}{after}"


def main() -> int:
    """Rewrite or check the pages."""
    wanted = {page: filled(page) for page in SECTIONS}
    if "--check" in sys.argv[1:]:
        return int(any(page.read_text(encoding="utf-8") != text for page, text in wanted.items()))
    for page, text in wanted.items():
        page.write_text(text, encoding="utf-8")
    return 0


def _refresh_row(run: dict[str, Any]) -> str:
    config, params, sizes = Config(**run["config"]), run["params"], run["bytes"]
    every = "" if config.refresh.every == 1 else f", every {config.refresh.every} steps"
    cells = [
        f"`{config.backend.name}`" + (" SIMULATED" if run["simulated"] else ""),
        f"`{config.refresh.name}`{every}" + (" INSECURE" if run["insecure"] else ""),
        config.steps,
        len(run["labels"]),
        run["messages"],
        params["ring_dimension"],
        f"{params['log_qp']:.0f}",
        duration(run["seconds_per_image_step"]),
        duration(run["seconds"]["total"]),
        size(sizes["evaluation_keys"]),
        size(run["messages"] * (sizes["upload_per_step"] + sizes["download_per_step"])),
        size(run["peak_rss_bytes"]),
        "equal" if run["psnr_db"] is None else f"{run['psnr_db']:.0f} dB",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _refreshes() -> list[dict[str, Any]]:
    return [dict(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(RESULTS.glob("refresh-*.json"))]


def _read(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))


def _times(row: dict[str, Any], baseline: dict[str, Any]) -> str:
    """How many times as long the baseline of the same run takes, of medians, to three digits."""
    times = row["times_faster"][baseline["way"]]["median"]
    whole = f"{float(f'{max(times, 1 / times):.3g}'):,g}"
    return whole if times >= 1 else f"1/{whole}"


def _share(run: dict[str, Any]) -> str:
    return f"{run['ledger']['server_plaintext_fraction']:.0%}"


if __name__ == "__main__":
    sys.exit(main())
