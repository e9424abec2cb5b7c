"""Image to image and inpainting: a run that starts from a picture, and what of it a mask keeps."""

from __future__ import annotations

import json
from dataclasses import replace
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
from hefw.models.digits.model import Digits
from hefw.models.digits.train import load, load_images, make_scheduler
from hefw.models.noising import check_changes, noising
from hefw.models.plugin import DigitsOptions
from hefw.models.schedules import Own, converted
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


# -- what the plaintext twin draws ------------------------------------------------------------------------------------


def twin(picture: str, **more: Any) -> tuple[np.ndarray[Any, Any], editing.Edit]:
    """Images (2, 1, 8, 8) of a three and an eight by seed 4, and the edit."""
    model = Digits(DigitsOptions())
    edit = editing.prepare(Config(init_image=picture, **more), model, lambda: model.scheduler(Own, {}), STEPS)
    assert edit is not None
    noise = np.random.default_rng(4).normal(size=(2, 1, 8, 8))
    latents = model.twin(
        edit.start(noise, 1.0),
        np.array([3, 8]),
        model.scheduler(Own, {}),
        STEPS,
        lambda step, latents: edit.keep(step, latents, noise),
        edit.noising.begin,
    )
    return edit.paste(latents), edit


def by_diffusers(picture: str, strength: float, mask: torch.Tensor | None) -> np.ndarray[Any, Any]:
    """The same by a loop written as in StableDiffusionImg2ImgPipeline and StableDiffusionInpaintPipeline."""
    unet, scheduler = load()
    unet = unet.double()
    scheduler.set_timesteps(STEPS)
    timesteps = scheduler.timesteps[STEPS - int(STEPS * strength) :]
    image = torch.from_numpy(editing.read_picture(Path(picture), (1, 8, 8))[0][None]).expand(2, -1, -1, -1)
    noise = torch.from_numpy(np.random.default_rng(4).normal(size=(2, 1, 8, 8)))
    alone = mask is not None and strength == 1
    x = noise * scheduler.init_noise_sigma if alone else scheduler.add_noise(image, noise, timesteps[:1])
    with torch.no_grad():
        for k, t in enumerate(timesteps):
            x = scheduler.step(unet(x, t, torch.tensor([3, 8])).sample, t, x).prev_sample
            if mask is not None:
                last = k + 1 == len(timesteps)
                kept = image if last else scheduler.add_noise(image, noise, timesteps[k + 1 : k + 2])
                x = mask * x + (1 - mask) * kept
    return np.asarray(x.numpy())


@pytest.mark.parametrize("strength", [0.4, 1.0])
@pytest.mark.parametrize("masked", [False, True])
def test_it_is_what_diffusers_draws(picture: str, mask: str, strength: float, masked: bool) -> None:
    white = torch.zeros(8, 8)
    white[:4] = 1
    found, _ = twin(picture, strength=strength, mask=mask if masked else None)
    assert np.abs(found - by_diffusers(picture, strength, white if masked else None)).max() < 1e-6


def test_little_strength_stays_near_the_picture_and_much_leaves_it(three: np.ndarray[Any, Any], picture: str) -> None:
    far = [np.abs(twin(picture, strength=strength)[0] - three).mean() for strength in (0.2, 1.0)]
    assert far[0] < far[1] / 2


def test_strength_is_that_of_diffusers_pipelines_where_none_is_given(picture: str, mask: str) -> None:
    assert twin(picture)[1].strength == 0.8
    assert twin(picture, mask=mask)[1].strength == 1


# -- whole runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {"scheduler": "dpm-solver++"},
        {"refresh": {"name": "client", "every": 2}, "steps": 6},
        {"protocol": "update-only", "scheduler": "pndm"},
    ],
    ids=str,
)
def test_image_to_image_is_the_twins(picture: str, more: dict[str, Any]) -> None:
    record = hefw.generate(**{**SIMULATED, **more, "init_image": picture, "strength": 0.7}).record
    assert record.psnr_db is not None
    assert record.psnr_db > 60
    assert record.edit is not None
    assert record.edit.begin > 0
    assert record.evaluations < record.config["steps"] or "pndm" in str(more)
    assert record.ledger.server_plaintext_fraction == 0


@pytest.fixture(scope="module")
def files(three: np.ndarray[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A picture and its mask, larger than the model's."""
    folder = tmp_path_factory.mktemp("files")
    shades(three.repeat(4, 0).repeat(4, 1)).save(folder / "large.png")
    shades(np.where(np.arange(32)[:, None] < 16, 1.0, -1.0).repeat(32, 1)).save(folder / "mask.png")
    return str(folder / "large.png"), str(folder / "mask.png")


@pytest.fixture(scope="module")
def inpainted(files: tuple[str, str]) -> hefw.run.Result:
    return hefw.generate(**SIMULATED, init_image=files[0], mask=files[1])


def check(result: hefw.run.Result) -> None:
    """The upper half is drawn, the lower one is the picture's at the end and nears it at every step before."""
    assert result.source is not None
    kept = result.source[0, 4:]
    assert np.array_equal(result.images[:, 0, 4:], np.stack([kept, kept]))
    assert np.abs(result.images[:, 0, :4] - result.source[0, :4]).max() > 0.2
    assert result.record.psnr_db is not None
    assert result.record.psnr_db > 60
    assert result.record.edit is not None
    assert result.record.edit.drawn == 0.5
    assert np.all(np.diff(np.abs(result.trajectory[:, 0, 0, 4:] - kept).mean(axis=(1, 2))) < 0)


def test_inpainting_draws_the_white_part_and_keeps_the_rest(inpainted: hefw.run.Result) -> None:
    check(inpainted)
    assert np.abs(inpainted.source - load_images()[0][3].numpy()).max() < 0.5
    assert len(inpainted.trajectory) == STEPS + 1


def test_in_update_only_too_also_where_the_scheduler_adds_noise(files: tuple[str, str]) -> None:
    check(hefw.generate(**SIMULATED, init_image=files[0], mask=files[1], protocol="update-only", scheduler="ddpm"))


def test_the_server_is_sent_no_more_than_in_any_run(inpainted: hefw.run.Result) -> None:
    plain = hefw.generate(**SIMULATED, twin=False)
    told = [[entry.model_dump(exclude={"bytes"}) for entry in r.record.ledger.entries] for r in (plain, inpainted)]
    assert told[0] == told[1]
    assert inpainted.record.model.digest == plain.record.model.digest


def test_the_report_shows_picture_and_mask_and_what_a_partial_strategy_shows(
    files: tuple[str, str], tmp_path: Path
) -> None:
    large, mask = files
    words = {"init_image": large, "mask": mask, "strength": 0.6, "strategy": "random", "batch": 1}
    result = hefw.generate(**SIMULATED, **words)
    check(result)
    paths = write_run(result, tmp_path / "out")
    assert tmp_path / "out" / "start.png" in paths
    page = (tmp_path / "out" / "report.html").read_text()
    assert "started from a picture, scaled from 32x32 to 8x8 pixels, with strength 0.6, and drew 50 % of its" in page
    assert "From two steps the server can compute what was kept" in page
    assert f"--init-image {large} --strength 0.6 --mask {mask}" in page
    jsonschema.validate(json.loads(result.record.to_json()), json.loads(SCHEMA_PATH.read_text()))
    write_run(replace(result, source=None, mask=None), tmp_path / "out")
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
