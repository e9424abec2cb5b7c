"""Training of the judge."""

from __future__ import annotations

import torch
from torch.nn import functional

from hefw.models.mnist.data import Pictures
from hefw.models.mnist.judge import Judge
from hefw.models.training import Progress, Recipe, fit, one_thread, seeded

RECIPE = Recipe(iterations=1_000, learning_rate=4e-3)
BATCH = 100
#: Pixels by which training images are shifted, each way.
SHIFT = 2


def train_judge(
    pictures: Pictures, recipe: Recipe = RECIPE, *, seed: int = 0, progress: Progress | None = None
) -> Judge:
    """A judge of these pictures, in eval mode; the same for the same arguments."""

    def loss(judge: Judge, iteration: int, generator: torch.Generator) -> torch.Tensor:
        pick = torch.randint(len(pictures), (BATCH,), generator=generator)
        rows, columns = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=generator).tolist()
        images = torch.roll(pictures.images[pick], (rows, columns), (2, 3))
        return functional.cross_entropy(judge(images), pictures.labels[pick])

    def train() -> Judge:
        judge: Judge = Judge()
        fit(judge, loss, recipe, seed=seed, progress=progress, what="judge: loss")
        judge.eval()
        return judge  # not the average: the statistics of batch normalisation belong to these weights

    with one_thread():
        trained: Judge = seeded(seed, train)
    return trained
