"""The model `stable-diffusion`: what diffusers' own pipeline draws, with one error line for each bad input."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

import hefw
from hefw import plugins
from hefw.config import Choice, resolve
from hefw.core.errors import ConfigError
from hefw.models.base import PromptModel, Watch, Wish
from hefw.models.plugin import StableDiffusionOptions
from hefw.models.stable_diffusion.model import StableDiffusion
from hefw.testing.pipelines import NOISE_LEVELS, Kind, tiny_pipeline

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 4
PROMPTS = ("a red cat", "an astronaut riding a horse")
KINDS: tuple[Kind, ...] = ("v1", "v2", "xl")


def nobody(step: int, latents: Any) -> None:
    """Watches nothing."""


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pipeline of each kind, as save_pretrained writes it."""
    folder = tmp_path_factory.mktemp("pipelines")
    for kind in KINDS:
        tiny_pipeline(kind).save_pretrained(folder / kind)
    return folder


@pytest.fixture(scope="session")
def models(saved: Path) -> dict[str, StableDiffusion]:
    return {kind: model(saved / kind) for kind in KINDS}


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph of some other size, with an alpha channel."""
    path = tmp_path_factory.mktemp("pictures") / "stripes.png"
    rows = np.linspace(0, 255, 50).astype(np.uint8)[:, None, None] * np.ones((1, 90, 4), np.uint8)
    Image.fromarray(rows, "RGBA").save(path)
    return path


def model(folder: Path, **options: Any) -> StableDiffusion:
    return StableDiffusion(StableDiffusionOptions(pretrained=str(folder), device="cpu", **options))


def own_scheduler(made: StableDiffusion, folder: Path) -> Any:
    return made.scheduler(type(diffusers.DiffusionPipeline.from_pretrained(folder).scheduler), {})


def generators(seed: int, count: int = len(PROMPTS)) -> list[torch.Generator]:
    return [torch.Generator("cpu").manual_seed(seed + i) for i in range(count)]


def pictures_of(pipe: Any) -> Any:
    """A pipeline's own pictures of PROMPTS (images, 3, height, width), white 1."""
    return pipe(
        list(PROMPTS),
        negative_prompt=["green"] * 2,
        guidance_scale=5.0,
        num_inference_steps=STEPS,
        generator=generators(3),
        output_type="np",
    ).images.transpose(0, 3, 1, 2)


def draw(made: StableDiffusion, wish: Wish, watch: Watch = nobody, **options: Any) -> Any:
    return made.draw(wish, made.scheduler(diffusers.DDIMScheduler, {"clip_sample": False, **options}), watch)


# -- the pipeline's own pictures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_pictures_are_those_of_the_pipeline(kind: str, saved: Path, models: dict[str, StableDiffusion]) -> None:
    made = models[kind]
    assert isinstance(made, PromptModel)
    wish = Wish(PROMPTS, STEPS, seed=3, negative_prompt="green", guidance_scale=5.0)
    watched: list[Any] = []
    scheduler = own_scheduler(made, saved / kind)
    latents = made.draw(wish, scheduler, lambda step, latents: watched.append((step, latents)))
    images = made.decode(latents)

    pipe = diffusers.DiffusionPipeline.from_pretrained(saved / kind)
    assert type(scheduler) is type(pipe.scheduler)
    expected = pictures_of(pipe)
    assert made.latent_shape == (4, 8, 8)
    assert latents.shape == (2, 4, 8, 8)
    assert latents.dtype == images.dtype == np.float64
    assert images.shape == (2, 3, 64, 64)
    np.testing.assert_allclose((images + 1) / 2, expected, atol=1e-5)
    assert [step for step, _ in watched] == list(range(len(scheduler.timesteps)))
    np.testing.assert_array_equal(watched[-1][1], latents)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_to_start_from(kind: str, saved: Path, models: dict[str, StableDiffusion], picture: Path) -> None:
    made = models[kind]
    wish = Wish(PROMPTS, STEPS, seed=3, init_image=picture, strength=0.5)
    watched: list[int] = []
    latents = made.draw(wish, own_scheduler(made, saved / kind), lambda step, _: watched.append(step))
    start = Image.open(picture).convert("RGB").resize((64, 64), Image.Resampling.LANCZOS)
    pipe = diffusers.AutoPipelineForImage2Image.from_pretrained(saved / kind)
    expected = pipe(
        list(PROMPTS), image=start, strength=0.5, num_inference_steps=STEPS, generator=generators(3), output_type="np"
    ).images.transpose(0, 3, 1, 2)
    np.testing.assert_allclose((made.decode(latents) + 1) / 2, expected, atol=1e-5)
    assert watched == list(range(3 if kind == "v1" else 2))  # PNDM takes one step twice


@pytest.mark.parametrize("kind", [diffusers.DDIMScheduler, diffusers.EulerAncestralDiscreteScheduler])
def test_an_image_does_not_depend_on_those_beside_it(kind: Any, models: dict[str, StableDiffusion]) -> None:
    made = models["v2"]
    both, alone = (
        made.draw(Wish(prompts, STEPS, seed), made.scheduler(kind, {}), nobody)
        for prompts, seed in ((PROMPTS, 6), (PROMPTS[1:], 7))
    )
    np.testing.assert_allclose(both[1:], alone, atol=1e-4)
    assert np.abs(both[0] - both[1]).max() > 0.1


def test_prompt_guidance_negative_prompt_and_seed_matter(models: dict[str, StableDiffusion]) -> None:
    wishes = [
        Wish(("a red cat",), STEPS),
        Wish(("a green dog",), STEPS),
        Wish(("a red cat",), STEPS, guidance_scale=1.0),
        Wish(("a red cat",), STEPS, negative_prompt="horse"),
        Wish(("a red cat",), STEPS, seed=1),
    ]
    drawn = [draw(models["v2"], wish) for wish in wishes]
    for i in range(len(drawn)):
        for j in range(i):
            assert np.abs(drawn[i] - drawn[j]).max() > 1e-2, (i, j)
    np.testing.assert_array_equal(draw(models["v2"], wishes[0]), drawn[0])


def test_drawing_leaves_the_pipeline_and_the_global_generator_alone(
    models: dict[str, StableDiffusion], picture: Path
) -> None:
    made = models["v2"]
    before, state = made._pipe.scheduler, torch.get_rng_state()
    draw(made, Wish(("a cat",), STEPS))
    draw(made, Wish(("a cat",), STEPS, init_image=picture, strength=0.6))
    assert made._pipe.scheduler is before
    assert before.num_inference_steps is None
    assert torch.equal(torch.get_rng_state(), state)


def test_another_size(saved: Path) -> None:
    made = model(saved / "v1", height=80, width=48)
    assert made.latent_shape == (4, 10, 6)
    latents = draw(made, Wish(("a cat",), 2))
    assert latents.shape == (1, 4, 10, 6)
    assert made.decode(latents).shape == (1, 3, 80, 48)


def test_half_precision(saved: Path, models: dict[str, StableDiffusion]) -> None:
    made = model(saved / "v2", dtype="bfloat16")
    assert made._pipe.unet.dtype == torch.bfloat16
    images, exact = (each.decode(draw(each, Wish(("a cat",), STEPS))) for each in (made, models["v2"]))
    assert 0 < np.abs(images - exact).mean() < 0.05


def test_a_scheduler_keeps_what_the_model_was_trained_for(models: dict[str, StableDiffusion]) -> None:
    made = models["v2"].scheduler(diffusers.EulerDiscreteScheduler, {"timestep_spacing": None})
    assert made.config.prediction_type == "v_prediction"
    assert made.config.beta_end == NOISE_LEVELS["beta_end"]
    # PNDM's config has no clip_sample, and DDIM's default is True
    assert not models["v1"].scheduler(diffusers.DDIMScheduler, {}).config.clip_sample
    assert models["v1"].scheduler(diffusers.DDIMScheduler, {"clip_sample": True}).config.clip_sample
    trailing = models["v1"].scheduler(diffusers.DDIMScheduler, {"timestep_spacing": "trailing"})
    assert trailing.config.timestep_spacing == "trailing"


def test_pictures_that_the_pipeline_would_not_show_are_black(saved: Path) -> None:
    class Checker:
        def __call__(self, images: Any, clip_input: Any) -> Any:
            assert clip_input.shape == (2, 3)
            return images * torch.tensor([1.0, 0.0])[:, None, None, None], [False, True]

    class Features:
        def __call__(self, images: Any, return_tensors: str) -> Any:
            assert [image.size for image in images] == [(64, 64)] * 2
            return self

        def to(self, device: Any) -> Any:
            self.pixel_values = torch.zeros(2, 3)
            return self

    made = model(saved / "v1")
    latents = draw(made, Wish(PROMPTS, 2))
    unchecked = made.decode(latents)
    made._pipe.safety_checker, made._pipe.feature_extractor = Checker(), Features()
    images = made.decode(latents)
    np.testing.assert_array_equal(images[0], unchecked[0])
    np.testing.assert_array_equal(images[1], -np.ones((3, 64, 64)))


def test_nothing_is_printed(saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = model(saved / "v1")
    made.decode(draw(made, Wish(("a cat",), 2)))
    out, err = capfd.readouterr()
    assert out == ""
    assert "%|" not in err


# -- on ciphertext -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", ["noise", "picture"])
def test_generate_draws_what_the_pipeline_draws(kind: str, start: str, saved: Path, picture: Path) -> None:
    result = hefw.generate(
        backend="simulator",
        model={"name": "stable-diffusion", "pretrained": str(saved / kind), "device": "cpu"},
        prompt=PROMPTS,
        negative_prompt="green",
        guidance_scale=5.0,
        init_image=str(picture) if start == "picture" else None,
        strength=0.5 if start == "picture" else None,
        steps=STEPS,
        seed=3,
    )
    assert result.images.shape == (2, 3, 64, 64)
    assert result.record.psnr_db is not None
    assert result.record.psnr_db >= 50
    assert result.record.protocol == "update-only"
    assert result.record.prompts == PROMPTS
    assert result.record.ledger.server_plaintext_fraction == 0
    pipe = diffusers.DiffusionPipeline.from_pretrained(saved / kind)
    assert result.record.model.scheduler == type(pipe.scheduler).__name__
    if start == "noise":
        expected = pictures_of(pipe)
        np.testing.assert_allclose((result.images + 1) / 2, expected, atol=1e-3)


# -- registration ------------------------------------------------------------------------------------------------------


def test_it_is_registered_and_imports_stay_light(saved: Path) -> None:
    chosen = resolve("model", Choice("stable-diffusion", {"pretrained": str(saved / "v1")}))
    assert plugins.registry().load("model", chosen.entry.name) is StableDiffusion
    script = "import sys, hefw.models.plugin; print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_pretrained_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="option 'pretrained' is missing"):
        resolve("model", Choice("stable-diffusion"))
    with pytest.raises(ValidationError):
        StableDiffusionOptions(pretrained="")


# -- what cannot be loaded ---------------------------------------------------------------------------------------------


def refused(folder: Path | str, **options: Any) -> str:
    with pytest.raises(ConfigError) as error:
        StableDiffusion(StableDiffusionOptions(pretrained=str(folder), **options))
    said = str(error.value)
    assert "\n" not in said
    assert str(folder) in said or options
    return said


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    assert "does not exist; give a folder that save_pretrained wrote" in refused(tmp_path / "nothing")
    assert "does not exist" in refused("~/no/such/folder")


def test_home_is_found(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(saved))
    assert StableDiffusion(StableDiffusionOptions(pretrained="~/v1", device="cpu")).latent_shape == (4, 8, 8)


def test_a_file_is_no_folder(picture: Path) -> None:
    assert "is a file" in refused(picture)


def test_a_folder_that_is_no_pipeline(tmp_path: Path) -> None:
    assert "no file named model_index.json" in refused(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    assert "names no class" in refused(tmp_path)
    (tmp_path / "model_index.json").write_text("[]")
    assert "names no class" in refused(tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    assert "is not a valid JSON file" in refused(tmp_path)


def test_pipelines_without_unet_or_text_encoder(tmp_path: Path) -> None:
    index = {
        "_class_name": "PixArtAlphaPipeline",
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "transformer": ["diffusers", "Transformer2DModel"],
        "unet": [None, None],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    assert "is a PixArtAlphaPipeline, which has no UNet (its parts: scheduler, transformer)" in refused(tmp_path)
    index = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPM"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    assert "is a DDPMPipeline, which has no vae, text_encoder, tokenizer" in refused(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_weights_that_cannot_be_read(damage: str, saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(saved / "v1", folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    data = weights.read_bytes()
    weights.unlink()
    if damage == "cut":
        weights.write_bytes(data[:1000])
    assert "cannot be loaded: " in refused(folder)
    assert "diffusion_pytorch_model" in refused(folder)


def test_a_unet_that_wants_a_mask(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "inpainting"
    pipe = diffusers.DiffusionPipeline.from_pretrained(saved / "v1")
    pipe.unet = diffusers.UNet2DConditionModel.from_config({**pipe.unet.config, "in_channels": 9})
    pipe.save_pretrained(folder)
    assert "needs a mask or another image" in refused(folder)


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_that_cannot_be_reached(offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise socket.gaierror("no such host")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr("time.sleep", lambda _: None)
    said = refused("nobody/no-such-pipeline")
    assert "is no folder here, and the Hugging Face hub cannot be reached (" in said
    assert ("offline mode is enabled" if offline else "no such host") in said
    assert said.endswith("; give a folder that save_pretrained wrote")


def test_devices_and_sizes_that_are_not_there(saved: Path) -> None:
    assert "device 'gpu' cannot be used" in refused(saved / "v1", device="gpu")
    if not torch.cuda.is_available():
        assert "device 'cuda' cannot be used" in refused(saved / "v1", device="cuda")
    assert "height 68 is not allowed; allowed: multiples of 8 pixels" in refused(saved / "v1", height=68)
    assert "width 12 is not allowed; allowed: multiples of 8 pixels" in refused(saved / "v1", width=12)


# -- what cannot be drawn ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prompts": ()}, "draws from prompts, and none is given"),
        ({"guidance_scale": -1.0}, "guidance_scale -1.0 is not allowed"),
        ({"guidance_scale": float("nan")}, "guidance_scale nan is not allowed"),
        ({"guidance_scale": float("inf")}, "guidance_scale inf is not allowed"),
        ({"strength": 0.5}, "strength 0.5 is given without init_image"),
        ({"strength": 1.5, "init_image": "PICTURE"}, "strength 1.5 is not allowed; allowed: from 0 to 1"),
        ({"strength": -0.1, "init_image": "PICTURE"}, "strength -0.1 is not allowed"),
        ({"strength": float("nan"), "init_image": "PICTURE"}, "strength nan is not allowed"),
        (
            {"strength": 0.2, "init_image": "PICTURE"},
            "strength 0.2 of 4 steps is less than one step; give at least 0.25",
        ),
        ({"init_image": Path("nothing.png")}, "init_image 'nothing.png' does not exist"),
        ({"init_image": Path(__file__)}, "is no picture"),
        ({"init_image": Path(__file__).parent}, "is no picture"),
    ],
)
def test_wishes_that_are_refused(
    given: dict[str, Any], said: str, models: dict[str, StableDiffusion], picture: Path
) -> None:
    given = {"prompts": ("a cat",)} | {name: picture if v == "PICTURE" else v for name, v in given.items()}
    with pytest.raises(ConfigError) as error:
        draw(models["v1"], Wish(steps=STEPS, **given))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
