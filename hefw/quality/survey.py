"""`hefw quality --all`: every model here that can be judged, and one page about all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from hefw.config import Config, merge
from hefw.core.errors import HefwError
from hefw.core.progress import Progress, ProgressCallback
from hefw.quality import page
from hefw.quality.record import QualityRecord
from hefw.quality.run import Asked, quality
from hefw.quality.subject import judged_models
from hefw.quality.write import write_quality
from hefw.report.files import put
from hefw.report.html import fill

TEMPLATE = Path(__file__).with_name("survey.html.jinja")
FILES = ("all.html", "all.json")


class SurveyRecord(BaseModel):
    """All models, as `all.json` holds them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hefw_quality_survey_version: Literal[1] = 1
    models: tuple[QualityRecord, ...]
    failed: dict[str, str]

    def to_json(self) -> str:
        """The text of all.json, indented, with a final newline."""
        return self.model_dump_json(indent=2) + "\n"


def survey(
    config: Config,
    asked: Asked,
    out: str | os.PathLike[str],
    *,
    words: Sequence[str] = (),
    progress: ProgressCallback | None = None,
) -> tuple[SurveyRecord, list[Path]]:
    """Judge every model with this configuration but for its model, and write what is found.

    Each model's files are in a folder of its name as soon as it is judged; FILES come last. A model that cannot be
    judged is in `failed`, with the reason. Returns the record and the paths of all files written.
    """
    told = progress or (lambda _: None)
    records, failed, paths = [], {}, []
    for name in judged_models():
        try:
            found = quality(
                merge(config, {"model": {"name": name}}),
                asked,
                words=[*words, "--model", name],
                progress=_named(told, name),
            )
        except HefwError as error:
            failed[name] = str(error)
            continue
        records.append(found.record)
        paths += write_quality(found, Path(out) / name)
    record = SurveyRecord(models=tuple(records), failed=failed)
    contents = {"all.html": render(record).encode(), "all.json": record.to_json().encode()}
    return record, paths + put(Path(out), contents, FILES)


def render(record: SurveyRecord) -> str:
    """The page's HTML: no script, no remote asset; links to the models' own pages."""
    filters = {"figure": page.figure, "share": page.share, "db": page.db}
    return fill(
        TEMPLATE,
        {},
        filters,
        title="How good the pictures of every model are",
        record=record,
        over_original=page.over_original,
        several_spaces=len({item.feature_space for item in record.models}) > 1,
    )


def summary(record: SurveyRecord) -> list[str]:
    """A sentence a set of each model."""
    return [f"{item.model}: {sentence}" for item in record.models for sentence in page.summary(item)]


def _named(told: ProgressCallback, name: str) -> ProgressCallback:
    """Progress that says of which model."""

    def tell(progress: Progress) -> None:
        told(replace(progress, detail=f"{name}: {progress.detail}" if progress.detail else name))

    return tell


def failures(failed: Mapping[str, str]) -> str:
    """What went wrong, in a line."""
    return "; ".join(f"model {name!r} was not judged: {reason}" for name, reason in failed.items())
