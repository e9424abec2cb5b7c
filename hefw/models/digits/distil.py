"""Training of `digits-distilled`: two steps that end where fifty steps of `digits` do."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional

from hefw.models.digits.train import DigitsTraining, load, make_scheduler
from hefw.models.digits.unet import DigitsUNet
from hefw.models.training import Progress, Recipe, fit, one_thread, range_penalty, seeded

STEPS = 2
TEACHER_STEPS = 50
TRAJECTORIES = 10_000
DEFAULT_ITERATIONS = 3_000
BATCH = 128
LEARNING_RATE = 1.5e-3
PENALTY = 0.05
BUNDLED = Path(__file__).parent / "weights" / "digits-distilled"


def distil(
    iterations: int = DEFAULT_ITERATIONS,
    *,
    seed: int = 0,
    trajectories: int = TRAJECTORIES,
    progress: Progress | None = None,
) -> DigitsUNet:
    """The bundled `digits`, trained on for `STEPS` steps; the result depends on the arguments only.

    Both samplers are deterministic, so that x_T decides what the teacher draws: the student, unrolled over its own
    steps, learns to pass through the teacher's latents of the same x_T.
    """
    with one_thread():
        teacher, _ = load()
        states, labels = trajectory(teacher, trajectories, seed, progress)
        scheduler = make_scheduler()
        scheduler.set_timesteps(STEPS)

        def loss(student: DigitsUNet, iteration: int, generator: torch.Generator) -> torch.Tensor:
            pick = torch.randint(len(labels), (BATCH,), generator=generator)
            sample, total = states[0, pick], states.new_zeros(())
            for step, timestep in enumerate(scheduler.timesteps):
                v, z = student.forward_with_preactivations(sample, timestep, labels[pick])
                sample = scheduler.step(v, timestep, sample).prev_sample
                weight = 2.0 if step == STEPS - 1 else 1.0  # the picture counts most
                total = total + weight * functional.mse_loss(sample, states[step + 1, pick])
                total = total + PENALTY * range_penalty(z)
            return total

        student: DigitsUNet = seeded(seed, lambda: DigitsUNet(channels=teacher.config.channels))
        student.load_state_dict(teacher.state_dict())
        student = fit(student, loss, Recipe(iterations, LEARNING_RATE), seed=seed, progress=progress)
    return student


@torch.no_grad()  # type: ignore[untyped-decorator]
def trajectory(
    teacher: DigitsUNet, count: int, seed: int, progress: Progress | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The teacher's latents at the student's timesteps and their end, (STEPS + 1, count, 1, size, size), and labels."""
    scheduler = make_scheduler()
    scheduler.set_timesteps(TEACHER_STEPS)
    size = teacher.config.sample_size
    sample = torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(count) % teacher.config.num_classes
    states = [sample]
    for step, timestep in enumerate(scheduler.timesteps):
        parts = zip(sample.split(500), labels.split(500), strict=True)  # such parts stay in a processor's cache
        sample = torch.cat([scheduler.step(teacher(x, timestep, y).sample, timestep, x).prev_sample for x, y in parts])
        if (step + 1) % (TEACHER_STEPS // STEPS) == 0:
            states.append(sample)
        if progress is not None:
            progress(step + 1, TEACHER_STEPS, "the teacher's trajectories")
    return torch.stack(states), labels


run = DigitsTraining(
    "digits-distilled", DEFAULT_ITERATIONS, lambda count, **how: distil(count, trajectories=TRAJECTORIES, **how)
)
