"""The measured part of docs/benchmarks.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hefw.report.words import duration, size

BASELINE = "orion"
#: Why a network's rows must be read with care.
NOTES = {
    "digits, one step": "Orion takes one input, and to one place only: its network lacks the latent's own term in "
    "the scheduler's update, and has a public label's part as constants. hefw's step has both, the label "
    "encrypted. The published ways run the network in plaintext, which is not counted, and encrypt the update alone.",
}


def benchmarks(results: Path) -> str:
    """All tables, and the machine."""
    peers, step = _read(results / "peers.json"), _read(results / "step.json")
    machine, versions = peers["machine"], peers["versions"]
    baseline = next(row for row in peers["rows"] if row["name"] == BASELINE)
    own = {f"{name} (Orion's)" if name in versions else name: version for name, version in baseline["versions"].items()}
    named = versions | own
    loads = [row["load"] for row in peers["rows"]]
    lines = [
        "### The machine",
        "",
        f"{machine['cores']} cores of an {machine['cpu']}, {size(machine['memory_bytes'])} of memory, "
        f"{machine['platform']}, Python {machine['python']}. "
        + ", ".join(f"{name} {version}" for name, version in sorted(named.items()))
        + f". The machine was shared: between {min(loads):.1f} and {max(loads):.1f} processes wanted its cores while "
        "peers were measured, so times are those of the processor.",
        "",
        "### Peers",
        "",
        f"{peers['what'][0].upper()}{peers['what'][1:]}. `{peers['command']}`",
    ]
    for network in dict.fromkeys(row["network"] for row in peers["rows"]):
        lines += ["", *_network(network, [row for row in peers["rows"] if row["network"] == network])]
    lines += ["", *_wide(_read(results / "peers-avx512.json"))]
    lines += [
        "",
        "### What the framework adds",
        "",
        f"`python -m benchmarks.step`, {step['what']}: hefw adds {step['framework_overhead']:.1%} to the very calls "
        "that it makes, to the library and to loops on its memory, repeated in a flat loop. A raw loop that evaluates "
        "each matrix by itself and rescales after every layer takes "
        f"{step['speedup_over_raw_loop']:.1f} times as long as hefw.",
    ]
    threads = results / "threads.json"
    if threads.exists():
        lines += ["", *_threads(_read(threads))]
    suite = results / "suite.json"
    if suite.exists():
        lines += ["", *_suite(_read(suite))]
    return "\n".join(lines)


def _wide(peers: Mapping[str, Any]) -> list[str]:
    """The peers on a machine of another kind."""
    lines = [
        "### With AVX-512",
        "",
        f"The same by an earlier version of hefw on another machine, {peers['machine']['cores']} cores of an "
        f"{peers['machine']['cpu']} with AVX-512 IFMA.",
    ]
    for network in dict.fromkeys(row["network"] for row in peers["rows"]):
        lines += ["", *_network(network, [row for row in peers["rows"] if row["network"] == network])]
    return lines


def _libraries(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How much longer OpenFHE takes than SEAL."""
    seconds = {row["name"]: row["processor_seconds"] for row in rows}
    pairs = {name: other for name in seconds if (other := f"{name}, openfhe") in seconds}
    if not pairs:
        return []
    found = [
        f"{seconds[other] / seconds[name]:.2f} times for {name.removeprefix('hefw, ')}" for name, other in pairs.items()
    ]
    return ["", f"By `openfhe` a request takes {' and '.join(found)} as long as by `tenseal`."]


def _network(network: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    baseline = next(row for row in rows if row["name"] == BASELINE)
    lines = [
        f"#### {network}",
        "",
        "| what | images a request | a request | an image | times as fast as Orion | keys as sent | of Orion's | "
        "memory | rms error | largest error | rms of the result |",
        "| --- " * 11 + "|",
    ]
    for row in rows:
        cells = [
            row["name"],
            f"{row['images']:,}",
            duration(row["processor_seconds"]),
            duration(row["processor_seconds_per_image"]),
            f"{row['times_faster_than_orion']:.3g}",
            size(row["keys_bytes"]) if row["keys_bytes"] else "none",
            f"{row['keys_bytes'] / baseline['keys_bytes']:.3f}" if row["keys_bytes"] else "",
            size(row["memory_bytes"]),
            f"{row['rms_error']:.1e}",
            f"{row['max_abs_error']:.1e}",
            f"{row['rms_output']:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, *_libraries(rows), *(["", NOTES[network]] if network in NOTES else [])]


def _threads(found: Mapping[str, Any]) -> list[str]:
    """What docs/benchmarks.md says of it."""
    threads = found["threads"]
    rows = [
        f"| {row['network']}, {row['images']} image{'s' if row['images'] > 1 else ''} | "
        f"{row['least_seconds']['1']:.3f} s | {row['least_seconds'][str(threads)]:.3f} s | "
        f"{row['times_faster_at_best']:.2f} | {row['times_faster']:.2f} |"
        for row in found["rows"]
    ]
    return [
        "### Several threads",
        "",
        f"`python -m benchmarks.threads`, {found['what']}, {found['rounds']} rounds by turns, on "
        f"{found['machine']['cores']} cores of an {found['machine']['cpu']}: the fastest of each, how many times "
        "faster that is, and the median over rounds.",
        "",
        f"| network | one thread | {threads} threads | times faster | median |",
        "| --- | --- | --- | --- | --- |",
        *rows,
    ]


def _suite(suite: Mapping[str, Any]) -> list[str]:
    """The primitives of every backend."""
    lines = [
        "### Primitives",
        "",
        f"{suite['what']}. `{suite['command']}`",
        "",
        "| what | " + " | ".join(suite["columns"]) + " |",
        "| --- " * (1 + len(suite["columns"])) + "|",
    ]
    for name, values in suite["rows"].items():
        cells = ["" if value is None else duration(value) for value in values]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))
