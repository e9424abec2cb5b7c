"""`mnist-text`: its language, its strokes, its networks, and what its prompts become on ciphertext."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mnist_files import blobs, write_mnist
from PIL import Image
from safetensors.torch import load_file

import hefw
from hefw.config import Config
from hefw.core.errors import ConfigError
from hefw.editing import prepare
from hefw.models.mnist.bundle import BUNDLED
from hefw.models.mnist.data import Pictures
from hefw.models.mnist.text import strokes
from hefw.models.mnist.text.bundle import write
from hefw.models.mnist.text.captions import (
    DIGITS,
    LEFT,
    LONGEST,
    RIGHT,
    UPRIGHT,
    WORDS,
    Caption,
    classes,
    numbers,
    parse,
    phrase,
)
from hefw.models.mnist.text.encoder import TextEncoder, embed
from hefw.models.mnist.text.model import MnistText
from hefw.models.mnist.text.train import run
from hefw.models.mnist.text.training import PHRASES, Prompted, caption
from hefw.models.mnist.text.unet import Guided, TextUNet
from hefw.models.plugin import MnistOptions
from hefw.models.schedules import Own
from hefw.report.page import render

TINY = {"channels": 8, "quadratics": 3, "maps": 2}
some = st.sampled_from([None, 0, 1, 2])


# -- the language -----------------------------------------------------------------------------------------------------


@given(st.integers(0, 9), some, some, st.integers(0, 2**32))
def test_every_phrase_means_its_caption(label: int, width: int | None, slant: int | None, seed: int) -> None:
    said = phrase(Caption(label, width, slant), np.random.default_rng(seed))
    assert parse(said) == Caption(label, width, slant)
    assert len(numbers(said)) == LONGEST
    assert len([number for number in numbers(said) if number]) == len(said.split())


@pytest.mark.parametrize(
    ("prompt", "meaning"),
    [
        ("a thin seven", Caption(7, 0)),
        ("A bold, slanted four.", Caption(4, 2, RIGHT)),
        ("the upright number 3", Caption(3, None, UPRIGHT)),
        ("an eight leaning left", Caption(8, None, LEFT)),
        ("heavy left-leaning 0", Caption(0, 2, LEFT)),
    ],
)
def test_what_a_prompt_means(prompt: str, meaning: Caption) -> None:
    assert parse(prompt) == meaning


@pytest.mark.parametrize(
    ("prompt", "part"),
    [
        ("a thin cat", "'cat' is not a word of this model; digits: zero, one, "),
        ("a bold one in red", "'in' is not a word of this model; .*; stroke width: thin, .*; slant: upright, "),
        ("a thin digit", "names no digit; give one of zero, one"),
        ("seven eight", "names more than one digit"),
        ("a thin bold seven", "names more than one stroke width"),
        ("an upright slanted seven", "names more than one slant"),
        ("a " * 13 + "seven", f"has 14 words; allowed: up to {LONGEST}"),
    ],
)
def test_other_prompts_are_refused_by_what_is_wrong(prompt: str, part: str) -> None:
    with pytest.raises(ConfigError, match=part) as caught:
        parse(prompt)
    assert "for example --prompt 'a thin seven'" in str(caught.value)
    assert "\n" not in str(caught.value)


# -- what captions are made of ----------------------------------------------------------------------------------------


def bar(width: int, shear: float) -> np.ndarray:
    """A bar of so many columns that leans to the right by `shear` columns a row, (1, 28, 28)."""
    rows, columns = np.indices((28, 28))
    inside = (abs(columns - 14 + shear * (rows - 14)) < width / 2) & (abs(rows - 14) < 10)
    return np.where(inside, 1.0, -1.0)[None]


def test_width_and_slant_are_those_of_a_bar() -> None:
    found = strokes.widths(np.stack([bar(width, 0) for width in (3, 5, 7)]))
    assert np.allclose(found, [3, 5, 7], atol=0.7)
    found = strokes.slants(np.stack([bar(3, shear) for shear in (-0.5, 0, 0.5)]))
    assert np.allclose(found, [-0.5, 0, 0.5], atol=0.05)
    black = np.full((1, 1, 28, 28), -1.0)
    assert strokes.widths(black) == strokes.slants(black) == 0


def test_classes_are_thirds_of_each_label() -> None:
    labels = np.repeat([0, 1], 100)
    values = np.random.default_rng(0).permutation(100)[np.arange(200) % 100] + 1000.0 * labels
    found = classes(values, labels)
    for label in (0, 1):
        assert np.bincount(found[labels == label]).tolist() == [30, 40, 30]
        means = [values[(labels == label) & (found == k)].mean() for k in range(3)]
        assert means == sorted(means)


def test_captions_say_what_was_measured() -> None:
    images = np.stack([bar(width, shear) for width in (2, 4, 6) for shear in (-0.4, 0, 0.4)])
    pictures = Pictures(torch.from_numpy(images).float(), torch.full((9,), 1))
    words = caption(pictures, 0)
    assert words.shape == (9, PHRASES, LONGEST)
    meant = [[parse(" ".join(WORDS[n] for n in said if n)) for said in of_one.tolist()] for of_one in words]
    assert {m.label for of_one in meant for m in of_one} == {1}
    assert {m.width for m in meant[1]} == {0, None}
    assert {m.width for m in meant[7]} == {2, None}
    assert {m.slant for m in meant[3]} == {LEFT, None}
    assert {m.slant for m in meant[5]} == {RIGHT, None}
    assert torch.equal(words, caption(pictures, 0))
    assert not torch.equal(words, caption(pictures, 1))


# -- networks ---------------------------------------------------------------------------------------------------------


def test_embeddings_are_standardised_and_padding_tells_nothing() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder().eval()
    with torch.no_grad():
        found = embed(encoder, ["a thin seven", "a bold slanted four", "seven"])
        longer = encoder(torch.tensor([numbers("seven")]))
        alone = embed(encoder, ["seven"])
    assert found.shape == (3, 32)
    assert torch.allclose(found.mean(1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(found.std(1, correction=0), torch.ones(3), atol=1e-3)
    assert torch.allclose(alone, found[2:], atol=1e-6)
    assert torch.allclose(longer, alone)
    assert (found[0] - found[1]).abs().max() > 0.01


def network() -> TextUNet:
    torch.manual_seed(0)
    unet = TextUNet(**TINY, condition_size=6)
    for layer in (unet.out, unet.out_residual):
        torch.nn.init.normal_(layer.weight, std=0.1)
    return unet.eval()


def test_guidance_moves_away_from_no_prompt() -> None:
    unet = network()
    x, e, t = torch.randn(3, 2, 8, 8), torch.randn(3, 6), torch.tensor(500)
    with torch.no_grad():
        prompted, unprompted = unet(x, t, e).sample, unet(x, t, torch.zeros(3, 6)).sample
        assert (prompted - unprompted).abs().max() > 0.01
        assert torch.allclose(Guided(unet, 2.0)(x, t, e), 2 * prompted - unprompted, atol=1e-5)
        assert torch.equal(Guided(unet, 1.0)(x, t, e), prompted)


# -- training ---------------------------------------------------------------------------------------------------------


def test_training_makes_the_same_folder_again_and_the_model_reads_it(tmp_path: Path) -> None:
    data, folders = tmp_path / "data", [tmp_path / name for name in ("first", "again")]
    data.mkdir()
    write_mnist(data, *blobs(50))
    told: list[tuple[int, int]] = []
    for folder in folders:
        run(folder, iterations=3, data=data, progress=lambda done, total, what: told.append((done, total)))
    assert told[: len(told) // 2] == told[len(told) // 2 :]
    assert told[-1][0] == told[-1][1]
    for name in ("diffusion_pytorch_model.safetensors", "text_encoder/diffusion_pytorch_model.safetensors"):
        first, again = (load_file(folder / name) for folder in folders)
        assert all(torch.equal(first[key], again[key]) for key in first)
    model = MnistText(MnistOptions(pretrained=str(folders[0])))
    assert np.isfinite(draw(model, ["a thin seven"], steps=2)).all()


def test_training_needs_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model 'mnist-text' is trained on data that hefw does not have; --data DIR"):
        run(tmp_path / "out", iterations=1)
    assert not (tmp_path / "out").exists()


# -- the bundled model ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> MnistText:
    return MnistText(MnistOptions())


def draw(model: MnistText, prompts: list[str], steps: int = 10) -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=(len(prompts), *model.latent_shape))
    return model.decode(model.twin(noise, np.array(prompts), model.scheduler(Own, {}), steps, lambda k, x: None))


def test_pictures_are_what_their_prompts_ask_for(model) -> None:
    asked = [
        f"a {width} {slant} {digit}"
        for width in ("thin", "normal", "bold")
        for slant in ("left-leaning", "upright", "slanted")
        for digit in DIGITS
    ]
    images = draw(model, asked)
    meant = [parse(prompt) for prompt in asked]
    assert np.mean(model.judge(images) == [m.label for m in meant]) >= 0.9
    width = [strokes.widths(images[[m.width == k for m in meant]]).mean() for k in range(3)]
    slant = [strokes.slants(images[[m.slant == k for m in meant]]).mean() for k in range(3)]
    assert width == sorted(width)
    assert width[2] > width[0] + 1
    assert slant == sorted(slant)
    assert slant[2] > slant[0] + 0.2


def test_a_part_of_a_picture_is_drawn_anew_in_latents(model: MnistText, tmp_path: Path) -> None:
    seven = draw(model, ["a normal seven"])[0, 0]
    white = np.zeros((28, 28), np.uint8)
    white[9:, :] = 255
    Image.fromarray(((seven.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)).save(tmp_path / "seven.png")
    Image.fromarray(white).save(tmp_path / "mask.png")
    config = Config(init_image=str(tmp_path / "seven.png"), mask=str(tmp_path / "mask.png"), strength=0.8)
    edit = prepare(config, model, lambda: model.scheduler(Own, {}), 10)
    assert edit is not None
    assert edit.latent.shape == model.latent_shape
    # rows 9 and below are in places of row 2 and below: two rows of padding are above
    assert np.array_equal(edit.latent_mask, np.arange(8)[:, None].repeat(8, 1) >= 2)
    noise = np.random.default_rng(1).normal(size=(2, *model.latent_shape))
    latents = model.twin(
        edit.start(noise, 1.0),
        np.array(["a bold seven", "a thin seven"]),
        model.scheduler(Own, {}),
        10,
        lambda step, x: edit.keep(step, x, noise),
        edit.noising.begin,
    )
    assert np.abs(np.where(edit.latent_mask, 0, latents - edit.latent)).max() < 1e-9
    images = edit.paste(model.decode(latents))
    assert np.array_equal(images[:, :, :9], np.stack([edit.image, edit.image])[:, :, :9])
    width = strokes.widths(images[:, :, 9:])
    assert width[0] > width[1]


def test_a_label_stands_for_its_name(model) -> None:
    noise = np.zeros((2, *model.latent_shape))
    by_label, by_prompt = model.inputs(noise, np.array([7, 0])), model.inputs(noise, np.array(["a seven", "a zero"]))
    assert by_label.keys() == {"latent", "condition"}
    assert np.array_equal(by_label["condition"], by_prompt["condition"])
    with pytest.raises(ConfigError, match="label 10 does not exist; model 'mnist-text' has the labels 0 to 9"):
        model.inputs(noise[:1], np.array([10]))


def test_the_graph_guides_as_the_network_does_and_its_scale_is_public(model) -> None:
    scheduler, steps = model.scheduler(Own, {}), 2
    prompts = np.array(["a thin seven", "a bold four leaning left"])
    noise = np.random.default_rng(0).normal(size=(2, *model.latent_shape))
    guided = model.guided(2.5)
    graph = guided.graph(scheduler, steps)
    assert graph.metadata["guidance_scale"] == 2.5
    states: list[np.ndarray] = []
    guided.twin(noise, prompts, model.scheduler(Own, {}), steps, lambda k, x: states.append(x.copy()))
    output = graph.outputs["latent"]
    for step, values in enumerate(graph.trajectory(guided.inputs(noise, prompts))):
        found = guided.latents({"latent": values[output.node] * output.factors[step]})
        assert np.abs(found - states[step]).max() < 1e-4


def test_no_scale_below_one_guides(model) -> None:
    assert model.guided(0.5).unet.weight == 1
    assert model.guided(None) is model


def test_the_folder_of_weights_is_small() -> None:
    files = [path for path in Path(BUNDLED / "mnist-text").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5e6
    assert {"MODEL_CARD.md", "config.json"} <= {path.name for path in files}


# -- whole runs -------------------------------------------------------------------------------------------------------


def test_prompts_are_drawn_on_ciphertext_with_guidance(tmp_path: Path) -> None:
    """By a small network: a plan for the bundled one takes a minute."""
    write(tmp_path, Prompted(TextEncoder(embedding_size=6).eval(), network()))
    model = {"name": "mnist-text", "pretrained": str(tmp_path)}
    result = hefw.generate(model=model, prompt=["a bold seven", "a thin one"], steps=2, backend="simulator")
    record = result.record
    assert record.prompts == ("a bold seven", "a thin one")
    assert record.psnr_db is not None
    assert record.psnr_db > 40
    sent = {entry.item: entry for entry in record.ledger.entries if entry.form == "ciphertext"}
    assert sent["condition"].entries == 2 * 6
    assert record.ledger.server_plaintext_fraction == 0
    assert "embedded prompts" in render(record, {})


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"prompt": "a red seven"}, "'red' is not a word of this model; digits: zero"),
        ({"prompt": "a seven", "labels": "3"}, "takes prompts or labels, not both"),
        ({"prompt": "a seven", "negative_prompt": "bold"}, "takes no negative prompt"),
        ({"labels": "10"}, "label 10 is not one of model 'mnist-text'; allowed 0-9"),
    ],
)
def test_what_it_does_not_take_is_one_line(more: dict[str, str], part: str) -> None:
    with pytest.raises(ConfigError, match=part) as caught:
        hefw.generate(model="mnist-text", backend="simulator", **more)
    assert "\n" not in str(caught.value)
