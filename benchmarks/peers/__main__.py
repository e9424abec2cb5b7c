"""hefw beside its peers: the same networks on ciphertext, one thread each, in one run.

    python -m venv peers
    peers/bin/pip install --upgrade pip && peers/bin/pip install --group peers
    python -m benchmarks.peers --orion peers/bin/python     # an hour; writes results/peers.json
    python -m benchmarks.peers --orion peers/bin/python --only "hefw, 1 image"    # these rows anew

Every contender has a process of its own. Orion is ready all the time: it evaluates once before each evaluation of
another contender, so that both meet the same machine, and every ratio is that of processor seconds, by pairs, of which
the median is taken. Rows that are already in the file stay, unless they are named.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import digits
from benchmarks.peers.nets import STACKS
from benchmarks.peers.process import Run, Worker
from hefw.core.files import write_atomically
from hefw.record import machine_info, versions_info

RESULTS = Path(__file__).parents[1] / "results" / "peers.json"
PRECISION_DB = 60.0  # of a data range of 2: an rms error of 2e-3
COARSE_DB = 52.0  # 5e-3
BASELINE = "orion"
DIGITS = "digits, one step"
FIRST = next(iter(STACKS))


@dataclass(frozen=True)
class Case:
    """A contender on a network: its program's arguments, and how often it evaluates; with `orion`, under Orion's."""

    name: str
    network: str
    arguments: tuple[str, ...]
    rounds: int
    orion: bool = False


def cases(rounds: int, openfhe: bool) -> list[Case]:
    """All contenders but the baseline, network by network."""
    return list(_cases(rounds, openfhe))


def _cases(rounds: int, openfhe: bool) -> Iterator[Case]:
    for network in (*STACKS, DIGITS):
        yield from _orions(network, rounds)
        yield from _ours("tenseal", network, (1, 32, 1024, 8192) if network == FIRST else (1, 32), rounds)
        if openfhe:
            yield from _ours("openfhe", network, (1, 32), rounds)
        if network == FIRST:
            name = "TenSEAL CKKSVector.matmul, one convolution"
            yield Case(name, network, ("benchmarks.peers.vectors", network), 1)
        if network == DIGITS:
            for way in ("full", "sparse"):
                name = f"HE-Diffusion as published, {way}, update only"
                yield Case(name, network, ("benchmarks.peers.paper", way), rounds)


def _orions(network: str, rounds: int) -> Iterator[Case]:
    """Orion with another number of primes for key switching than the baseline's two."""
    if network == FIRST:
        for primes in (1, 3):
            arguments = ("benchmarks.peers.orion", str(primes), network)
            yield Case(f"orion, {primes} special primes", network, arguments, rounds, orion=True)


def _ours(backend: str, network: str, counts: Sequence[int], rounds: int) -> Iterator[Case]:
    for images in counts:
        precision = COARSE_DB if images == 1024 else PRECISION_DB
        name = f"hefw, {images:,} image{'s' if images > 1 else ''}" + ("" if backend == "tenseal" else f", {backend}")
        arguments = ("benchmarks.peers.ours", backend, _given(network), str(images), str(precision))
        yield Case(name, network, arguments, rounds)


def _given(network: str) -> str:
    return "digits" if network == DIGITS else network


def measure(network: str, found: Sequence[Case], orion: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of one network: the baseline's, and one for each case."""
    given = network
    if network == DIGITS:
        given = str(folder / "digits.npz")
        digits.write(Path(given))
    command = [orion, "-m", "benchmarks.peers.orion", "2", given]
    with Worker(command) as baseline:
        ready = baseline.ready()
        baseline.run()  # the first time is slower
        paces: list[Run] = []
        for case in found:
            row = _contend(case, baseline, orion, ready, paces)
            yield row
        ended = baseline.end()
    yield _row(BASELINE, network, ready | ended, paces, [run.processor_seconds for run in paces])


def _contend(case: Case, baseline: Worker, orion: str, ready: dict[str, Any], paces: list[Run]) -> dict[str, Any]:
    command = [orion if case.orion else sys.executable, "-m", *case.arguments]
    with Worker(command) as worker:
        figures = worker.ready()
        digest = figures.get("digest", ready["digest"])
        assert digest == ready["digest"], f"{case.name} has another network: {digest}"
        if case.rounds > 1:
            worker.run()  # the first time is slower
        runs, own = [], []
        for _ in range(case.rounds):
            own.append(baseline.run())
            runs.append(worker.run())
        figures |= worker.end()
    paces += own
    return _row(case.name, case.network, figures, runs, [run.processor_seconds for run in own])


def _row(
    name: str, network: str, figures: dict[str, Any], runs: Sequence[Run], baseline: list[float]
) -> dict[str, Any]:
    """`baseline`: processor seconds of Orion's one image, just before each run."""
    images = figures["images"]
    ratios = [images * pace / run.processor_seconds for pace, run in zip(baseline, runs, strict=True)]
    return {
        "name": name,
        "network": network,
        "seconds": statistics.median(run.seconds for run in runs),
        "processor_seconds": statistics.median(run.processor_seconds for run in runs),
        "seconds_per_image": statistics.median(run.seconds for run in runs) / images,
        "processor_seconds_per_image": statistics.median(run.processor_seconds for run in runs) / images,
        "times_faster_than_orion": statistics.median(ratios),
        "times_faster_by_round": ratios,
        "memory_bytes": max(run.memory_bytes for run in runs),
        **figures,
        "runs": [asdict(run) for run in runs],
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """Measure, and put each row into the file as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orion", required=True, metavar="PYTHON", help="an interpreter that has Orion v2 installed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--openfhe", action="store_true", help="hefw on OpenFHE as well (hefw backends install openfhe)"
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="a row to measure anew")
    parser.add_argument("--network", choices=(*STACKS, DIGITS), help="of this network only")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    if given.out.exists():
        rows = {(row["network"], row["name"]): row for row in json.loads(given.out.read_text(encoding="utf-8"))["rows"]}
    every = cases(given.rounds, given.openfhe)
    chosen = [
        case for case in every if given.network in (None, case.network) and (not given.only or case.name in given.only)
    ]
    if not chosen:
        parser.error(f"--only {given.only}: no such row; there are {', '.join(sorted({case.name for case in every}))}")
    with tempfile.TemporaryDirectory() as folder:
        for network in dict.fromkeys(case.network for case in chosen):
            some = [case for case in chosen if case.network == network]
            for row in measure(network, some, given.orion, Path(folder)):
                rows[network, row["name"]] = row
                print(
                    f"{row['name']}: {row['seconds_per_image']:.4f} s an image, "
                    f"{row['times_faster_than_orion']:.1f} times as fast as Orion, rms error {row['rms_error']:.1e}",
                    file=sys.stderr,
                )
                _write(given.out, rows, given.rounds)


def _write(path: Path, rows: dict[tuple[str, str], dict[str, Any]], rounds: int) -> None:
    order = [(network, name) for network in (*STACKS, DIGITS) for name in _names(network)]
    result = {
        "what": "networks on ciphertext at N = 2^14 and 128 bits, one thread, ratios of processor seconds",
        "command": f"python -m benchmarks.peers --orion PYTHON --rounds {rounds} --openfhe",
        "machine": machine_info().model_dump(),
        "versions": versions_info(("hefw", "tenseal", "numpy", "torch")),
        "rows": [rows[key] for key in order if key in rows],
    }
    write_atomically(path, (json.dumps(result, indent=2) + "\n").encode())


def _names(network: str) -> list[str]:
    return [BASELINE, *(case.name for case in cases(1, openfhe=True) if case.network == network)]


if __name__ == "__main__":
    main()
