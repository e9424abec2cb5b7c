"""`quality.json`: how good a model's pictures are. `hefw/quality/quality.schema.json` is its JSON schema.

`python -m hefw.quality.record` prints the schema.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt

from hefw.quality.statistics import Interval, Spread
from hefw.record import INSECURE, SIMULATED, MachineRecord, ParamsRecord, schema_of

RECORD_VERSION = 1
SCHEMA_PATH = Path(__file__).with_name("quality.schema.json")

Kind = Literal["real", "original", "twin", "simulated", "encrypted"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class IntervalRecord(_Part):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    @staticmethod
    def of(found: Interval | None) -> IntervalRecord | None:
        """None for None."""
        return None if found is None else IntervalRecord(**vars(found))


class SpreadRecord(_Part):
    """Of many distances the smallest, the 5 % quantile and the median."""

    smallest: float
    low: float
    median: float

    @staticmethod
    def of(found: Spread) -> SpreadRecord:
        """The same as a record."""
        return SpreadRecord(**vars(found))


class RangesRecord(_Part):
    """Inputs of polynomials over all samples and steps."""

    largest: float | None = Field(description="the largest absolute value; null if one was not finite")
    polynomial: str = Field(description="the graph's node where it was met")
    limit: float = Field(gt=0)
    beyond: NonNegativeInt = Field(description="samples with a value beyond the limit, or not finite")
    graph_error: float | None = Field(
        description="largest difference of a final latent between the compiled graph and the network, which is sampled "
        "in single precision; null if one was not finite"
    )


class TwinRecord(_Part):
    """Pictures beside their plaintext twins: the same noise and labels, in double precision."""

    psnr_db: float | None = Field(description="mean over images, data range 2; null if one equals its twin")
    lowest_psnr_db: float | None = Field(description="of the worst image; null if all equal their twins")
    label_agreement: NonNegativeInt = Field(description="images that are classified as their twins are")
    max_abs_error: float = Field(ge=0)


class SetRecord(_Part):
    """One set of pictures."""

    kind: Kind
    steps: int | None = Field(ge=1, description="of the scheduler; null for real pictures")
    pictures: int = Field(ge=1)
    backend: str | None = Field(description="that evaluated the network; null for plaintext")
    params: ParamsRecord | None
    accuracy: IntervalRecord | None = Field(
        description="share that is classified as its label, with Wilson's interval; null where labels are not known"
    )
    distance: IntervalRecord | None = Field(
        description="Fréchet distance to the real pictures, with a bootstrap interval over this set; null where there "
        "are too few pictures for the feature space, or one is not finite"
    )
    floor: IntervalRecord | None = Field(description="the distance of as many real pictures, drawn at random")
    diverged: NonNegativeInt = Field(description="pictures with a value that is not finite, or beyond 5")
    diversity: float | None = Field(description="mean distance of two pictures of one label")
    nearest: SpreadRecord | None = Field(
        description="distances to the nearest training picture; for real pictures, of those that were held out, or of "
        "training pictures to the nearest other one"
    )
    ranges: RangesRecord | None
    twin: TwinRecord | None

    @property
    def over_floor(self) -> float | None:
        """How many times the floor the distance is."""
        return None if self.distance is None or self.floor is None else self.distance.value / self.floor.value


class ReferenceRecord(_Part):
    """What the pictures are compared with."""

    real: int = Field(ge=1, description="real pictures that Fréchet distances are to")
    training: int = Field(ge=1, description="training pictures: of the floor, and to copy from")
    held_out: bool = Field(description="the real pictures are others than the training pictures")


class ShownRecord(_Part):
    """A sample that the page shows."""

    label: NonNegativeInt
    nearest: NonNegativeInt = Field(description="number of the training picture nearest to the twin's picture")
    distance: float = Field(ge=0)


class QualityRecord(_Part):
    """One model, as `quality.json` holds it. All but `started` and `seconds` follows from configuration and options,
    and from the randomness of encryption."""

    hefw_quality_version: Literal[1] = 1
    started: AwareDatetime = Field(description="ISO 8601, UTC")
    seconds: float = Field(ge=0)
    command: str
    config: dict[str, Any]
    model: str
    summary: str
    feature_space: str
    features: int = Field(ge=1)
    labels: int = Field(ge=1)
    seed: NonNegativeInt
    reference: ReferenceRecord
    sets: tuple[SetRecord, ...]
    shown: tuple[ShownRecord, ...]
    not_available: tuple[str, ...] = Field(description="what could not be measured here, and why")
    versions: dict[str, str]
    machine: MachineRecord

    def of(self, kind: Kind, steps: int | None = None) -> SetRecord | None:
        """The first set of a kind, of a number of steps if one is given."""
        found = (item for item in self.sets if item.kind == kind and steps in (None, item.steps))
        return next(found, None)

    @property
    def banner(self) -> str | None:
        """INSECURE where a set is; a page of simulated pictures alone says so, too."""
        drawn = [item for item in self.sets if item.params is not None]
        if any(item.params is not None and item.params.insecure for item in drawn):
            return INSECURE
        return SIMULATED if drawn and all(item.kind == "simulated" for item in drawn) else None

    def to_json(self) -> str:
        """The text of quality.json, indented, with a final newline."""
        return self.model_dump_json(indent=2) + "\n"


def schema_text() -> str:
    """The JSON schema of quality.json, as committed."""
    return schema_of(QualityRecord)


if __name__ == "__main__":
    print(schema_text(), end="")
