"""`hefw train mnist` and its variants: the judge, the autoencoder and a denoiser, from MNIST's own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hefw.models.mnist import autoencoder as autoencoders
from hefw.models.mnist.bundle import Shared, make_reference, write, write_shared
from hefw.models.mnist.data import Mnist, load_for
from hefw.models.mnist.training import autoencoder, judge
from hefw.models.mnist.training.autoencoder import train_autoencoder
from hefw.models.mnist.training.denoiser import (
    Latents,
    distil_guidance,
    distil_steps,
    grown,
    train_guided,
    train_teacher,
)
from hefw.models.mnist.training.judge import train_judge
from hefw.models.mnist.unet import LatentUNet
from hefw.models.training import Progress, Recipe


@dataclass(frozen=True)
class Variant:
    """How one denoiser is made; for `hefw train`, a `hefw.models.training.Training`.

    A teacher is trained first, and guidance is distilled from it into the denoiser itself. With `quadratics`, that one
    is grown to as many and trained further; with `steps`, it is distilled once more, for so many.
    """

    name: str
    teacher: Recipe
    guidance: Recipe
    unet: Mapping[str, Any] = field(default_factory=dict)
    quadratics: int | None = None
    further: Recipe | None = None
    steps: int | None = None
    fewer: Recipe | None = None

    def __call__(
        self,
        out: Path,
        *,
        seed: int = 0,
        iterations: int | None = None,
        data: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Train everything and write it to `out`; `iterations` in all are shared among the parts as by default."""
        pictures = load_for(self.name, data)
        share = 1.0 if iterations is None else iterations / self.iterations
        report = Report(progress, sum(part_of(recipe, share).iterations for recipe in self.recipes))
        shared = train_shared(pictures, share, seed=seed, report=report)
        unet = self.train_denoiser(pictures, shared, share, seed=seed, report=report)
        write_shared(out, shared)
        write(out, unet)

    @property
    def recipes(self) -> list[Recipe]:
        """Of all parts, in order."""
        found = [judge.RECIPE, autoencoder.RECIPE, self.teacher, self.guidance, self.further, self.fewer]
        return [recipe for recipe in found if recipe is not None]

    @property
    def iterations(self) -> int:
        """Of all parts together."""
        return sum(recipe.iterations for recipe in self.recipes)

    def train_denoiser(self, pictures: Mnist, shared: Shared, share: float, *, seed: int, report: Report) -> LatentUNet:
        """The denoiser of this variant in an autoencoder's latents."""
        training = pictures.training
        latents = Latents(autoencoders.encode(shared.autoencoder, training.images), training.labels)
        config = {**self.unet, "sample_size": latents.latents.shape[-1], "sample_channels": latents.latents.shape[1]}
        recipe = part_of(self.teacher, share)
        teacher = train_teacher(latents, config, recipe, seed=seed, progress=report.part(recipe))
        recipe = part_of(self.guidance, share)
        unet = distil_guidance(teacher, latents, recipe, seed=seed, progress=report.part(recipe))
        if self.quadratics is not None and self.further is not None:
            recipe = part_of(self.further, share)
            unet = grown(unet, self.quadratics, seed)
            unet = train_guided(unet, teacher, latents, recipe, seed=seed, progress=report.part(recipe))
        if self.steps is not None and self.fewer is not None:
            recipe = part_of(self.fewer, share)
            unet = distil_steps(unet, self.steps, recipe, seed=seed, progress=report.part(recipe))
        return unet


def train_shared(pictures: Mnist, share: float, *, seed: int, report: Report) -> Shared:
    """Judge and autoencoder, the same for all variants of one seed."""
    recipe = part_of(judge.RECIPE, share)
    trained_judge = train_judge(pictures.training, recipe, seed=seed, progress=report.part(recipe))
    recipe = part_of(autoencoder.RECIPE, share)
    trained = train_autoencoder(pictures.training, recipe, seed=seed, progress=report.part(recipe))
    return Shared(trained, trained_judge, make_reference(trained_judge, pictures))


class Report:
    """Progress of several parts as one."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def part(self, recipe: Recipe) -> Progress:
        """The progress of the next part."""
        before = self.done
        self.done += recipe.iterations

        def show(done: int, total: int, what: str) -> None:
            if self.progress is not None:
                self.progress(before + done, self.total, what)

        return show


def part_of(recipe: Recipe, share: float) -> Recipe:
    """A recipe with so many of its iterations, at least one."""
    return replace(recipe, iterations=max(1, round(share * recipe.iterations)))


TEACHER = Recipe(iterations=5_000, learning_rate=2e-3)
GUIDANCE = Recipe(iterations=1_200, learning_rate=1e-3)

mnist = Variant("mnist", TEACHER, GUIDANCE)
mnist_2step = Variant("mnist-2step", TEACHER, GUIDANCE, steps=2, fewer=Recipe(1_000, 1e-3))
mnist_large = Variant("mnist-large", TEACHER, GUIDANCE, quadratics=6, further=Recipe(3_500, 1.5e-3))
