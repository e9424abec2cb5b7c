"""`results.json`: a comparison's cells and their figures. `hefw/bench/comparison.schema.json` is its JSON schema.

`python -m hefw.bench.record` prints the schema.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, Field, NonNegativeInt

from hefw.bench.intervals import Interval
from hefw.bench.measurement import AuditFigures, Outcome, Part, ProfileFigures
from hefw.record import BytesRecord, MachineRecord, ParamsRecord, schema_of

SCHEMA_PATH = Path(__file__).with_name("comparison.schema.json")


class ShareRecord(Part):
    """A share of pictures with Wilson's 95 % interval."""

    value: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    pictures: int = Field(ge=1, description="of all runs with a seed of their own")


class RunRow(Part):
    """One run of a cell."""

    seed: NonNegativeInt
    repeat: NonNegativeInt
    outcome: Outcome
    started: AwareDatetime
    seconds: float | None = Field(description="of the private run; null where it failed")
    peak_memory_bytes: NonNegativeInt


class SeenRow(Part):
    """What a party was given in a run, added up."""

    party: str
    item: str
    form: str
    when: str
    entries: NonNegativeInt
    bytes: NonNegativeInt


class Figures(Part):
    """Of a cell whose runs were all measured. Times and memory are medians over all runs, in seconds and bytes."""

    images: int = Field(ge=1, description="drawn in a run")
    evaluations: int = Field(ge=1, description="of the network, an image")
    messages: int = Field(ge=1)
    protocol: Literal["end-to-end", "update-only"]
    simulated: bool
    insecure: bool
    seconds: Interval = Field(description="a whole private run, from the start of key generation to the pictures")
    seconds_per_image: Interval
    seconds_per_image_step: Interval = Field(description="of evaluation on the server alone")
    stages: dict[str, Interval] = Field(description="wall time by stage, as run.json has it")
    regions: dict[str, float] = Field(description="median seconds of the server's operations by region, over all steps")
    psnr_db: Interval | None = Field(description="against the plaintext twin; null where nothing differs")
    max_abs_error: float = Field(ge=0, description="of a pixel, black -1 and white 1: the largest of all runs")
    accuracy: ShareRecord | None = Field(description="classified as the label asked for; null without a classifier")
    twin_accuracy: ShareRecord | None
    as_twins: ShareRecord | None = Field(description="classified as their plaintext twins are")
    shown: float = Field(ge=0, le=1, description="private numbers that the server saw in plaintext, of all it was sent")
    peak_memory_bytes: Interval = Field(description="proportional set size of all processes, sampled")
    bytes: BytesRecord
    counts: dict[str, NonNegativeInt] = Field(description="operations on ciphertexts, by name, over all steps")
    params: ParamsRecord
    scheduler: str
    model_digest: str
    seen: tuple[SeenRow, ...]
    versions: dict[str, str]


class CellRecord(Part):
    """One combination."""

    number: int = Field(ge=1)
    name: str
    digest: str
    way: str = Field(description="'hefw', or the paper's own implementation")
    settings: dict[str, str] = Field(description="what tells cells apart, by key")
    config: dict[str, Any]
    command: str = Field(description="repeats one run of it")
    outcome: Outcome | Literal["not yet measured"]
    reason: str | None
    wanted: int = Field(ge=1, description="runs")
    runs: tuple[RunRow, ...]
    figures: Figures | None = Field(description="null unless every run was measured")
    audit: AuditFigures | None
    audit_reason: str | None = Field(description="why there is no audit, where one was asked for")
    profile: ProfileFigures | None
    profile_reason: str | None = Field(description="why there is no profile, where one was asked for")
    front: bool = Field(description="no other cell of its group is as good in everything and better in something")


class ImpossibleRecord(Part):
    """A combination that was left out before anything was measured."""

    name: str
    settings: dict[str, str]
    reason: str


class ComparisonRecord(Part):
    """One comparison, as results.json holds it."""

    hefw_comparison_version: Literal[1] = 1
    title: str
    written: AwareDatetime
    command: str
    hefw: str = Field(description="version")
    machine: MachineRecord
    keys: tuple[str, ...] = Field(description="settings that tell cells apart")
    repeats: int = Field(ge=1)
    seeds: tuple[NonNegativeInt, ...]
    seconds_limit: float
    memory_limit_bytes: float | None
    audit_images: int | None
    reports: bool = Field(description="each cell's first run has a page of its own in the folder")
    cells: tuple[CellRecord, ...]
    impossible: tuple[ImpossibleRecord, ...]

    def of(self, outcome: str) -> list[CellRecord]:
        """The cells with an outcome."""
        return [cell for cell in self.cells if cell.outcome == outcome]

    @property
    def measured(self) -> list[CellRecord]:
        """The cells that have figures."""
        return [cell for cell in self.cells if cell.figures is not None]

    def to_json(self) -> str:
        """The text of results.json, indented, with a final newline."""
        return self.model_dump_json(indent=2) + "\n"


def schema_text() -> str:
    """The JSON schema of results.json, as committed."""
    return schema_of(ComparisonRecord)


if __name__ == "__main__":
    print(schema_text(), end="")
