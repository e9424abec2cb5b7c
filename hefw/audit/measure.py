"""Attacks on one view, and their figures beside those of who sees nothing and who sees everything."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hefw.audit.attacker import Attack, Attacker, Guess
from hefw.audit.metrics import IMAGE_METRICS, LABEL, Metric, as_picture
from hefw.audit.statistics import Bootstrap, Interval
from hefw.audit.subject import Subject
from hefw.audit.trajectories import Array, Labels, Trajectories
from hefw.audit.view import View
from hefw.core.errors import HefwError

METRICS: dict[str, Metric] = {name: metric for name, (metric, _) in IMAGE_METRICS.items()} | {LABEL.name: LABEL}
Scores = dict[str, Array]  # by metric, (images,)


@dataclass(frozen=True, eq=False)
class Score:
    """Pictures and their figures.

    Attributes:
        images: (images, channels, height, width), in 8 bits.
        scores: by metric, (images,); those that there are.
    """

    images: Array
    scores: Scores


@dataclass(frozen=True, eq=False)
class Ends:
    """The two attackers that all others stand between.

    Attributes:
        truth: the pictures, (images, channels, height, width).
        sample: who sees nothing and draws a picture of a random label; figures are means over many draws.
        mean: who sees nothing and always says the mean of many.
        everything: who sees the picture as it is written, in 8 bits.
    """

    truth: Array
    sample: Score
    mean: Score
    everything: Score

    def nothing(self, metric: str) -> tuple[Literal["sample", "mean"], Array]:
        """Which of the two that see nothing comes closer by a metric, and its figures."""
        sign = 1 if METRICS[metric].higher_is_closer else -1
        sample, mean = self.sample.scores[metric], self.mean.scores[metric]
        return ("sample", sample) if sign * float(sample.mean() - mean.mean()) >= 0 else ("mean", mean)


@dataclass(frozen=True)
class Finding:
    """One attack by one metric. `gain` is how much closer it comes than who sees nothing, image by image."""

    value: Interval
    gain: Interval
    leak: Interval | None
    beyond_prior: bool


@dataclass(frozen=True, eq=False)
class Outcome:
    """One attack: its guesses and findings by metric, or why it was left out."""

    name: str
    reason: str | None = None
    score: Score | None = None
    findings: Mapping[str, Finding] = field(default_factory=dict)


def score(subject: Subject, guess: Guess, truth: Array, labels: Labels | None, rng: np.random.Generator) -> Score:
    """How close a guess is. Labels are the attack's own, else those that the model's judge reads off its pictures."""
    images = as_picture(subject.decode(guess.latents))
    scores = {name: values for name, (_, measure) in IMAGE_METRICS.items() if _there(values := measure(images, truth))}
    named = guess.labels
    if labels is not None:
        if named is None and subject.judge is not None:
            named = subject.judge.judge(images)
        if named is None:  # nothing to go by
            named = rng.integers(subject.labels, size=len(labels))
        scores[LABEL.name] = (named == labels).astype(np.float64)
    return Score(images, scores)


def ends(subject: Subject, runs: Trajectories, own: Trajectories, seed: int) -> Ends:
    """The two ends for pictures whose runs are these; `own` are the attacker's."""
    truth = np.clip(subject.decode(runs.final), -1, 1)
    rng, count = np.random.default_rng([seed, 2]), len(runs)
    sets = [own.part(begin, begin + count) for begin in range(0, len(own) - count + 1, count)]
    draws = [score(subject, Guess(some.final, some.labels), truth, runs.labels, rng) for some in sets]
    samples = {name: np.mean([draw.scores[name] for draw in draws], axis=0) for name in draws[0].scores}
    average = np.broadcast_to(own.final.mean(axis=0), runs.final.shape).copy()
    known = runs.labels if subject.judge is None else None
    return Ends(
        truth,
        sample=Score(draws[0].images, samples),
        mean=score(subject, Guess(average), truth, runs.labels, rng),
        everything=score(subject, Guess(runs.final, known), truth, runs.labels, rng),
    )


def measure(
    subject: Subject,
    attacks: Mapping[str, Attack],
    runs: Trajectories,
    view: View,
    attacker: Attacker,
    between: Ends,
    bootstrap: Bootstrap,
    seed: int,
    tell: Callable[[str], None] = lambda name: None,
) -> list[Outcome]:
    """Every attack on one view, in order; `tell` is called with the name of each before it."""
    outcomes = []
    for name, attack in attacks.items():
        tell(name)
        reason = attack.refusal(view, attacker)
        if reason is not None:
            outcomes.append(Outcome(name, reason))
            continue
        # what an attack draws depends on no other attack
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        guess = _checked(name, attack.guess(view, attacker, rng), runs)
        outcomes.append(Outcome(name, score=score(subject, guess, between.truth, runs.labels, rng)))
    tried = sum(len(o.score.scores) for o in outcomes if o.score is not None)
    return [_with_findings(outcome, between, bootstrap, tried) for outcome in outcomes]


def _with_findings(outcome: Outcome, between: Ends, bootstrap: Bootstrap, comparisons: int) -> Outcome:
    if outcome.score is None:
        return outcome
    findings = {}
    for metric, found in outcome.score.scores.items():
        sign = 1 if METRICS[metric].higher_is_closer else -1
        _, nothing = between.nothing(metric)
        gain = sign * (found - nothing)
        findings[metric] = Finding(
            value=bootstrap.mean(found),
            gain=bootstrap.mean(gain),
            leak=bootstrap.leak(sign * found, sign * nothing, sign * between.everything.scores[metric]),
            beyond_prior=bootstrap.beyond(gain, comparisons),
        )
    return Outcome(outcome.name, score=outcome.score, findings=findings)


def _checked(name: str, guess: Guess, runs: Trajectories) -> Guess:
    """A stranger's attack may return anything."""
    wanted = runs.final.shape
    labels: NDArray[np.int64] | None = guess.labels
    if np.shape(guess.latents) != wanted or (labels is not None and np.shape(labels) != wanted[:1]):
        raise HefwError(
            f"attack {name!r} returned latents of shape {np.shape(guess.latents)}; expected {wanted}, and a label an "
            "image or none; report it to the attack's author"
        )
    return guess


def _there(values: Array) -> bool:
    return bool(np.isfinite(values).all())
