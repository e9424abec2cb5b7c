"""Audits of a comparison: one for all cells that show the server the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hefw.bench.expansion import DIGEST_LENGTH, HEFW, Cell
from hefw.config import Config

#: What changes nothing of what a strategy shows.
ALIKE = ("backend", "batch", "params", "allow_insecure", "out", "twin", "labels", "keys", "server_threads")


@dataclass(frozen=True)
class AuditJob:
    """One audit of so many pictures."""

    config: Config
    images: int

    @property
    def key(self) -> dict[str, Any]:
        """What the digest is of."""
        values = self.config.to_dict()
        return {key: value for key, value in values.items() if key not in ALIKE} | {"images": self.images}

    @cached_property
    def digest(self) -> str:
        """Of all that an audit depends on."""
        return hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:DIGEST_LENGTH]


def audit_of(cell: Cell, images: int | None, seed: int) -> AuditJob | None:
    """The audit of a cell; None where none is asked for, or its way is not hefw's."""
    if images is None or cell.way != HEFW:
        return None
    return AuditJob(cell.config.model_copy(update={"seed": seed}), images)
