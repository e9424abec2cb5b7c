"""`audit.json`: what attacks made of what a strategy shows. `hefw/audit/audit.schema.json` is its JSON schema.

The record stays with the key holder: its configuration is in it. `python -m hefw.audit.record` prints the schema.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt

from hefw.record import MachineRecord, schema_of

RECORD_VERSION = 1
SCHEMA_PATH = Path(__file__).with_name("audit.schema.json")
#: Below, intervals are wide and verdicts weak.
ENOUGH_IMAGES = 200


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class IntervalRecord(_Part):
    """A mean over images with a 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


class MetricRecord(_Part):
    """How guesses are compared with pictures."""

    title: str
    unit: str = Field(description="dB, share, or empty")
    higher_is_closer: bool
    reference: str


class ShownRecord(_Part):
    """What the server was shown, in shares of all entries of all steps."""

    latents: float = Field(ge=0, le=1, description="entries of latents x_t, final latent aside, that were sent")
    latents_known: float = Field(ge=0, le=1, description="those, and what follows by the update's arithmetic")
    final_known: float = Field(ge=0, le=1, description="entries of the final latent that follow by arithmetic")
    ever: float = Field(ge=0, le=1, description="entries that were sent at one step at least")
    predictions: float = Field(ge=0, le=1, description="entries of predictions that were sent")
    rounded: bool = Field(description="entries of latents are rounded to 8 bits")


class NothingRecord(_Part):
    """Who sees nothing and knows the model."""

    by: Literal["sample", "mean"] = Field(
        description="what comes closer: a picture that the model draws of a random label, or the mean of many"
    )
    value: IntervalRecord


class FindingRecord(_Part):
    """One attack by one metric."""

    value: IntervalRecord
    gain: IntervalRecord = Field(
        description="how much closer to the picture than who sees nothing, image by image; in the metric's unit"
    )
    leak: IntervalRecord | None = Field(
        description="0: as who sees nothing; 1: as who sees everything; null where these two do not differ"
    )
    beyond_prior: bool = Field(
        description="the gain is above 0, by an interval that allows for all attacks and metrics tried"
    )


class AttackRecord(_Part):
    """One attack, tried or left out."""

    name: str
    summary: str
    reference: str
    left_out: str | None = Field(description="the reason; null if it was tried")
    findings: dict[str, FindingRecord] = Field(description="by metric")


class BestRecord(_Part):
    """The attack that comes closest by one metric."""

    attack: str
    value: IntervalRecord
    leak: IntervalRecord | None


class PointRecord(_Part):
    """One strategy at one setting: what it costs and what it leaks."""

    strategy: str
    options: dict[str, Any]
    encrypted: float = Field(ge=0, le=1, description="share of the latents' entries that are encrypted")
    ciphertexts: float = Field(ge=0, description="that the key holder sends a message for all these images, on average")
    best: dict[str, BestRecord] = Field(description="by metric")


class CurvesRecord(_Part):
    """Leak against cost, over strategies and thresholds."""

    images: int = Field(ge=2)
    slots: int = Field(ge=1, description="of a ciphertext, for the count of ciphertexts")
    attacks: tuple[str, ...]
    points: tuple[PointRecord, ...]


class AuditRecord(_Part):
    """One audit, as `audit.json` holds it. All but `started` and `seconds` follows from configuration and seed."""

    hefw_audit_version: Literal[1] = 1
    started: AwareDatetime = Field(description="ISO 8601, UTC")
    seconds: float = Field(ge=0)
    config: dict[str, Any]
    protocol: Literal["end-to-end", "update-only"]
    noise_prediction: Literal["encrypted", "plaintext"]
    images: int = Field(ge=2)
    own_runs: int = Field(ge=1, description="pictures that the attacker drew for itself")
    seed: NonNegativeInt
    steps: int = Field(ge=1, description="evaluations of the network")
    labels: NonNegativeInt = Field(description="that the model has; 0 if it takes none")
    shown: ShownRecord
    metrics: dict[str, MetricRecord]
    nothing: dict[str, NothingRecord] = Field(description="by metric")
    everything: dict[str, IntervalRecord] = Field(description="by metric: who sees the picture in 8 bits a channel")
    attacks: tuple[AttackRecord, ...]
    not_available: tuple[str, ...] = Field(description="what could not be measured for this model, and why")
    beyond_prior: bool = Field(description="some attack learns more than the model alone tells")
    curves: CurvesRecord | None
    versions: dict[str, str]
    machine: MachineRecord

    @property
    def few(self) -> bool:
        """Too few images for narrow intervals."""
        return self.images < ENOUGH_IMAGES

    def best(self, metric: str) -> tuple[str, FindingRecord] | None:
        """The attack that comes closest by a metric, and what it found; None if none was tried."""
        sign = 1 if self.metrics[metric].higher_is_closer else -1
        tried = [(a.name, a.findings[metric]) for a in self.attacks if metric in a.findings]
        return max(tried, key=lambda item: sign * item[1].value.mean, default=None)

    def to_json(self) -> str:
        """The text of audit.json, indented, with a final newline."""
        return self.model_dump_json(indent=2) + "\n"


def schema_text() -> str:
    """The JSON schema of audit.json, as committed."""
    return schema_of(AuditRecord)


if __name__ == "__main__":
    print(schema_text(), end="")
