"""`hefw train mnist-text`: the judge, the autoencoder, and denoiser and text encoder together."""

from __future__ import annotations

from pathlib import Path

from hefw.models.mnist.bundle import write_shared
from hefw.models.mnist.data import load_for
from hefw.models.mnist.text.bundle import write
from hefw.models.mnist.text.training import train_prompted
from hefw.models.mnist.train import Report, part_of, train_shared
from hefw.models.mnist.training import autoencoder, judge
from hefw.models.training import Progress, Recipe

RECIPE = Recipe(iterations=6_000, learning_rate=2e-3)


def run(
    out: Path,
    *,
    seed: int = 0,
    iterations: int | None = None,
    data: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """See `hefw.models.training.Training`; `iterations` in all are shared among the parts as by default."""
    pictures = load_for("mnist-text", data)
    recipes = (judge.RECIPE, autoencoder.RECIPE, RECIPE)
    share = 1.0 if iterations is None else iterations / sum(recipe.iterations for recipe in recipes)
    report = Report(progress, sum(part_of(recipe, share).iterations for recipe in recipes))
    shared = train_shared(pictures, share, seed=seed, report=report)
    recipe = part_of(RECIPE, share)
    trained = train_prompted(pictures.training, shared.autoencoder, {}, recipe, seed=seed, progress=report.part(recipe))
    write_shared(out, shared)
    write(out, trained)
