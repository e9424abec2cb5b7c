"""Training of the denoisers: a teacher with guidance, then students that need one evaluation a step, and few steps."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import nn
from torch.nn import functional

from hefw.models.mnist.data import CLASSES
from hefw.models.mnist.schedule import TIMESTEPS, make_scheduler
from hefw.models.mnist.unet import LatentUNet
from hefw.models.training import Loss, Progress, Recipe, fit, one_thread, range_penalty, seeded

BATCH = 64
#: The label of no label, of which classifier-free guidance needs a prediction (Ho and Salimans 2022).
NO_LABEL = CLASSES
#: Share of training images whose label is hidden.
HIDDEN = 0.1
GUIDANCE = 1.5
#: Predictions beyond this are penalised where latents are unlike any.
LARGEST_PREDICTION = 5.0
#: Latents that are drawn once, to learn from in fewer steps; and the steps they are drawn in.
TRAJECTORIES = 8_192
FINE_STEPS = 20


@dataclass(frozen=True)
class Latents:
    """Latents (count, channels, height, width) of training pictures, and their labels (count,)."""

    latents: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Batch:
    """Noisy latents at timesteps (count,) with labels (count,), and the v that belongs to them."""

    noisy: torch.Tensor
    timesteps: torch.Tensor
    labels: torch.Tensor
    v: torch.Tensor


def train_teacher(
    latents: Latents, config: dict[str, Any], recipe: Recipe, *, seed: int = 0, progress: Progress | None = None
) -> LatentUNet:
    """A denoiser with one label more, `NO_LABEL`; `config` is of `LatentUNet`. The same for the same arguments."""
    scheduler = make_scheduler()

    def loss(unet: LatentUNet, iteration: int, generator: torch.Generator) -> torch.Tensor:
        batch = draw(latents, scheduler, generator)
        hidden = torch.rand(BATCH, generator=generator) < HIDDEN
        labels = torch.where(hidden, NO_LABEL, batch.labels)
        prediction, z = unet.forward_with_preactivations(batch.noisy, batch.timesteps, labels)
        error = functional.mse_loss(prediction, batch.v)
        return error + 0.05 * range_penalty(z) + strange_penalty(unet, batch, iteration, generator)

    with one_thread():
        teacher = seeded(seed, lambda: LatentUNet(**{**config, "num_classes": CLASSES + 1}))
        return _fit(teacher, loss, recipe, seed, progress, "teacher: loss")


def distil_guidance(
    teacher: LatentUNet, latents: Latents, recipe: Recipe, *, seed: int = 0, progress: Progress | None = None
) -> LatentUNet:
    """A denoiser whose one prediction is the teacher's guided one (Meng et al. 2023), begun from the teacher."""
    scheduler = make_scheduler()

    def loss(unet: LatentUNet, iteration: int, generator: torch.Generator) -> torch.Tensor:
        batch = draw(latents, scheduler, generator)
        wanted = guided(teacher, batch.noisy, batch.timesteps, batch.labels)
        prediction, z = unet.forward_with_preactivations(batch.noisy, batch.timesteps, batch.labels)
        error = functional.mse_loss(prediction, wanted)
        return error + 0.05 * range_penalty(z) + strange_penalty(unet, batch, iteration, generator)

    with one_thread():
        student = without_no_label(teacher)
        return _fit(student, loss, recipe, seed, progress, "guidance distilled: loss")


def train_guided(
    unet: LatentUNet,
    teacher: LatentUNet,
    latents: Latents,
    recipe: Recipe,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> LatentUNet:
    """`unet` trained further on latents themselves; of the teacher, it takes guidance only."""
    scheduler = make_scheduler()

    def loss(unet: LatentUNet, iteration: int, generator: torch.Generator) -> torch.Tensor:
        batch = draw(latents, scheduler, generator)
        with_label, without = with_and_without_label(teacher, batch.noisy, batch.timesteps, batch.labels)
        wanted = batch.v + (GUIDANCE - 1) * (with_label - without)
        prediction, z = unet.forward_with_preactivations(batch.noisy, batch.timesteps, batch.labels)
        error = functional.mse_loss(prediction, wanted)
        return error + 0.05 * range_penalty(z) + strange_penalty(unet, batch, iteration, generator)

    with one_thread():
        student = copy.deepcopy(unet).requires_grad_(True)
        return _fit(student, loss, recipe, seed, progress, "guided: loss")


def grown(unet: LatentUNet, quadratics: int, seed: int = 0) -> LatentUNet:
    """The same function by a denoiser of more quadratics: regions that add nothing yet, at the lower resolution."""
    deep: LatentUNet = seeded(seed, lambda: LatentUNet(**{**_own(unet), "quadratics": quadratics}))
    last = unet.config.quadratics - 2  # the last of the lower resolution
    new = range(last + 1, quadratics - 1)
    for part in (deep.conditioning, deep.activations):
        old = unet.conditioning if part is deep.conditioning else unet.activations
        for k in range(last + 1):
            part[k].load_state_dict(old[k].state_dict())
        part[-1].load_state_dict(old[-1].state_dict())
    for k in new:
        deep.activations[k].load_state_dict(unet.activations[last].state_dict())
        nn.init.zeros_(deep.mid[k - 2].weight)
        for layer in (deep.conditioning[k].time, deep.conditioning[k].label):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
    rest = {
        name: value
        for name, value in unet.state_dict().items()
        if not name.startswith(("conditioning.", "activations."))
    }
    deep.load_state_dict({**deep.state_dict(), **rest})
    return deep


def draw(latents: Latents, scheduler: DDIMScheduler, generator: torch.Generator, count: int = BATCH) -> Batch:
    """A random batch at stratified timesteps: less variance than independent ones."""
    pick = torch.randint(len(latents), (count,), generator=generator)
    clean = latents.latents[pick]
    share = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    timesteps = (share * TIMESTEPS).long().clamp(max=TIMESTEPS - 1)
    noise = torch.randn(clean.shape, generator=generator)
    noisy = scheduler.add_noise(clean, noise, timesteps)
    v = scheduler.get_velocity(clean, noise, timesteps)
    # a sampler's states are slightly off the training distribution; some extra noise makes the model forgive that
    extra = (torch.rand(count, 1, 1, 1, generator=generator) < 0.2).float()
    noisy = noisy + 0.1 * extra * torch.randn(clean.shape, generator=generator)
    return Batch(noisy, timesteps, latents.labels[pick], v)


def strange_penalty(unet: LatentUNet, batch: Batch, iteration: int, generator: torch.Generator) -> torch.Tensor:
    """Every third time: pre-activations and predictions that leave their range on latents unlike any."""
    if iteration % 3:
        return batch.noisy.new_zeros(())
    few = batch.noisy[::5] * (1 + torch.rand(len(batch.noisy[::5]), 1, 1, 1, generator=generator))
    wild = 1.7 * torch.randn(16, *batch.noisy.shape[1:], generator=generator)
    strange = torch.cat([wild, few + 0.3 * torch.randn(few.shape, generator=generator)])
    timesteps = torch.cat([torch.randint(TIMESTEPS, (len(wild),), generator=generator), batch.timesteps[::5]])
    labels = torch.randint(CLASSES, (len(strange),), generator=generator)
    prediction, z = unet.forward_with_preactivations(strange, timesteps, labels)
    excess = functional.relu(prediction.abs() - LARGEST_PREDICTION).square().mean()
    return 0.15 * range_penalty(z) + 0.01 * excess


def guided(
    teacher: LatentUNet, noisy: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor, weight: float = GUIDANCE
) -> torch.Tensor:
    """The teacher's prediction for labels, away from its prediction for none (Ho and Salimans 2022)."""
    with_label, without = with_and_without_label(teacher, noisy, timesteps, labels)
    return weight * with_label + (1 - weight) * without


@torch.no_grad()  # type: ignore[untyped-decorator]
def with_and_without_label(
    teacher: LatentUNet, noisy: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The teacher's predictions for labels and for `NO_LABEL`, in one evaluation."""
    twice = torch.cat([labels, torch.full_like(labels, NO_LABEL)])
    both = teacher(torch.cat([noisy, noisy]), torch.cat([timesteps, timesteps]), twice).sample
    with_label, without = both.chunk(2)
    return with_label, without


def without_no_label(teacher: LatentUNet) -> LatentUNet:
    """A copy of a teacher that knows labels only."""
    student: LatentUNet = LatentUNet(**{**_own(teacher), "num_classes": CLASSES})
    weights = teacher.state_dict()
    for name, value in student.state_dict().items():
        weights[name] = weights[name][: len(value)]
    student.load_state_dict(weights)
    return student


def _own(unet: LatentUNet) -> dict[str, Any]:
    """The arguments that make such a network."""
    return {name: value for name, value in unet.config.items() if not name.startswith("_")}


def _fit(unet: LatentUNet, loss: Loss, recipe: Recipe, seed: int, progress: Progress | None, what: str) -> LatentUNet:
    """`fit`, with weights in the order in memory in which convolutions over few places take least time."""
    trained = fit(unet.to(memory_format=torch.channels_last), loss, recipe, seed=seed, progress=progress, what=what)
    result: LatentUNet = trained.to(memory_format=torch.contiguous_format)
    return result


@dataclass(frozen=True)
class Trajectories:
    """Latents at the ends of few large steps, by many small ones: (steps + 1, count, channels, height, width)."""

    latents: torch.Tensor
    labels: torch.Tensor


@torch.no_grad()  # type: ignore[untyped-decorator]
def trajectories(
    denoiser: LatentUNet, steps: int, generator: torch.Generator, count: int, fine: int = FINE_STEPS
) -> Trajectories:
    """`count` latents that `denoiser` draws in `fine` steps, of which `steps + 1` moments are kept."""
    config = denoiser.config
    shape = (config.sample_channels, config.sample_size, config.sample_size)
    scheduler = make_scheduler()
    labels = torch.arange(count) % CLASSES
    kept: list[torch.Tensor] = []
    for part in torch.randn(count, *shape, generator=generator).split(BATCH):
        own = labels[len(kept) * BATCH :][: len(part)]
        scheduler.set_timesteps(fine)
        moments = [part]
        for k, timestep in enumerate(scheduler.timesteps, start=1):
            part = scheduler.step(denoiser(part, timestep, own).sample, timestep, part).prev_sample
            if k % (fine // steps) == 0:
                moments.append(part)
        kept.append(torch.stack(moments))
    return Trajectories(torch.cat(kept, dim=1), labels)


def distil_steps(
    denoiser: LatentUNet, steps: int, recipe: Recipe, *, seed: int = 0, progress: Progress | None = None
) -> LatentUNet:
    """A denoiser that draws in `steps` steps what `denoiser` draws from the same noise in many (Salimans and Ho 2022).

    All its steps are done in a row, each from where the one before has come to, so that later ones mend earlier ones.
    """
    with one_thread():
        count = min(TRAJECTORIES, BATCH * recipe.iterations)
        drawn = trajectories(denoiser, steps, torch.Generator().manual_seed(seed), count)

        def loss(unet: LatentUNet, iteration: int, generator: torch.Generator) -> torch.Tensor:
            pick = torch.randint(len(drawn.labels), (BATCH,), generator=generator)
            labels = drawn.labels[pick]
            scheduler = make_scheduler()
            scheduler.set_timesteps(steps)
            x = drawn.latents[0, pick]
            total = x.new_zeros(())
            for timestep, wanted in zip(scheduler.timesteps, drawn.latents[1:, pick], strict=True):
                prediction, z = unet.forward_with_preactivations(x, timestep, labels)
                x = scheduler.step(prediction, timestep, x).prev_sample
                total = total + functional.mse_loss(x, wanted) + 0.05 * range_penalty(z)
            noisy = x.detach()
            ends = Batch(noisy, torch.full((BATCH,), int(scheduler.timesteps[-1])), labels, noisy)
            return total + strange_penalty(unet, ends, iteration, generator)

        student = copy.deepcopy(denoiser).requires_grad_(True)
        return _fit(student, loss, recipe, seed, progress, f"{steps} steps distilled: loss")
