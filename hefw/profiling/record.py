"""What a profile holds: `profile.json`, the table and the trace are made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hefw.profiling.timing import Event


@dataclass(frozen=True)
class Error:
    """How far a region's decrypted values were from plaintext: root mean square and largest, over all messages."""

    rms: float
    largest: float


@dataclass(frozen=True)
class RegionRow:
    """One region of a step. `seconds`, `operations` (calls by name: how many, seconds of their own) and `counts`
    (operations on ciphertexts, of which one call may do several) are those of a message.

    Level and scale are those of its value. `noise` was measured by decrypting; `forecast` is the simulator's. They are
    None for what is computed once a request, and the forecast where the simulator cannot run the program.
    """

    name: str
    kind: str
    level: int
    scale_bits: float
    seconds: float
    operations: Mapping[str, tuple[float, float]]
    counts: Mapping[str, float]
    largest: float
    noise: Error | None
    forecast: Error | None


@dataclass(frozen=True)
class OperationRow:
    """One operation of the evaluator over the whole profile: `seconds` are its own, without what it calls."""

    name: str
    calls: int
    seconds: float


@dataclass(frozen=True)
class Profile:
    """One profiled request. Times in seconds, sizes in bytes.

    Both parties were in one process, so that the key holder could decrypt what the server held: a diagnosis, in which
    nothing is private. `overhead` is what noting the operations took, as measured by noting nothing as often.
    """

    model: str
    backend: str
    library: str
    simulated: bool
    insecure: bool
    ring_dimension: int
    log_qp: float
    images: int
    messages: int
    of_messages: int
    forecast_db: float
    psnr_db: float | None
    seconds: Mapping[str, float]
    regions: tuple[RegionRow, ...]
    operations: tuple[OperationRow, ...]
    overhead: float
    events: tuple[Event, ...]
    spans: tuple[Event, ...]  # what the key holder did, and the server outside of regions

    @property
    def step_seconds(self) -> float:
        """Of a message, in all regions."""
        return sum(row.seconds for row in self.regions)
