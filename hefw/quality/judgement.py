"""Pictures judged by their model's classifier, in its feature space, beside real pictures."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.models.base import Judged, Reference
from hefw.quality import statistics
from hefw.quality.record import IntervalRecord, ReferenceRecord, SetRecord, SpreadRecord

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

#: Beyond, a picture has diverged: black is -1 and white 1.
DIVERGED = 5.0


def bounded(images: Array) -> Array:
    """Pictures without what has diverged: clipped to +-5, and 0 where a value is no number."""
    return np.clip(np.nan_to_num(images, nan=0.0), -DIVERGED, DIVERGED)


class Judgement:
    """Judges sets of pictures of one model. `seed` draws the real pictures of a floor, and resamples."""

    def __init__(self, model: Judged, reference: Reference, seed: int) -> None:
        self.model = model
        self.reference = reference
        self.seed = seed
        self.features = reference.real.shape[1]
        self.held_out = not np.array_equal(reference.real, reference.training)
        self.floor = cache(self._floor)

    @property
    def record(self) -> ReferenceRecord:
        """What is compared with."""
        found = self.reference
        return ReferenceRecord(real=len(found.real), training=len(found.training), held_out=self.held_out)

    @property
    def training_labels(self) -> Labels | None:
        """Of the training pictures; read off them where the model does not know."""
        if self.reference.training_labels is not None or self.reference.training_images is None:
            return self.reference.training_labels
        return self.model.judge(self.reference.training_images)

    def real(self, pictures: int) -> SetRecord:
        """As many training pictures, or all of them if there are fewer, drawn at random: what a perfect model gives."""
        pick, reference = self._drawn(pictures), self.reference
        labels, accuracy = self.training_labels, None
        if reference.training_images is not None and reference.training_labels is not None:
            read = self.model.judge(reference.training_images[pick])
            accuracy = statistics.share(int((read == reference.training_labels[pick]).sum()), len(pick))
        distances, _ = statistics.nearest(reference.real, reference.training, others=not self.held_out)
        floor = self.floor(pictures)
        return SetRecord(
            kind="real",
            steps=None,
            pictures=len(pick),
            backend=None,
            params=None,
            accuracy=IntervalRecord.of(accuracy),
            distance=floor,
            floor=floor,
            diverged=0,
            diversity=None if labels is None else statistics.diversity(reference.training, labels),
            nearest=SpreadRecord.of(statistics.spread(distances)),
            ranges=None,
            twin=None,
        )

    def judge(self, images: Array, labels: Labels) -> dict[str, Any]:
        """The fields of a SetRecord that pictures (images, channels, height, width) of `labels` (images,) have."""
        size = np.abs(images).reshape(len(images), -1).max(1)
        finite = bool(np.isfinite(size).all())
        kept = bounded(images)
        rows = self.model.features(kept)
        enough = len(rows) >= statistics.fewest(self.features)
        distance = statistics.frechet(rows, self.reference.real, self.seed) if enough and finite else None
        return {
            "pictures": len(images),
            "accuracy": IntervalRecord.of(statistics.share(int((self.model.judge(kept) == labels).sum()), len(labels))),
            "distance": IntervalRecord.of(distance),
            "floor": self.floor(len(images)),
            "diverged": int((~(size <= DIVERGED)).sum()),
            "diversity": statistics.diversity(rows, labels),
            "nearest": SpreadRecord.of(statistics.spread(statistics.nearest(rows, self.reference.training)[0])),
        }

    def _drawn(self, pictures: int) -> NDArray[np.intp]:
        """Numbers of training pictures: as many as asked for, or all."""
        order = np.random.default_rng([self.seed, pictures]).permutation(len(self.reference.training))
        return np.asarray(order[:pictures])

    def _floor(self, pictures: int) -> IntervalRecord | None:
        pick = self._drawn(pictures)
        if len(pick) < statistics.fewest(self.features):
            return None
        rows = self.reference.training[pick]
        return IntervalRecord.of(statistics.frechet(rows, self.reference.real, self.seed))
