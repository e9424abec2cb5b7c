"""Image to image and inpainting: a run that starts from a picture, and what of it a mask keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import hefw
from hefw import editing
from hefw.config import Config
from hefw.core.errors import ConfigError, SchedulerError
from hefw.models.digits.train import load_images, make_scheduler
from hefw.models.noising import check_changes, noising
from hefw.models.schedules import converted
from hefw.record import SCHEMA_PATH
from hefw.report.write import write_run

STEPS = 5
#: What 8 bits of a picture file lose at most.
ROUNDING = 1 / 255 + 1e-9
SIMULATED: dict[str, Any] = {"backend": "simulator", "labels": "3,8", "steps": STEPS}


def shades(values: np.ndarray[Any, Any]) -> Image.Image:
    """A picture of values (height, width) from black -1 to white 1."""
    return Image.fromarray(((values + 1) * 127.5).round().astype(np.uint8))


@pytest.fixture(scope="module")
def three() -> np.ndarray[Any, Any]:
    """A real three, (8, 8)."""
    return np.asarray(load_images()[0][3, 0].double().numpy())


@pytest.fixture
def picture(three: np.ndarray[Any, Any], tmp_path: Path) -> str:
    shades(three).save(tmp_path / "three.png")
    return str(tmp_path / "three.png")


@pytest.fixture
def mask(tmp_path: Path) -> str:
    """White in the upper half."""
    white = np.full((8, 8), -1.0)
    white[:4] = 1
    shades(white).save(tmp_path / "mask.png")
    return str(tmp_path / "mask.png")


def schedule(name: str) -> Any:
    return converted(make_scheduler(), getattr(diffusers, name), {})


# -- reading pictures and masks ---------------------------------------------------------------------------------------


def test_a_grey_picture_of_the_size_is_taken_as_it_is(three: np.ndarray[Any, Any], picture: str) -> None:
    found, size = editing.read_picture(Path(picture), (1, 8, 8))
    assert size == (8, 8)
    assert found.shape == (1, 8, 8)
    assert np.abs(found[0] - three).max() <= ROUNDING


def test_colours_become_grey_sizes_are_scaled_and_what_is_clear_is_black(tmp_path: Path) -> None:
    pixels = np.zeros((32, 64, 4), np.uint8)
    pixels[..., 0] = 255  # red, half of it transparent
    pixels[:, :32, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "red.png")
    found, size = editing.read_picture(tmp_path / "red.png", (1, 8, 8))
    assert size == (64, 32)
    assert np.allclose(found[0, :, :3], 76 / 127.5 - 1, atol=0.02)  # of red, as television has it
    assert np.allclose(found[0, :, 5:], -1, atol=0.02)
    coloured, _ = editing.read_picture(tmp_path / "red.png", (3, 8, 8))
    assert np.allclose(coloured[0, :, :3], 1, atol=0.02)
    assert np.allclose(coloured[1:], -1, atol=0.02)


def test_a_picture_is_turned_the_right_way_up(tmp_path: Path) -> None:
    left = Image.new("L", (8, 4), 0)
    left.paste(255, (0, 0, 4, 4))
    turned = Image.Exif()
    turned[0x0112] = 6  # turn clockwise to see it upright
    left.save(tmp_path / "left.png", exif=turned)
    found, size = editing.read_picture(tmp_path / "left.png", (1, 8, 4))
    assert size == (4, 8)
    assert np.array_equal(found[0] > 0, np.arange(8)[:, None].repeat(4, 1) < 4)


@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_a_mask_covers_every_place_that_has_a_white_pixel(rows: int, columns: int, data: st.DataObject) -> None:
    down, right = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    height = data.draw(st.integers(rows * (down - 1) + 1, rows * down))
    width = data.draw(st.integers(columns * (right - 1) + 1, columns * right))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width)))
    mask = mask.reshape(height, width)
    found = editing.cover(mask, (rows, columns))
    above, left = (rows * down - height) // 2, (columns * right - width) // 2
    wanted = np.zeros((rows, columns), dtype=np.bool_)
    for y, x in np.argwhere(mask):
        wanted[(y + above) // down, (x + left) // right] = True
    assert np.array_equal(found, wanted)


# -- where a schedule begins ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "HeunDiscreteScheduler"]
)
@pytest.mark.parametrize("strength", [0.29, 0.6, 1.0])
def test_a_schedule_begins_where_the_pipelines_of_diffusers_begin(name: str, strength: float) -> None:
    made = schedule(name)
    found = noising(made, 10, strength)
    made.set_timesteps(10)
    pipe = diffusers.StableDiffusionImg2ImgPipeline
    timesteps, left = pipe.get_timesteps(type("Pipe", (), {"scheduler": made})(), 10, strength, "cpu")
    assert left == round(10 * strength - 0.45)
    assert found.steps == len(timesteps)
    assert np.array_equal(made.timesteps[found.begin :], timesteps)
    latents, noise = np.random.default_rng(0).normal(size=(2, 3, 1, 4, 4))
    theirs = made.add_noise(torch.from_numpy(latents), torch.from_numpy(noise), timesteps[:1]).numpy()
    assert np.abs(found.at(0, latents, noise) - theirs).max() < 1e-6
    assert np.array_equal(found.at(found.steps, latents, noise), latents)


def test_methods_that_keep_what_they_returned_bear_no_mask() -> None:
    for name in ("DDIMScheduler", "EulerDiscreteScheduler", "DDPMScheduler"):
        check_changes(schedule(name), STEPS, 1)
    for name in ("PNDMScheduler", "UniPCMultistepScheduler", "HeunDiscreteScheduler"):
        with pytest.raises(SchedulerError, match=f"{name} takes for its latent .* use ddim or euler"):
            check_changes(schedule(name), STEPS)


# -- whole runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"scheduler": "euler"},
        {"scheduler": "dpm-solver++"},
        {"refresh": {"name": "client", "every": 2}, "steps": 6},
        {"protocol": "update-only", "scheduler": "pndm"},
    ],
    ids=str,
)
def test_image_to_image_is_the_twins(picture: str, more: dict[str, Any]) -> None:
    result = hefw.generate(**{**SIMULATED, **more, "init_image": picture, "strength": 0.7})
    record = result.record
    assert record.psnr_db is not None
    assert record.psnr_db > 60
    assert record.edit is not None
    assert record.edit.begin > 0
    assert record.evaluations < record.config["steps"] or "pndm" in str(more)
    assert record.ledger.server_plaintext_fraction == 0


def test_little_strength_stays_near_the_picture_and_much_leaves_it(three: np.ndarray[Any, Any], picture: str) -> None:
    far = {
        strength: np.abs(
            hefw.generate(
                **{**SIMULATED, "labels": "8", "steps": 10}, init_image=picture, strength=strength, twin=False
            ).images
            - three
        ).mean()
        for strength in (0.2, 1.0)
    }
    assert far[0.2] < far[1.0] / 2


def test_the_twin_is_what_diffusers_would_draw(picture: str) -> None:
    """By a loop written out here, as in StableDiffusionImg2ImgPipeline."""
    from hefw.models.digits.train import load

    result = hefw.generate(**SIMULATED, init_image=picture, strength=0.6, seed=4)
    unet, scheduler = load()
    scheduler.set_timesteps(STEPS)
    image, _ = editing.read_picture(Path(picture), (1, 8, 8))
    noise = torch.from_numpy(np.random.default_rng(4).normal(size=(2, 1, 8, 8)))
    timesteps = scheduler.timesteps[2:]
    x = scheduler.add_noise(torch.from_numpy(image[None]).expand(2, -1, -1, -1), noise, timesteps[:1])
    with torch.no_grad():
        for t in timesteps:
            x = scheduler.step(unet.double()(x, t, torch.tensor([3, 8])).sample, t, x).prev_sample
    assert result.plain is not None
    assert np.abs(result.plain - x.numpy()).max() < 1e-6


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"strength": 0.6, "scheduler": "euler", "batch": 1},
        {"protocol": "update-only"},
        {"protocol": "update-only", "scheduler": "ddpm"},
        {"strategy": "random"},
    ],
    ids=str,
)
def test_inpainting_draws_the_white_part_and_keeps_the_rest(
    three: np.ndarray[Any, Any], picture: str, mask: str, more: dict[str, Any]
) -> None:
    result = hefw.generate(**{**SIMULATED, **more}, init_image=picture, mask=mask)
    assert np.abs(result.images[:, 0, 4:] - three[4:]).max() <= ROUNDING
    assert np.abs(result.images[:, 0, :4] - three[:4]).max() > 0.2
    assert result.record.psnr_db is not None
    assert result.record.psnr_db > 60
    assert result.record.edit is not None
    assert result.record.edit.drawn == 0.5
    # the kept part is as noisy as the rest at every step: the drawn part can follow it
    states = result.trajectory[:, 0, 0, 4:]
    assert np.abs(states[-1] - three[4:]).max() <= ROUNDING
    assert np.all(np.diff(np.abs(states - three[4:]).mean(axis=(1, 2))) < 0)


def test_the_kept_part_is_noised_as_in_diffusers_inpainting(picture: str, mask: str) -> None:
    from hefw.models.digits.train import load

    result = hefw.generate(**SIMULATED, init_image=picture, mask=mask, seed=1)
    unet, scheduler = load()
    scheduler.set_timesteps(STEPS)
    image = torch.from_numpy(editing.read_picture(Path(picture), (1, 8, 8))[0][None]).expand(2, -1, -1, -1)
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 1, 8, 8)))
    white = torch.zeros(8, 8, dtype=torch.bool)
    white[:4] = True
    x = noise * scheduler.init_noise_sigma
    with torch.no_grad():
        for k, t in enumerate(scheduler.timesteps):
            x = scheduler.step(unet.double()(x, t, torch.tensor([3, 8])).sample, t, x).prev_sample
            kept = image
            if k + 1 < STEPS:
                kept = scheduler.add_noise(image, noise, scheduler.timesteps[k + 1 : k + 2])
            x = torch.where(white, x, kept)
    assert result.plain is not None
    assert np.abs(result.plain - x.numpy()).max() < 1e-6


def test_the_server_is_sent_no_more_than_in_any_run(picture: str, mask: str) -> None:
    plain = hefw.generate(**SIMULATED, twin=False)
    edited = hefw.generate(**SIMULATED, twin=False, init_image=picture, mask=mask)
    told = [[entry.model_dump(exclude={"bytes"}) for entry in r.record.ledger.entries] for r in (plain, edited)]
    assert told[0] == told[1]
    assert edited.record.model.digest == plain.record.model.digest


def test_the_report_shows_picture_and_mask(picture: str, mask: str, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.open(picture).resize((64, 64)).save(large)
    Image.open(mask).resize((64, 64)).save(mask)
    result = hefw.generate(**SIMULATED, twin=False, init_image=str(large), mask=mask, strength=0.6, strategy="random")
    paths = write_run(result, tmp_path / "out")
    assert tmp_path / "out" / "start.png" in paths
    page = (tmp_path / "out" / "report.html").read_text()
    assert "started from a picture, scaled from 64x64 to 8x8 pixels, with strength 0.6, and drew 50 % of its" in page
    assert "From two steps the server can compute what was kept" in page
    assert f"--init-image {large} --strength 0.6 --mask {mask}" in page
    jsonschema.validate(json.loads(result.record.to_json()), json.loads(SCHEMA_PATH.read_text()))
    write_run(hefw.generate(**SIMULATED, twin=False), tmp_path / "out")
    assert not (tmp_path / "out" / "start.png").exists()


@pytest.mark.secure
def test_an_encrypted_edit_is_the_twins(three: np.ndarray[Any, Any], picture: str, mask: str) -> None:
    result = hefw.generate(backend="tenseal", labels="0-3", steps=2, init_image=picture, mask=mask)
    assert not result.record.insecure
    assert result.record.psnr_db is not None
    assert result.record.psnr_db > 40
    assert np.abs(result.images[:, 0, 4:] - three[4:]).max() <= ROUNDING


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"init_image": "none.png"}, "init_image 'none.png' does not exist; give the path of a picture"),
        ({"init_image": __file__}, "is no picture"),
        ({"mask": "none.png"}, "mask 'none.png' does not exist"),
        ({"mask": "SMALL"}, "is 4x4 pixels, the picture 8x8 pixels; give a mask of the picture's size"),
        ({"mask": "BLACK"}, "is black everywhere"),
        ({"strength": 0.1}, "strength 0.1 of 5 steps is less than one step; give at least 0.2, or more steps"),
        ({"init_image": None, "strength": 0.5}, "strength 0.5 is given without init_image"),
        ({"init_image": None, "mask": "MASK"}, "is given without init_image; give the picture with --init-image"),
        ({"mask": "MASK", "refresh": "none"}, "mask with refresh: none is not allowed: .* use refresh: client without"),
        ({"mask": "MASK", "refresh": {"name": "client", "every": 5}}, "mask with refresh: every 5 is not allowed"),
        ({"mask": "MASK", "refresh": "bootstrap"}, "mask with refresh: bootstrap is not allowed"),
        ({"mask": "MASK", "scheduler": "unipc"}, "UniPCMultistepScheduler takes for its latent"),
    ],
    ids=str,
)
def test_what_cannot_be_edited_is_one_line(picture: str, mask: str, tmp_path: Path, more: Any, message: str) -> None:
    files = {"MASK": mask, "SMALL": str(tmp_path / "small.png"), "BLACK": str(tmp_path / "black.png")}
    Image.new("L", (4, 4), 255).save(files["SMALL"])
    Image.new("L", (8, 8), 0).save(files["BLACK"])
    named = {key: files.get(value, value) if isinstance(value, str) else value for key, value in more.items()}
    with pytest.raises((ConfigError, SchedulerError), match=message) as caught:
        hefw.generate(**SIMULATED, **{"init_image": picture, **named})
    assert "\n" not in str(caught.value)


def test_a_model_without_an_encoder_starts_from_noise_only(toys: None, picture: str) -> None:
    import toy_model

    with pytest.raises(ConfigError, match="model 'toy' cannot start from a picture: it has no encoder"):
        hefw.generate(**{**toy_model.CONFIG, "init_image": picture})


def test_the_command_that_repeats_a_run_names_the_mask() -> None:
    command = Config(init_image="a.png", strength=0.5, mask="a b.png").command()
    assert "--init-image a.png --strength 0.5 --mask 'a b.png'" in command
