"""Audits of a comparison: one for all cells that show the server the same, with the figures of `hefw audit`."""

from __future__ import annotations

import pytest

from hefw.audit.run import audit as attacked
from hefw.bench.audits import audit_of
from hefw.bench.cell import audit
from hefw.bench.comparison import Plan
from hefw.bench.expansion import Cell, expand
from hefw.bench.matrix import parse
from hefw.bench.measurement import AuditFigures
from hefw.config import Config

SHOWN = Config(model="digits-shallow", strategy="min_distortion", protocol="update-only", steps=1, seed=3)


def test_cells_that_show_the_same_share_an_audit() -> None:
    matrix = parse(
        {
            "backends": ["tenseal", "simulator"],
            "params.precision_db": [40, 60],
            "strategies": ["full", "random"],
            "protocol": "update-only",
            "noise_prediction": ["encrypted", "plaintext"],
            "audit": 20,
            "seeds": [7, 8],
        }
    )
    cells = expand(matrix)
    planned = Plan(matrix, cells, (), ("backend",))
    assert len(cells) == 16
    assert [(cell.config.strategy.name, job.config.noise_prediction) for cell, job in planned.audits] == [
        ("full", "encrypted"),
        ("full", "plaintext"),
        ("random", "encrypted"),
        ("random", "plaintext"),
    ]
    assert {(job.config.seed, job.images) for _, job in planned.audits} == {(7, 20)}


def test_nobody_audits_unasked_nor_the_published_ways() -> None:
    assert audit_of(Cell(Config()), None, 0) is None
    assert audit_of(Cell(Config(), "published full"), 20, 0) is None


def test_figures_are_those_of_an_audit(one_thread: None) -> None:
    found = AuditFigures.model_validate(audit(SHOWN, 8, lambda told: None))
    record = attacked(SHOWN, images=8, thresholds=()).record
    best = record.best("ssim")
    assert best is not None
    assert (found.best_attack, found.ssim) == (best[0], pytest.approx(best[1].value.mean))
    assert found.images == 8
    assert found.ssim_nothing == pytest.approx(record.nothing["ssim"].value.mean)
    assert found.beyond_prior == record.beyond_prior
    assert found.ssim is not None
    assert found.ssim > found.ssim_nothing
