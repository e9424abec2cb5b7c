"""Training of `mnist`: every part learns, and does the same again from the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mnist_files import blobs, write_mnist
from safetensors.torch import load_file

from hefw.core.errors import ConfigError
from hefw.models.mnist import judge as judges
from hefw.models.mnist.bundle import load
from hefw.models.mnist.data import Mnist
from hefw.models.mnist.data import load as load_data
from hefw.models.mnist.schedule import make_scheduler
from hefw.models.mnist.train import Variant, mnist, mnist_2step, mnist_large
from hefw.models.mnist.training.autoencoder import train_autoencoder
from hefw.models.mnist.training.denoiser import (
    NO_LABEL,
    Latents,
    distil_guidance,
    distil_steps,
    draw,
    grown,
    guided,
    strange_penalty,
    train_guided,
    train_teacher,
    trajectories,
)
from hefw.models.mnist.training.judge import train_judge
from hefw.models.training import Recipe

TINY = {"channels": 8, "quadratics": 3, "maps": 2}
ONCE = Recipe(1, 1e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mnist")
    write_mnist(made, *blobs(100))
    return made


@pytest.fixture(scope="module")
def data(folder: Path) -> Mnist:
    return load_data(folder)


@pytest.fixture(scope="module")
def latents() -> Latents:
    """One point a label, and a little around it."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 10
    centres = torch.randn(10, 2, 8, 8, generator=generator)
    return Latents(centres[labels] + 0.1 * torch.randn(200, 2, 8, 8, generator=generator), labels)


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_a_judge_learns_to_tell_pictures_apart(data: Mnist) -> None:
    judge = train_judge(data.training, Recipe(20, 4e-3))
    found = judges.labels_of(judge, judges.features(judge, data.held_out.images))
    assert (found == data.held_out.labels).float().mean() > 0.8
    assert not judge.training


def test_a_judge_is_the_same_from_the_same_seed(data: Mnist) -> None:
    first, again, other = (train_judge(data.training, Recipe(2, 4e-3), seed=seed) for seed in (3, 3, 4))
    assert equal(first, again)
    assert not equal(first, other)


def test_an_autoencoder_learns_pictures_and_its_latents_are_standard(data: Mnist) -> None:
    short, longer = (train_autoencoder(data.training, Recipe(n, 2e-3)) for n in (1, 20))
    with torch.no_grad():
        errors = [(part(data.held_out.images) - data.held_out.images).abs().mean() for part in (short, longer)]
        deviation = longer.encode(data.held_out.images).std()
    assert errors[1] < 0.7 * errors[0]
    assert 0.5 < deviation < 2


def test_a_teacher_learns_v(latents: Latents) -> None:
    batch = draw(latents, make_scheduler(), torch.Generator().manual_seed(7))
    errors = []
    for iterations in (1, 40):
        teacher = train_teacher(latents, TINY, Recipe(iterations, 4e-3))
        with torch.no_grad():
            errors.append(float((teacher(batch.noisy, batch.timesteps, batch.labels).sample - batch.v).square().mean()))
    assert errors[1] < 0.8 * errors[0]


def test_a_teacher_has_one_label_more_than_its_student(latents: Latents) -> None:
    teacher = train_teacher(latents, TINY, ONCE)
    student = distil_guidance(teacher, latents, ONCE)
    assert teacher.config.num_classes == NO_LABEL + 1
    assert student.config.num_classes == NO_LABEL
    assert equal(student, distil_guidance(teacher, latents, ONCE))


def test_a_grown_denoiser_computes_the_same_and_learns_more(latents: Latents) -> None:
    teacher = train_teacher(latents, TINY, Recipe(3, 1e-3))
    denoiser = distil_guidance(teacher, latents, Recipe(3, 1e-3))
    deep = grown(denoiser, 5)
    x, t, y = latents.latents[:4], torch.tensor([0, 300, 700, 999]), latents.labels[:4]
    with torch.no_grad():
        assert torch.allclose(deep(x, t, y).sample, denoiser(x, t, y).sample, atol=1e-5)
    trained = train_guided(deep, teacher, latents, Recipe(3, 1e-3))
    assert trained.config.quadratics == 5
    assert not torch.equal(trained.mid[0].weight, deep.mid[0].weight)
    assert not torch.equal(trained.conditioning[2].label.weight, deep.conditioning[2].label.weight)


def test_training_further_takes_guidance_from_the_teacher(latents: Latents) -> None:
    teacher = train_teacher(latents, TINY, ONCE)
    denoiser = distil_guidance(teacher, latents, ONCE)
    unguided = train_guided(denoiser, teacher, latents, Recipe(3, 1e-3))
    torch.nn.init.normal_(teacher.out.weight)
    assert not equal(unguided, train_guided(denoiser, teacher, latents, Recipe(3, 1e-3)))


def test_guidance_goes_from_the_prediction_without_label_beyond_the_one_with_it(latents: Latents) -> None:
    teacher = train_teacher(latents, TINY, ONCE).double()  # float32 would round sums in another order
    torch.nn.init.normal_(teacher.out.weight)
    x, t, y = latents.latents[:3].double(), torch.tensor([0, 500, 999]), latents.labels[:3]
    with torch.no_grad():
        with_label, without = teacher(x, t, y).sample, teacher(x, t, torch.full_like(y, NO_LABEL)).sample
    assert torch.allclose(guided(teacher, x, t, y, 1.0), with_label, atol=1e-5)
    assert torch.allclose(guided(teacher, x, t, y, 3.0), with_label + 2 * (with_label - without), atol=1e-5)


def test_a_batch_holds_the_v_that_leads_back_to_its_latents(latents: Latents) -> None:
    scheduler = make_scheduler()
    batch = draw(latents, scheduler, torch.Generator().manual_seed(0))
    kept = scheduler.alphas_cumprod[batch.timesteps][:, None, None, None]
    clean = kept.sqrt() * batch.noisy - (1 - kept).sqrt() * batch.v
    distances = (clean[:, None] - latents.latents[None]).abs().amax((2, 3, 4)).amin(1)
    assert 0.6 < (distances < 1e-4).float().mean() < 0.95  # a fifth has some extra noise
    assert batch.timesteps.min() < 20
    assert batch.timesteps.max() > 980


def test_strange_latents_are_tried_every_third_time(latents: Latents) -> None:
    teacher = train_teacher(latents, TINY, ONCE)
    generator = torch.Generator().manual_seed(0)
    batch = draw(latents, make_scheduler(), generator)
    penalties = [float(strange_penalty(teacher, batch, k, generator).detach()) for k in range(3)]
    assert penalties[0] > 0
    assert penalties[1:] == [0.0, 0.0]


def test_a_trajectory_goes_from_noise_through_the_moments_of_few_steps(latents: Latents) -> None:
    denoiser = distil_guidance(train_teacher(latents, TINY, Recipe(5, 4e-3)), latents, ONCE)
    drawn = trajectories(denoiser, 2, torch.Generator().manual_seed(1), 150)
    assert drawn.latents.shape == (3, 150, 2, 8, 8)
    assert drawn.labels.tolist() == [k % 10 for k in range(150)]
    assert torch.equal(drawn.latents[0], torch.randn(150, 2, 8, 8, generator=torch.Generator().manual_seed(1)))
    # one large step of v-prediction turns x and v by the angle between the two moments, at which few steps are, too
    scheduler = make_scheduler()
    scheduler.set_timesteps(2)
    with torch.no_grad():
        v = denoiser(drawn.latents[0], 999, drawn.labels).sample
    large = scheduler.step(v, scheduler.timesteps[0], drawn.latents[0]).prev_sample
    assert (large - drawn.latents[1]).square().mean() < (large - drawn.latents[2]).square().mean()


def test_distilled_steps_come_closer_to_the_end_of_many(latents: Latents) -> None:
    denoiser = distil_guidance(train_teacher(latents, TINY, Recipe(40, 4e-3)), latents, ONCE)
    student = distil_steps(denoiser, 2, Recipe(12, 4e-3))
    drawn = trajectories(denoiser, 2, torch.Generator().manual_seed(9), 100)
    errors = []
    for unet in (denoiser, student):
        short = trajectories(unet, 2, torch.Generator().manual_seed(9), 100, fine=2)
        errors.append(float((short.latents[2] - drawn.latents[2]).square().mean()))
    assert errors[1] < 0.9 * errors[0]


def test_a_training_writes_a_folder_of_its_own_and_reports_all_parts(folder: Path, tmp_path: Path) -> None:
    variant = Variant(
        "tiny",
        Recipe(4, 1e-3),
        Recipe(2, 1e-3),
        unet=TINY,
        quadratics=4,
        further=Recipe(2, 1e-3),
        steps=2,
        fewer=Recipe(2, 1e-3),
    )
    said: list[tuple[int, int, str]] = []
    variant(tmp_path, iterations=12, data=folder, progress=lambda *report: said.append(report))
    parts = ["judge", "autoencoder", "teacher", "guidance distilled", "guided", "2 steps distilled"]
    assert [what.split(":")[0] for _, _, what in said] == parts
    done = [number for number, _, _ in said]
    assert done == sorted(done)
    assert said[-1][0] == said[-1][1]
    found = load(tmp_path)
    assert found.unet.config.channels == TINY["channels"]
    assert found.shared.reference.real.shape == (20, 64)
    assert found.shared.reference.training.shape == (80, 64)
    assert found.shared.reference.training_labels is not None
    assert found.shared.reference.training_labels.tolist() == [k % 10 for k in range(80)]
    stored = [load_file(path) for path in tmp_path.rglob("*.safetensors")]
    assert {value.dtype for tensors in stored for value in tensors.values()} <= {
        torch.float16,
        torch.int64,
        torch.uint8,
    }


def test_a_training_without_data_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model 'mnist' is trained on data.*--data DIR.*t10k-images-idx3-ubyte"):
        mnist(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("variant", [mnist, mnist_2step, mnist_large])
def test_the_variants_differ_in_what_their_names_say(variant: Variant) -> None:
    assert (variant.steps == 2) == (variant.name == "mnist-2step")
    assert (variant.quadratics is not None) == (variant.name == "mnist-large")
    assert len(variant.recipes) == 4 + (variant.name != "mnist")
    assert variant.iterations == sum(recipe.iterations for recipe in variant.recipes)
