"""A profile as tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from hefw.profiling.record import Error, Profile
from hefw.record import INSECURE, SIMULATED

#: Columns of operations by region, and what an evaluator counts them as.
COUNTED = {"rotations": "rotate", "products": "mul_plain", "squares": "mul", "rescales": "rescale"}
WIDTH = 140  # where there is no terminal


def show(profile: Profile, console: Console) -> None:
    """Regions, operations, and what lies around them."""
    console.print("\n".join(_head(profile)), highlight=False, soft_wrap=True)
    console.print(_regions(profile))
    console.print(_operations(profile))
    console.print("\n".join(_foot(profile)), highlight=False, soft_wrap=True)


def _head(profile: Profile) -> Iterator[str]:
    if profile.simulated:
        yield SIMULATED
    if profile.insecure:
        yield INSECURE
    yield (
        f"{profile.model} on {profile.library}: N = {profile.ring_dimension}, log2(QP) = {profile.log_qp:g}, "
        f"{profile.images} images, {profile.messages} of {profile.of_messages} messages"
    )
    yield (
        "Both parties in one process, which decrypts every region: a diagnosis, in which nothing is private. Times are "
        "of one message; a region that is marked once is computed once a request."
    )


def _regions(profile: Profile) -> Table:
    counted = list(COUNTED)
    table = _table(["region", "kind", "level", "scale", "ms", "share", *counted, "rms error", "forecast", "largest"], 2)
    whole = profile.step_seconds or 1.0
    for row in profile.regions:
        counts = [f"{row.counts.get(COUNTED[name], 0):,.6g}" for name in counted]
        table.add_row(
            row.name,
            row.kind,
            str(row.level),
            f"2^{row.scale_bits:.1f}",
            f"{1e3 * row.seconds:,.1f}",
            f"{row.seconds / whole:.0%}",
            *counts,
            _error(row.noise),
            _error(row.forecast),
            f"{row.largest:.2g}" if row.noise else "",
        )
    return table


def _operations(profile: Profile) -> Table:
    table = _table(["operation", "calls", "ms in all", "share", "ms each"], 1)
    whole = sum(row.seconds for row in profile.operations) or 1.0
    for row in profile.operations:
        table.add_row(
            row.name,
            f"{row.calls:,}",
            f"{1e3 * row.seconds:,.1f}",
            f"{row.seconds / whole:.0%}",
            f"{1e3 * row.seconds / row.calls:,.3f}",
        )
    return table


def _foot(profile: Profile) -> Iterator[str]:
    yield "around them: " + ", ".join(f"{name} {seconds:,.2f} s" for name, seconds in profile.seconds.items())
    measured = "exact" if profile.psnr_db is None else f"{profile.psnr_db:.1f} dB in the worst message"
    yield f"results against plaintext: {measured}; the plan's forecast after all steps: {profile.forecast_db:.1f} dB"
    yield (
        f"noting {len(profile.events):,} operations took about {profile.overhead:.3f} s of these times: they are for "
        "comparing parts, not for a claim of speed"
    )


def _table(columns: Sequence[str], texts: int) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < texts else "right", no_wrap=True)
    return table


def _error(error: Error | None) -> str:
    return "" if error is None else f"{error.rms:.1e}"
