"""`hefw.wrap`: a pipeline that a diffusers user calls as before, with its updates on ciphertext."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import hefw
from hefw.core.errors import ConfigError, HefwError, PluginError, ProtocolError, SchedulerError
from hefw.testing.pipelines import tiny_pipeline

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 6
#: What the wrapped pipeline's pictures must reach against the unwrapped one's, in dB.
PSNR = 50.0


@pytest.fixture(scope="session")
def v1() -> Any:
    return tiny_pipeline("v1")


@pytest.fixture(scope="session")
def v2() -> Any:
    return tiny_pipeline("v2")


@pytest.fixture(scope="session")
def picture() -> Any:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))


@pytest.fixture
def wrap() -> Iterator[Callable[..., Any]]:
    """`hefw.wrap` on the simulator, closed after the test."""
    made = []

    def wrapped(pipe: Any, backend: Any = "simulator", **options: Any) -> Any:
        made.append(hefw.wrap(pipe, backend=backend, **options))
        return made[-1]

    yield wrapped
    for pipe in made:
        pipe.hefw.close()


def draw(pipe: Any, prompt: Any = ("a red cat", "an astronaut riding a horse"), steps: int = STEPS, **more: Any) -> Any:
    """(images, 3, height, width) from 0 to 1."""
    given: dict[str, Any] = {"guidance_scale": 5.0, "negative_prompt": ["green"] * len(prompt)} | more
    generator = torch.Generator("cpu").manual_seed(3)
    return pipe(list(prompt), num_inference_steps=steps, generator=generator, output_type="pt", **given).images


def psnr(images: Any, plain: Any) -> float:
    """Of pictures from 0 to 1, in dB; infinite where nothing differs."""
    mean = float(((torch.as_tensor(images) - torch.as_tensor(plain)) ** 2).mean())
    return -10 * math.log10(mean) if mean else math.inf


def servers() -> set[int]:
    """The server processes that run now."""
    return {child.pid for child in psutil.Process().children() if "hefw.protocol.serve" in child.cmdline()}


def shown(pipe: Any) -> set[tuple[str, str]]:
    """What the server got in the last steps: (item, form)."""
    return {(entry.item, entry.form) for entry in pipe.hefw.ledger.of("server") if entry.step is not None}


# -- the same pictures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["simulator", "tenseal"])
@pytest.mark.parametrize("kind", ["v1", "v2", "xl"])
def test_pictures_are_those_of_the_pipeline(kind: Any, backend: str, wrap: Callable[..., Any]) -> None:
    pipe = tiny_pipeline(kind)
    wrapped = wrap(pipe, backend)
    plain, images = draw(pipe), draw(wrapped)
    assert images.shape == plain.shape == (2, 3, 64, 64)
    assert psnr(images, plain) >= PSNR
    assert 0 < wrapped.hefw.largest_difference < 1e-3
    assert psnr(draw(pipe, ("a dog", "a photo of a dog")), plain) < PSNR - 10  # which is not said of any picture


@pytest.mark.secure
def test_the_true_size_at_128_bits(wrap: Callable[..., Any]) -> None:
    pipe = tiny_pipeline("v1", size=64)
    wrapped = wrap(pipe, "tenseal")
    plain, images = (draw(each, ("a red cat",), steps=50) for each in (pipe, wrapped))
    assert images.shape == (1, 3, 512, 512)
    assert psnr(images, plain) >= PSNR
    client = wrapped.hefw._updating.client
    assert client.interface.params.params.security_bits >= 128
    assert not client.interface.params.params.insecure
    assert wrapped.hefw.ledger.plaintext_fraction("server") == 0
    assert len({entry.step for entry in wrapped.hefw.ledger.of("server") if entry.step is not None}) == 51


@pytest.mark.parametrize(
    "kind",
    [
        diffusers.DDIMScheduler,
        diffusers.EulerDiscreteScheduler,
        diffusers.EulerAncestralDiscreteScheduler,
        diffusers.HeunDiscreteScheduler,
        diffusers.LMSDiscreteScheduler,
        diffusers.DPMSolverMultistepScheduler,
        diffusers.UniPCMultistepScheduler,
    ],
    ids=lambda kind: kind.__name__,
)
def test_a_scheduler_of_ones_own(kind: Any, v1: Any, wrap: Callable[..., Any]) -> None:
    scheduler = kind.from_config({**v1.scheduler.config, "clip_sample": False})
    wrapped = wrap(v1, scheduler=scheduler)
    assert type(v1.scheduler) is diffusers.PNDMScheduler
    plain = type(v1)(**{**v1.components, "scheduler": scheduler}, requires_safety_checker=False)
    plain.set_progress_bar_config(disable=True)
    assert psnr(draw(wrapped), draw(plain)) >= PSNR
    assert isinstance(wrapped.scheduler, kind)


def test_a_scheduler_by_name(v2: Any, wrap: Callable[..., Any]) -> None:
    wrapped = wrap(v2, scheduler={"name": "ddim", "timestep_spacing": "trailing"})
    assert isinstance(wrapped.scheduler, diffusers.DDIMScheduler)
    assert wrapped.scheduler.config.timestep_spacing == "trailing"
    assert wrapped.scheduler.config.prediction_type == "v_prediction"
    draw(wrapped)
    assert wrapped.scheduler.timesteps[0] == 999


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_a_picture_to_start_from(strength: float, v1: Any, picture: Any, wrap: Callable[..., Any]) -> None:
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**v1.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    wrapped = wrap(pipe)
    given = {"image": picture, "strength": strength}
    assert psnr(draw(wrapped, **given), draw(pipe, **given)) >= PSNR
    steps = {entry.step for entry in wrapped.hefw.ledger.of("server") if entry.step is not None}
    assert steps == set(range(4 if strength == 0.5 else STEPS + 1))  # PNDM takes one step twice


def test_inpainting(v2: Any, picture: Any, wrap: Callable[..., Any]) -> None:
    pipe = diffusers.StableDiffusionInpaintPipeline(**v2.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    given = {"image": picture, "mask_image": Image.new("L", (64, 64), 0), "strength": 0.8}
    given["mask_image"].paste(255, (0, 0, 32, 64))
    assert psnr(draw(wrap(pipe), **given), draw(pipe, **given)) >= PSNR


@pytest.mark.parametrize("kind", ["DDPM", "DDIM"])
def test_pipelines_without_prompts(kind: str, wrap: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    scheduler = getattr(diffusers, f"{kind}Scheduler")(clip_sample=False)
    pipe = getattr(diffusers, f"{kind}Pipeline")(unet.eval(), scheduler)
    pipe.set_progress_bar_config(disable=True)
    wrapped = wrap(pipe)

    def images(pipe: Any) -> Any:
        generator = torch.Generator("cpu").manual_seed(1)
        return pipe(batch_size=2, num_inference_steps=STEPS, generator=generator, output_type="np").images

    assert psnr(images(wrapped), images(pipe)) >= PSNR
    assert (("noise", "ciphertext") in shown(wrapped)) == (kind == "DDPM")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype, wrap: Callable[..., Any]) -> None:
    pipe = tiny_pipeline("v2").to(dtype=dtype)
    wrapped = wrap(pipe)
    images = draw(wrapped)
    assert images.dtype == dtype
    # to one rounding of a latent, which the network may amplify
    assert psnr(images.float(), draw(pipe).float()) >= (40 if dtype == torch.float16 else 25)


# -- what the server sees ----------------------------------------------------------------------------------------------


def test_the_ledger_lists_what_the_server_saw(v2: Any, wrap: Callable[..., Any]) -> None:
    wrapped = wrap(v2)
    assert wrapped.hefw.ledger.entries == []
    draw(wrapped)
    assert shown(wrapped) == {("latent", "ciphertext"), ("prediction", "ciphertext")}
    assert wrapped.hefw.ledger.plaintext_fraction("server") == 0
    per_step = [entry.step for entry in wrapped.hefw.ledger.of("server") if entry.item == "latent"]
    assert per_step == list(range(STEPS))
    assert {e.entries for e in wrapped.hefw.ledger.of("server") if e.item == "latent"} == {2 * 4 * 8 * 8}
    assert wrapped.hefw.figures.upload_per_step > 0
    wrapped.hefw.close()  # compares the list with the server's own
    assert len(shown(wrapped)) == 2


def test_noise_predictions_in_plaintext(v2: Any, wrap: Callable[..., Any]) -> None:
    wrapped = wrap(v2, noise_prediction="plaintext")
    assert psnr(draw(wrapped), draw(v2)) >= PSNR
    assert ("prediction", "plaintext") in shown(wrapped)
    assert ("latent", "plaintext") not in shown(wrapped)
    assert wrapped.hefw.ledger.plaintext_fraction("server") == pytest.approx(0.5)


def test_a_strategy_with_options(v2: Any, wrap: Callable[..., Any]) -> None:
    wrapped = wrap(v2, strategy={"name": "random", "fraction": 0.25})
    assert psnr(draw(wrapped), draw(v2)) >= PSNR
    assert ("latent", "plaintext") in shown(wrapped)
    assert wrapped.hefw.ledger.plaintext_fraction("server") == pytest.approx(0.75)


# -- a pipeline as diffusers' users know it ----------------------------------------------------------------------------


def test_the_original_stays_as_it_was(v2: Any, wrap: Callable[..., Any]) -> None:
    before, index, parts = draw(v2), dict(v2.config), dict(v2.components)
    wrapped = wrap(v2)
    draw(wrapped)
    assert isinstance(wrapped, diffusers.StableDiffusionPipeline)
    assert wrapped.components.keys() == parts.keys()
    for name, part in parts.items():
        assert getattr(v2, name) is part
        assert (getattr(wrapped, name) is part) == (name != "scheduler")
    assert dict(v2.config) == index
    assert not hasattr(v2, "hefw")
    count = len(wrapped.hefw.ledger.entries)
    assert torch.equal(draw(v2), before)
    assert len(wrapped.hefw.ledger.entries) == count


def test_one_server_serves_calls_of_one_schedule(v2: Any, wrap: Callable[..., Any]) -> None:
    others = servers()
    wrapped = wrap(v2)
    assert servers() == others  # nothing is started that may never be needed
    first = draw(wrapped)
    started = servers() - others
    assert len(started) == 1
    assert psnr(draw(wrapped), first) >= PSNR
    assert servers() - others == started
    draw(wrapped, steps=STEPS + 1)
    assert len(servers() - others) == 1
    assert servers() - others != started


def test_the_server_ends_with_the_pipeline(v2: Any) -> None:
    others = servers()
    with hefw.wrap(v2, backend="simulator") as wrapped:
        draw(wrapped)
        assert servers() != others
    assert servers() == others
    assert wrapped.hefw.ledger.entries
    draw(wrapped)  # starts another
    assert servers() != others
    with wrapped.hefw:
        pass
    assert servers() == others
    draw(wrapped)
    del wrapped
    gc.collect()
    assert servers() == others


def test_a_server_that_died_is_replaced(v2: Any, wrap: Callable[..., Any]) -> None:
    others = servers()
    wrapped = wrap(v2)
    images = draw(wrapped)
    (pid,) = servers() - others
    psutil.Process(pid).kill()
    with pytest.raises(ProtocolError, match="the server process"):
        draw(wrapped)
    assert psnr(draw(wrapped), images) >= PSNR
    assert len(servers() - others - {pid}) == 1


def test_an_interrupted_call_is_forgotten(v2: Any, wrap: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = wrap(v2)
    images = draw(wrapped)

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    for where in ("hefw.protocol.stream.Stream.receive", "hefw.models.encrypted.plain"):
        with monkeypatch.context() as patch:
            patch.setattr(where, interrupted)
            with pytest.raises(KeyboardInterrupt):
                draw(wrapped)
        assert psnr(draw(wrapped), images) >= PSNR


def test_any_seed_has_the_same_server(v2: Any, wrap: Callable[..., Any]) -> None:
    others = servers()
    wrapped = wrap(v2)
    started = set()
    for size in (1.0, 1.2, 1.5):  # of the largest of all entries: 3 to 5
        latents = size * torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
        draw(wrapped, ("a cat",), latents=latents)
        started |= servers() - others
    assert len(started) == 1


def test_a_scheduler_that_is_assigned_is_encrypted_too(v2: Any, wrap: Callable[..., Any]) -> None:
    wrapped = wrap(v2)
    for kind in (diffusers.EulerDiscreteScheduler, type(wrapped.scheduler)):
        wrapped.scheduler = kind.from_config(wrapped.scheduler.config, timestep_spacing="trailing")
        plain = type(v2)(**v2.components, requires_safety_checker=False)
        plain.scheduler = kind.from_config(v2.scheduler.config, timestep_spacing="trailing")
        plain.set_progress_bar_config(disable=True)
        assert psnr(draw(wrapped), draw(plain)) >= PSNR
        assert [e.step for e in wrapped.hefw.ledger.of("server") if e.item == "latent"] == list(range(STEPS))


def test_another_task_by_from_pipe_is_encrypted_too(v2: Any, picture: Any, wrap: Callable[..., Any]) -> None:
    wrapped = wrap(v2)
    made = diffusers.AutoPipelineForImage2Image.from_pipe(wrapped)
    made.set_progress_bar_config(disable=True)
    draw(made, image=picture, strength=0.5)
    assert len([e for e in wrapped.hefw.ledger.of("server") if e.item == "latent"]) == STEPS // 2


def test_saved_as_the_pipeline_that_it_was(v2: Any, wrap: Callable[..., Any], tmp_path: Path) -> None:
    wrap(v2).save_pretrained(tmp_path)
    loaded = diffusers.DiffusionPipeline.from_pretrained(tmp_path)
    assert type(loaded) is type(v2)
    assert type(loaded.scheduler) is type(v2.scheduler)
    loaded.set_progress_bar_config(disable=True)
    assert psnr(draw(loaded), draw(v2)) >= 2 * PSNR


def test_progress_is_told(v2: Any, wrap: Callable[..., Any]) -> None:
    stages: list[str] = []
    draw(wrap(v2, progress=lambda told: stages.append(told.stage)))
    assert "evaluate" in stages


def test_it_is_found_in_hefw_which_stays_light() -> None:
    script = "import sys, hefw; print({'torch', 'diffusers'} & set(sys.modules)); print(hefw.wrap.__name__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\nwrap\n"


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"backend": "tensela"}, ConfigError, "unknown backend 'tensela'; did you mean 'tenseal'?"),
        ({"backend": 7}, ConfigError, "backend: 7 is not allowed"),
        ({"strategy": "ful"}, ConfigError, "unknown strategy 'ful'; did you mean 'full'?"),
        (
            {"strategy": {"name": "min_distortion", "threshold": 2}},
            ConfigError,
            "option 'threshold' = 2 is not allowed",
        ),
        ({"scheduler": "dimm"}, ConfigError, "unknown scheduler 'dimm'; did you mean 'ddim'?"),
        ({"scheduler": 7}, ConfigError, "scheduler: 7 is not allowed"),
        ({"scheduler": diffusers.DDIMScheduler}, ConfigError, "is not allowed"),
        (
            {"noise_prediction": "hidden"},
            ConfigError,
            "noise_prediction 'hidden' is not allowed; allowed: encrypted or",
        ),
        ({"params": {"precision": 60}}, ConfigError, "precision"),
        ({"params": 7}, ConfigError, "params"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], error: type[HefwError], said: str, v1: Any) -> None:
    with pytest.raises(error) as refused:
        hefw.wrap(v1, **options)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_backend_that_is_not_installed(v1: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hefw.plugins.unusable_here", lambda entry: "tenseal not installed")
    monkeypatch.setattr("hefw.environments.find", lambda name: None)
    with pytest.raises(PluginError, match="backend 'tenseal' is unavailable: tenseal not installed"):
        hefw.wrap(v1)


def test_what_is_no_pipeline_with_a_unet(v1: Any, wrap: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="a UNet2DConditionModel cannot be wrapped; give a diffusers pipeline"):
        hefw.wrap(v1.unet)
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=1, attention_head_dim=8, in_channels=4, num_layers=1, sample_size=8, norm_num_groups=4
    )
    pipe = diffusers.DiTPipeline(transformer, v1.vae, diffusers.DDIMScheduler(clip_sample=False))
    with pytest.raises(ConfigError, match=r"DiTPipeline has no UNet \(its parts: scheduler, transformer, vae\)"):
        hefw.wrap(pipe)
    with pytest.raises(ConfigError, match="this StableDiffusionPipeline is wrapped already"):
        hefw.wrap(wrap(v1))


def test_a_scheduler_that_is_not_linear(v1: Any, wrap: Callable[..., Any]) -> None:
    wrapped = wrap(v1, scheduler=diffusers.DDIMScheduler.from_config(v1.scheduler.config, clip_sample=True))
    with pytest.raises(SchedulerError, match=r"DDIMScheduler is not linear .* \(clip_sample=True\)"):
        draw(wrapped)
    assert wrapped.hefw.ledger.entries == []
