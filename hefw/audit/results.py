"""Figures of an audit as records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hefw.audit.measure import METRICS, Ends, Outcome
from hefw.audit.record import (
    AttackRecord,
    BestRecord,
    FindingRecord,
    IntervalRecord,
    MetricRecord,
    NothingRecord,
    ShownRecord,
)
from hefw.audit.statistics import Bootstrap, Interval
from hefw.audit.subject import Subject
from hefw.audit.view import Rules, View


def interval(found: Interval) -> IntervalRecord:
    """A mean with its interval."""
    mean, low, high = found
    return IntervalRecord(mean=mean, low=low, high=high)


def metric(name: str) -> MetricRecord:
    """What a metric is."""
    found = METRICS[name]
    return MetricRecord(
        title=found.title, unit=found.unit, higher_is_closer=found.higher_is_closer, reference=found.reference
    )


def shown(view: View, rules: Rules) -> ShownRecord:
    """What of a view was sent, and what follows from it."""
    return ShownRecord(
        latents=float((~view.masks).mean()),
        latents_known=float(np.isfinite(view.latents[:-1]).mean()),
        final_known=float(np.isfinite(view.latents[-1]).mean()),
        ever=float((~view.masks).any(axis=0).mean()),
        predictions=float(np.isfinite(view.predictions).mean()),
        rounded=rules.rounded,
    )


def nothing(between: Ends, name: str, bootstrap: Bootstrap) -> NothingRecord:
    """The one that sees nothing and comes closest by a metric."""
    by, values = between.nothing(name)
    return NothingRecord(by=by, value=interval(bootstrap.mean(values)))


def attack(outcome: Outcome, summary: str, reference: str) -> AttackRecord:
    """One attack."""
    findings = {
        name: FindingRecord(
            value=interval(finding.value),
            gain=interval(finding.gain),
            leak=None if finding.leak is None else interval(finding.leak),
            beyond_prior=finding.beyond_prior,
        )
        for name, finding in outcome.findings.items()
    }
    return AttackRecord(
        name=outcome.name, summary=summary, reference=reference, left_out=outcome.reason, findings=findings
    )


def best(outcomes: Sequence[Outcome]) -> dict[str, BestRecord]:
    """By metric, the attack that comes closest."""
    found: dict[str, BestRecord] = {}
    for outcome in outcomes:
        for name, finding in outcome.findings.items():
            sign = 1 if METRICS[name].higher_is_closer else -1
            if name not in found or sign * finding.value[0] > sign * found[name].value.mean:
                leak = None if finding.leak is None else interval(finding.leak)
                found[name] = BestRecord(attack=outcome.name, value=interval(finding.value), leak=leak)
    return found


def not_available(subject: Subject, between: Ends) -> tuple[str, ...]:
    """What a model cannot be measured by, and why."""
    found, name = [], subject.model.name
    if not subject.labels:
        found.append(f"label recovered: model {name!r} takes prompts, not labels")
    elif subject.judge is None:
        found.append(f"labels read off guesses: model {name!r} has no method `judge`, so only attacks name labels")
    found += [
        f"{known.title}: pictures of model {name!r} are too small for it"
        for key, known in METRICS.items()
        if key not in between.everything.scores and key != "label"
    ]
    return tuple(found)
