"""One run of one cell, as it is kept: measured, or failed with the reason. A file each, in `runs/` of the folder."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt

from hefw.record import RunRecord

Outcome = Literal["measured", "failed", "over time", "over memory"]
#: What a run's other files are called after.
NAME = "{digest}-seed{seed}-run{repeat}"


class Part(BaseModel):
    """Base of everything that is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Judged(Part):
    """Pictures read by their model's classifier. Null where the model has none."""

    pictures: int = Field(ge=1)
    as_asked: NonNegativeInt = Field(description="classified as the label asked for")
    twins_as_asked: NonNegativeInt = Field(description="of the plaintext twins")
    as_twins: NonNegativeInt = Field(description="classified as their twins are")


class Measured(Part):
    """What a run gave."""

    record: RunRecord
    judged: Judged | None
    pictures: str = Field(description="the first pictures side by side, a PNG in base64")
    twins: str = Field(description="the same from plaintext")


class Measurement(Part):
    """One run of one cell, all its processes together."""

    hefw_comparison_run_version: Literal[1] = 1
    digest: str = Field(description="of the cell")
    key: dict[str, Any] = Field(description="what the digest is of: the configuration without seed and folder")
    seed: NonNegativeInt
    repeat: NonNegativeInt
    outcome: Outcome
    reason: str | None = Field(description="null where it was measured")
    started: AwareDatetime
    seconds: float = Field(ge=0, description="from the start of the process to its end")
    peak_memory_bytes: NonNegativeInt = Field(description="most proportional set size of all its processes, sampled")
    measured: Measured | None

    @property
    def name(self) -> str:
        """Of its file, without the suffix."""
        return NAME.format(digest=self.digest, seed=self.seed, repeat=self.repeat)

    def to_json(self) -> str:
        """The text of its file."""
        return self.model_dump_json(indent=1) + "\n"


class AuditFigures(Part):
    """What attacks make of what a strategy shows, in short; `hefw audit` of the configuration has it all."""

    images: int = Field(ge=2)
    beyond_prior: bool = Field(description="some attack learns more than the model alone tells")
    best_attack: str | None = Field(description="the attack that comes closest by SSIM; null if none was tried")
    ssim: float | None = Field(description="of its guesses; null where pictures are too small for it")
    ssim_low: float | None = None
    ssim_high: float | None = None
    ssim_nothing: float | None = Field(description="of who sees nothing and knows the model")
    leak: float | None = Field(description="0: as who sees nothing; 1: as who sees everything")
    label: float | None = Field(description="share of labels recovered by the best attack on them")


class OperationFigures(Part):
    """One operation of the server's evaluator, over all messages that were profiled."""

    calls: NonNegativeInt
    seconds: float = Field(ge=0, description="its own, without what it calls")


class ProfileFigures(Part):
    """Where the server's time goes by operation; `hefw profile` of the configuration has it all."""

    messages: int = Field(ge=1, description="that were profiled, the first ones of a run")
    images: int = Field(ge=1)
    operations: dict[str, OperationFigures] = Field(description="by name, the longest first")
    overhead: float = Field(ge=0, description="seconds that noting the operations took, within theirs")


class Profiled(Part):
    """One profile of one cell."""

    hefw_comparison_profile_version: Literal[1] = 1
    digest: str = Field(description="of the cell")
    key: dict[str, Any]
    outcome: Outcome
    reason: str | None
    seconds: float = Field(ge=0)
    figures: ProfileFigures | None

    @property
    def name(self) -> str:
        """Of its file, without the suffix."""
        return self.digest

    def to_json(self) -> str:
        """The text of its file."""
        return self.model_dump_json(indent=1) + "\n"


class Audited(Part):
    """One audit, kept once for all cells that show the server the same."""

    hefw_comparison_audit_version: Literal[1] = 1
    digest: str
    key: dict[str, Any]
    outcome: Outcome
    reason: str | None
    seconds: float = Field(ge=0)
    figures: AuditFigures | None

    @property
    def name(self) -> str:
        """Of its file, without the suffix."""
        return self.digest

    def to_json(self) -> str:
        """The text of its file."""
        return self.model_dump_json(indent=1) + "\n"
