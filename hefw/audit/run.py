"""`hefw audit`: from a configuration to a record and pictures."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hefw.audit import curves, results
from hefw.audit.attacker import Attack, Attacker
from hefw.audit.measure import Outcome, ends, measure
from hefw.audit.record import AttackRecord, AuditRecord, CurvesRecord
from hefw.audit.statistics import Bootstrap
from hefw.audit.subject import LabelSubject, PromptSubject, Subject
from hefw.audit.trajectories import Array, Trajectories
from hefw.audit.view import Rules, look
from hefw.config import Choice, Config, Resolved, merge, resolve
from hefw.core.errors import ConfigError, SchedulerError, suggest
from hefw.core.progress import Progress, ProgressCallback
from hefw.models.base import PromptModel, Wish
from hefw.models.training import one_thread
from hefw.plugins import registry, unavailable
from hefw.record import machine_info, versions_info
from hefw.run import check
from hefw.running import steps_of
from hefw.strategies.base import Strategy

DEFAULT_IMAGES, FEWEST_IMAGES = 200, 2
MOST_IMAGES = 2000  # resamples of more would take gigabytes
DEFAULT_THRESHOLDS = (0.0, 0.001, 0.01, 0.05, 0.2, 1.0)
#: Pictures that the attacker draws for itself, for each that is audited.
OWN_PER_IMAGE = 20
#: Of a curve's points, at most: there are many points.
CURVE_IMAGES, CURVE_OWN = 60, 1200
#: Slots of a ciphertext at the ring dimension that HE-Diffusion was published with, unless the configuration has one.
PUBLISHED_RING = 8192
VERSIONS = ("hefw", "numpy", "scipy", "scikit-image", "torch", "diffusers")


@dataclass(frozen=True, eq=False)
class Audit:
    """A record, and what its page shows.

    Attributes:
        record: all figures.
        truth: the pictures, (images, channels, height, width).
        shown: the same as far as the server was shown their latents, nan where it was not; None where a latent is no
            picture.
        nothing: pictures that the model draws of random labels.
        guesses: by attack, those that were tried.
        labels: of the pictures, or None.
    """

    record: AuditRecord
    truth: Array
    shown: Array | None
    nothing: Array
    guesses: Mapping[str, Array]
    labels: tuple[int, ...] | None


def audit(
    config: Config | str | Path | None = None,
    *,
    images: int = DEFAULT_IMAGES,
    seed: int | None = None,
    attacks: Sequence[str] | None = None,
    thresholds: Sequence[float] = DEFAULT_THRESHOLDS,
    progress: ProgressCallback | None = None,
) -> Audit:
    """What an honest-but-curious server makes of what a configuration's strategy and protocol show it.

    Nothing is encrypted: the plaintext that the protocol shows is known without.

    Parameters
    ----------
    config : a Config, a file's path, or None for the defaults. Its labels are not used: all that the model has are.
    images : how many pictures are drawn and attacked.
    seed : of the pictures and of the attacks; by default the configuration's.
    attacks : names of plugins; all by default.
    thresholds : settings of the curves; none for no curves.
    progress : called with `Progress` as the audit goes on.

    Raises HefwError, one clear line each.
    """
    with one_thread():
        return _Run(merge(config, {}), images, seed, attacks, thresholds, progress or (lambda _: None)).go()


class _Run:
    def __init__(
        self,
        config: Config,
        images: int,
        seed: int | None,
        attacks: Sequence[str] | None,
        thresholds: Sequence[float],
        progress: ProgressCallback,
    ) -> None:
        if not FEWEST_IMAGES <= images <= MOST_IMAGES:
            raise ConfigError(
                f"images {images} is not allowed; allowed: {FEWEST_IMAGES} to {MOST_IMAGES}; for example --images 200"
            )
        for threshold in thresholds:
            if not 0 <= threshold <= 1:
                raise ConfigError(
                    f"threshold {threshold:g} is not allowed; allowed: 0 to 1; for example --thresholds 0,0.01,1"
                )
        self.started, self.clock = datetime.datetime.now(datetime.timezone.utc), time.perf_counter()
        self.images, self.progress = images, progress
        self.seed = config.seed if seed is None else seed
        self.thresholds = tuple(dict.fromkeys(thresholds))
        self.chosen = config.resolve()
        names = _names(attacks)
        #: Reasons by name: what was not asked for by name, and cannot be had here.
        self.missing = {} if attacks else {n: why for n in names if (why := unavailable(registry().entry("attack", n)))}
        self.attacks: dict[str, Attack] = {n: _load("attack", Choice(n)) for n in names if n not in self.missing}
        model = _made(self.chosen["model"])
        self.steps = steps_of(config, model)
        self.config = config.model_copy(update={"steps": self.steps})  # the record says how many they were
        self.protocol = check(config, model)
        self.subject = self._subject(model)
        if self.protocol == "end-to-end":
            self.rules = Rules(rounded=True, every=config.refresh.steps_a_message(len(self.subject.updates)))
        else:
            self.rules = Rules(updates=True, predictions=config.noise_prediction == "plaintext")
        self.bootstrap = Bootstrap(images, self.seed)

    def go(self) -> Audit:
        """Draw, look, attack, compare."""
        subject = self.subject
        self.progress(Progress("draw", 0, 2, f"{self.images} pictures to audit"))
        runs = subject.audited(self.images)
        count = OWN_PER_IMAGE * self.images if subject.labels else self.images
        self.progress(Progress("draw", 1, 2, f"{count} pictures of the attacker's own"))
        own = subject.own(count)
        if not (np.isfinite(runs.latents).all() and np.isfinite(own.latents).all()):
            raise SchedulerError(
                f"latents of model {self.config.model.name!r} are not finite with scheduler "
                f"{self.config.scheduler.name!r} and {self.steps} steps: choose another scheduler or number"
            )
        self.progress(Progress("draw", 2, 2))
        strategy: Strategy = _made(self.chosen["strategy"])
        view = look(runs, strategy, subject.updates, self.rules)
        between = ends(subject, runs, own, self.seed)
        attacker = Attacker(strategy, self.rules, subject.updates, subject.labels, subject.denoiser, own)
        outcomes = measure(subject, self.attacks, runs, view, attacker, between, self.bootstrap, self.seed, self._tell)
        self.progress(Progress("attack", len(self.attacks), len(self.attacks)))
        everything = between.everything.scores
        record = AuditRecord(
            started=self.started,
            config=self.config.to_dict(),
            protocol=self.protocol,
            noise_prediction=self.config.noise_prediction,
            images=self.images,
            own_runs=count,
            seed=self.seed,
            steps=len(subject.updates),
            labels=subject.labels,
            shown=results.shown(view, self.rules),
            metrics={name: results.metric(name) for name in everything},
            nothing={name: results.nothing(between, name, self.bootstrap) for name in everything},
            everything={name: results.interval(self.bootstrap.mean(values)) for name, values in everything.items()},
            attacks=tuple(self._described(outcome) for outcome in outcomes),
            not_available=(
                *results.not_available(subject, between),
                *(f"attack {name!r}: {reason}" for name, reason in self.missing.items()),
            ),
            beyond_prior=any(found.beyond_prior for outcome in outcomes for found in outcome.findings.values()),
            curves=self._curves(runs, own) if self.thresholds else None,
            versions=versions_info(VERSIONS),
            machine=machine_info(),
            seconds=time.perf_counter() - self.clock,
        )
        return Audit(
            record,
            between.truth,
            view.latest if runs.final.shape == between.truth.shape else None,
            between.sample.images,
            {outcome.name: outcome.score.images for outcome in outcomes if outcome.score is not None},
            None if runs.labels is None else tuple(int(label) for label in runs.labels),
        )

    def _subject(self, model: Any) -> Subject:
        config, chosen = self.config, self.chosen["scheduler"]
        kind, options = registry().load("scheduler", chosen.entry.name), chosen.options.model_dump()

        def scheduler() -> Any:
            return model.scheduler(kind, options)

        if not isinstance(model, PromptModel):
            return LabelSubject(model, scheduler, self.steps, self.seed, self.protocol == "update-only")
        if config.init_image is not None:
            raise ConfigError("init_image: an audit draws from noise; leave init_image, strength and mask out")
        wish = Wish(config.prompt, self.steps, self.seed, config.negative_prompt, config.guidance_scale)
        return PromptSubject(model, scheduler, wish)

    def _tell(self, name: str) -> None:
        self.progress(Progress("attack", list(self.attacks).index(name), len(self.attacks), name))

    def _described(self, outcome: Outcome) -> AttackRecord:
        name = outcome.name
        return results.attack(outcome, registry().entry("attack", name).summary, self.attacks[name].reference)

    def _curves(self, runs: Trajectories, own: Trajectories) -> CurvesRecord:
        choice, count = self.config.strategy, min(self.images, CURVE_IMAGES)
        sweep = curves.Sweep(
            self.subject,
            self.attacks,
            self.rules,
            runs.part(0, count),
            own.part(0, CURVE_OWN),
            (self.config.params.ring_dimension or PUBLISHED_RING) // 2,
            self.seed,
            lambda name, options: _load("strategy", Choice(name, options)),
        )
        wanted = curves.settings(choice.name, choice.options, self.thresholds, registry())
        points = tuple(sweep.points(list(wanted), self.progress))
        return CurvesRecord(images=count, slots=sweep.slots, attacks=tuple(self.attacks), points=points)


def _names(wanted: Sequence[str] | None) -> list[str]:
    """The attacks' names, in the order in which plugins register them; ConfigError for one that is not known."""
    known = [name for kind, name in registry().entries if kind == "attack"]
    for name in wanted or ():
        if name not in known:
            raise ConfigError(f"unknown attack {name!r}; {suggest(name, known)}")
    return [name for name in known if wanted is None or name in wanted]


def _load(kind: Any, choice: Choice) -> Any:
    return _made(resolve(kind, choice, registry()))


def _made(chosen: Resolved) -> Any:
    return registry().load(chosen.kind, chosen.entry.name)(chosen.options)
