"""`hefw quality`: from a configuration to a record and pictures."""

from __future__ import annotations

import datetime
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.backends.choose import make
from hefw.config import MAX_LABELS, MAX_SEED, MAX_STEPS, Config, format_labels, merge
from hefw.core.errors import ConfigError
from hefw.core.progress import Progress, ProgressCallback
from hefw.models.base import Model
from hefw.models.training import one_thread
from hefw.quality import statistics
from hefw.quality.judgement import Judgement, bounded
from hefw.quality.ranges import ranges
from hefw.quality.record import Kind, QualityRecord, RangesRecord, SetRecord, ShownRecord, TwinRecord
from hefw.quality.sampling import sample, start
from hefw.quality.subject import Subject, subject
from hefw.record import machine_info, versions_info
from hefw.run import generate

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

DEFAULT_SAMPLES, MOST_SAMPLES = 900, 100_000
DEFAULT_DRAWN = 32
DEFAULT_SEED = 1
#: Samples that the page shows: one of each label.
SHOWN = 10
#: Trained with a penalty beyond 3; squares of more than about 5 may explode.
RANGE_LIMIT = 6.0
SIMULATOR = "simulator"
VERSIONS = ("hefw", "numpy", "scipy", "torch", "diffusers")


@dataclass(frozen=True)
class Asked:
    """How much is drawn.

    Attributes:
        samples: pictures in plaintext, of each network and number of steps.
        steps: numbers of steps; none for the configuration's. The first is that of simulated and encrypted pictures.
        simulated, encrypted: pictures drawn on the simulator and by the configuration's backend; None for 32, or for
            none where that cannot be.
        seed: of noise, and of what is drawn at random among real pictures.
    """

    samples: int = DEFAULT_SAMPLES
    steps: tuple[int, ...] = ()
    simulated: int | None = None
    encrypted: int | None = None
    seed: int = DEFAULT_SEED

    def __post_init__(self) -> None:
        bounds = {"samples": (2, MOST_SAMPLES), "simulated": (0, MAX_LABELS), "encrypted": (0, MAX_LABELS)}
        for name, (least, most) in (bounds | {"seed": (0, MAX_SEED)}).items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ConfigError(f"--{name} {value} is not allowed; allowed: an integer from {least} to {most}")
        for count in self.steps:
            if not 1 <= count <= MAX_STEPS:
                raise ConfigError(f"--steps {count} is not allowed; allowed: integers from 1 to {MAX_STEPS}")


@dataclass(frozen=True, eq=False)
class Quality:
    """A record, and what its page shows: pictures (SHOWN, channels, height, width) of the first samples by column."""

    record: QualityRecord
    columns: Mapping[str, Array]


def quality(
    config: Config | str | Path | None = None,
    asked: Asked = Asked(),
    *,
    words: Sequence[str] | None = None,
    progress: ProgressCallback | None = None,
) -> Quality:
    """How good the pictures of a configuration's model are: in plaintext, with CKKS's noise, and on ciphertext.

    Its labels and seed are not used: all labels come in turn. The same noise is drawn everywhere. `words` are those of
    `hefw quality` that choose the configuration. Raises HefwError, one clear line each.
    """
    if words is None:
        words = () if config is None else ["CONFIG"] if isinstance(config, Config) else [str(config)]
    with one_thread():  # with several, the order of sums depends on the machine
        return _Run(subject(merge(config, {})), asked, tuple(words), progress or (lambda _: None)).go()


@dataclass
class _Run:
    subject: Subject
    asked: Asked
    words: tuple[str, ...]
    progress: ProgressCallback
    sets: list[SetRecord] = field(default_factory=list)
    columns: dict[str, Array] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.started, self.clock = datetime.datetime.now(datetime.timezone.utc), time.perf_counter()
        self.model = self.subject.model
        assert self.subject.config.steps is not None
        self.steps = self.asked.steps or (self.subject.config.steps,)
        self.judgement = Judgement(self.model, self.model.reference(), self.asked.seed)
        least = statistics.fewest(self.judgement.features)
        if self.asked.samples < least:
            raise ConfigError(
                f"--samples {self.asked.samples} is too few: model {self.model.name!r} is judged by a covariance of "
                f"{self.judgement.features} features, which takes at least {least} pictures; for example --samples "
                f"{max(DEFAULT_SAMPLES, 2 * least)}"
            )
        self.simulated, self.encrypted = self._simulated(), self._encrypted()

    def go(self) -> Quality:
        """Draw, judge, record."""
        self.sets.append(self.judgement.real(self.asked.samples))
        shown: tuple[ShownRecord, ...] = ()
        for steps in self.steps:
            if self.subject.original is not None:
                self._plain("original", self.subject.original, steps)
            twins = self._plain("twin", self.model, steps)
            shown = shown or self._shown(twins)
        if self.simulated:
            self._private("simulated", SIMULATOR, self.simulated)
        if self.encrypted:
            self._private("encrypted", None, self.encrypted)
        record = QualityRecord(
            started=self.started,
            seconds=time.perf_counter() - self.clock,
            command=self._command(),
            config=self.subject.config.to_dict(),
            model=self.model.name,
            summary=self.subject.summary,
            feature_space=self.model.feature_space,
            features=self.judgement.features,
            labels=self.model.labels,
            seed=self.asked.seed,
            reference=self.judgement.record,
            sets=tuple(self.sets),
            shown=shown,
            not_available=tuple(self.missing),
            versions=versions_info(VERSIONS),
            machine=machine_info(),
        )
        return Quality(record, self.columns)

    def _labels(self, count: int) -> Labels:
        return np.arange(count) % self.model.labels

    def _plain(self, kind: Kind, model: Model, steps: int) -> Array:
        """Sample and judge; the twin's ranges, too."""
        count = self.asked.samples
        noise = start(model, self.subject.scheduler(model), count, steps, self.asked.seed)
        what = f"{kind}, {steps} steps"

        def tell(done: int) -> None:
            self.progress(Progress("sample", done, count, what))

        tell(0)
        labels = self._labels(count)
        latents, images = sample(model, lambda: self.subject.scheduler(model), noise, labels, steps, tell)
        self.columns.setdefault(kind, images[:SHOWN])
        found = self._ranges(noise, labels, steps, latents) if kind == "twin" else None
        self._add(kind, steps, images, labels, ranges=found)
        return images

    def _ranges(self, noise: Array, labels: Labels, steps: int, latents: Array) -> RangesRecord:
        graph = self.model.graph(self.subject.scheduler(), steps)
        count = len(noise)

        def tell(done: int) -> None:
            self.progress(Progress("ranges", done, count, f"{steps} steps"))

        tell(0)
        found = ranges(graph, self.model.inputs(noise, labels), tell)
        error = float(np.max(np.abs(self.model.latents(found.outputs) - latents)))
        largest = float(np.max(found.largest))
        node = max(found.nodes, key=lambda name: np.nan_to_num(found.nodes[name], nan=np.inf), default="")
        return RangesRecord(
            largest=largest if np.isfinite(largest) else None,
            polynomial=node,
            limit=RANGE_LIMIT,
            beyond=int((~(found.largest <= RANGE_LIMIT)).sum()),
            graph_error=error if np.isfinite(error) else None,
        )

    def _private(self, kind: Kind, backend: str | None, count: int) -> None:
        """Draw by a server that sees ciphertext, and compare with the plaintext twins of the same noise."""
        labels = self._labels(count)
        result = generate(
            self.subject.config,
            progress=self.progress,
            backend=backend,
            labels=format_labels(labels.tolist()),
            steps=self.steps[0],
            seed=self.asked.seed,
            twin=True,
        )
        assert result.plain is not None
        images, twins = bounded(result.images), bounded(result.plain)
        each = statistics.psnr(images, twins)
        equal = ~np.isfinite(each)
        pair = TwinRecord(
            psnr_db=None if equal.any() else float(each.mean()),
            lowest_psnr_db=None if equal.all() else float(each.min()),
            label_agreement=int((self.model.judge(images) == self.model.judge(twins)).sum()),
            max_abs_error=float(np.abs(images - twins).max()),
        )
        self.columns[kind] = result.images[:SHOWN]
        name = backend or self.subject.config.backend.name
        more: dict[str, Any] = {"backend": name, "params": result.record.params, "twin": pair}
        self._add(kind, self.steps[0], result.images, labels, **more)
        if count < statistics.fewest(self.judgement.features):
            self.missing.append(
                f"Fréchet distance of {count} {kind} pictures: {self.judgement.features} features take at least "
                f"{statistics.fewest(self.judgement.features)}"
            )

    def _add(self, kind: Kind, steps: int, images: Array, labels: Labels, **more: Any) -> None:
        self.progress(Progress("judge", 0, 1, kind))
        fields: dict[str, Any] = {"backend": None, "params": None, "ranges": None, "twin": None}
        judged = self.judgement.judge(images, labels)
        self.sets.append(SetRecord(kind=kind, steps=steps, **(fields | judged | more)))
        self.progress(Progress("judge", 1, 1, kind))

    def _shown(self, twins: Array) -> tuple[ShownRecord, ...]:
        """The first samples, what they may be copied from, and real pictures of their labels where these are here."""
        reference, shown = self.judgement.reference, twins[:SHOWN]
        rows = self.model.features(bounded(shown))
        distances, indices = statistics.nearest(rows, reference.training)
        labels = self._labels(len(shown))
        if (pictures := reference.training_images) is None:
            self.missing.append("pictures of the training set: the data is not here, only its features")
        else:
            self.columns["nearest"] = pictures[indices]
            known = self.judgement.training_labels
            assert known is not None
            places = [np.flatnonzero(known == label)[0] for label in labels]
            self.columns["real"] = pictures[places]
        if self.judgement.training_labels is None:
            self.missing.append("diversity of real pictures: their labels are not known")
        return tuple(
            ShownRecord(label=int(label), nearest=int(index), distance=float(distance))
            for label, index, distance in zip(labels, indices, distances, strict=True)
        )

    def _simulated(self) -> int:
        """How many are simulated: none by default where the simulator cannot follow."""
        if self.asked.simulated is not None:
            return self.asked.simulated
        if self.subject.config.refresh.name == "bootstrap":
            self.missing.append("simulated pictures: the simulator cannot bootstrap")
            return 0
        return DEFAULT_DRAWN

    def _encrypted(self) -> int:
        chosen = self.subject.config.resolve()["backend"]
        if self.asked.encrypted == 0:
            return 0
        if make(chosen.entry, chosen.options).capabilities.simulated:
            if self.asked.encrypted is not None:
                raise ConfigError(
                    f"--encrypted {self.asked.encrypted}: backend {chosen.entry.name!r} encrypts nothing; leave it "
                    "out, or choose another backend, for example --backend tenseal"
                )
            return 0
        return DEFAULT_DRAWN if self.asked.encrypted is None else self.asked.encrypted

    def _command(self) -> str:
        """What repeats it."""
        words = ["hefw", "quality", *self.words, "--samples", str(self.asked.samples)]
        words += ["--steps", ",".join(map(str, self.steps)), "--seed", str(self.asked.seed)]
        words += ["--simulated", str(self.simulated), "--encrypted", str(self.encrypted)]
        return shlex.join(words)
