"""Pictures of a run: captioned grids, the denoising, what the server held."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cli_fakes import fake_result
from PIL import Image

from hefw.record import SIMULATED
from hefw.report import images

RED = np.array(images.ALARM)


def pixels(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(picture.convert("RGB"))


def red_share(picture: Image.Image) -> float:
    return float((pixels(picture) == RED).all(axis=-1).mean())


@pytest.mark.parametrize("count", [1, 2, 7, 16, 40])
@pytest.mark.parametrize("channels", [1, 3])
def test_grid_shows_every_image(count: int, channels: int) -> None:
    shades = np.linspace(-0.9, 0.5, count)
    picture = images.grid(np.broadcast_to(shades[:, None, None, None], (count, channels, 8, 8)), range(count))
    drawn = pixels(picture)
    for shade in np.round((shades + 1) * 127.5).astype(int):
        assert (drawn == shade).all(axis=-1).sum() >= 72 * 72


def test_grid_says_when_images_are_left_out() -> None:
    few = images.grid(np.zeros((256, 1, 8, 8)), [0] * 256)
    many = images.grid(np.zeros((300, 1, 8, 8)), [0] * 300)
    assert many.size == few.size
    assert not np.array_equal(pixels(many), pixels(few))  # the title


def test_values_beyond_the_range_are_clipped_and_broken_ones_are_magenta() -> None:
    image = np.full((1, 1, 2, 2), 5.0)
    image[0, 0, 0, 0] = np.nan
    image[0, 0, 1, 1] = -np.inf
    drawn = pixels(images.grid(image, [3]))
    assert (drawn == images.NOT_FINITE).all(axis=-1).sum() == 2 * 36 * 36


def test_labels_are_drawn() -> None:
    zeros = np.zeros((2, 1, 8, 8))
    assert not np.array_equal(pixels(images.grid(zeros, [3, 4])), pixels(images.grid(zeros, [3, 5])))


@pytest.mark.parametrize("shape", [(4, 8, 8), (0, 1, 8, 8), (4, 2, 8, 8), (4, 4, 8, 8)])
def test_grid_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(str(shape))):
        images.grid(np.zeros(shape), [0] * shape[0])


def test_grid_refuses_missing_captions() -> None:
    with pytest.raises(ValueError, match="1 captions for 2 images"):
        images.grid(np.zeros((2, 1, 8, 8)), [0])


def test_steps_strip_bounds_rows_and_columns() -> None:
    small = images.steps_strip(np.zeros((4, 3, 1, 8, 8)))
    large = images.steps_strip(np.zeros((1001, 20, 1, 8, 8)), heads=range(20))
    assert small.height < large.height
    assert large.width < 14 * 80 + 80
    assert large.height < 10 * 80 + 80


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The very words that are drawn: captions, then the title of each picture."""
    drawn: list[str] = []
    table, page = images._table, images._page

    def drawn_table(rows: Any, captions: list[list[str]], **options: Any) -> Image.Image:
        drawn.extend(word for line in captions for word in line)
        return table(rows, captions, **options)

    def drawn_page(title: str, *arguments: Any) -> Image.Image:
        drawn.append(title)
        return page(title, *arguments)

    monkeypatch.setattr(images, "_table", drawn_table)
    monkeypatch.setattr(images, "_page", drawn_page)
    return drawn


DENOISING = "The denoising, from noise to picture"


@pytest.mark.parametrize(
    ("moments", "options", "expected"),
    [
        (4, {}, ["noise", "step 1", "step 2", "step 3", DENOISING]),
        (
            4,
            {"after": (0, 2, 4, 6), "every": 2},
            ["noise", "step 2", "step 4", "step 6", f"{DENOISING} (decrypted after every 2 steps)"],
        ),
        (2, {"after": (0, 6), "every": 6}, ["noise", "step 6", f"{DENOISING} (decrypted once, at the end)"]),
        (2, {"after": (0, 1)}, ["noise", "step 1", DENOISING]),
        # some moments of 51 evaluations of the network
        (
            3,
            {"after": (0, 26, 51), "unit": "evaluation", "start": "start"},
            ["start", "evaluation 26", "evaluation 51", DENOISING],
        ),
        (
            3,
            {"after": (0, 3, 99), "every": 3, "unit": "evaluation"},
            ["noise", "evaluation 3", "evaluation 99", f"{DENOISING} (decrypted after every 3 evaluations)"],
        ),
    ],
)
def test_steps_strip_says_after_which_step(
    words: list[str], moments: int, options: dict[str, Any], expected: list[str]
) -> None:
    images.steps_strip(np.zeros((moments, 1, 1, 8, 8)), **options)
    assert words == expected


def test_steps_strip_keeps_moments_and_captions_together(words: list[str]) -> None:
    """Of 100 moments 12 are drawn, first and last among them, each under its own number."""
    shades = np.linspace(-0.9, 0.9, 100)
    after = tuple(7 * moment for moment in range(100))
    drawn = pixels(
        images.steps_strip(np.broadcast_to(shades[:, None, None, None, None], (100, 1, 1, 8, 8)), after=after)
    )
    numbers = [0, *(int(word.removeprefix("step ")) for word in words[1:12])]
    assert (len(numbers), numbers[-1]) == (12, 693)
    for number in numbers:
        shade = round((shades[number // 7] + 1) * 127.5)
        assert (drawn == shade).all(axis=-1).sum() >= 72 * 72


def test_steps_strip_refuses_other_moments() -> None:
    with pytest.raises(ValueError, match="2 numbers of steps for 3 moments: expected one a moment"):
        images.steps_strip(np.zeros((3, 1, 1, 8, 8)), after=(0, 1))


@pytest.mark.parametrize(
    ("payloads", "count", "options", "expected"),
    [
        (
            (b"x", b"yz"),
            4,
            {},
            ["message 1", "message 2", "What the server held of the 4 images: the first 2 bytes of each message"],
        ),
        ((b"x",), 1, {}, ["message 1", "What the server held of the image: the first 1 bytes of the one message"]),
        (
            (b"x", b"y"),
            1,
            {"messages": 2, "in_part": True},
            [
                *("message 1", "message 2"),
                "What the server held of the image: the first 1 bytes of each message. What it saw in plaintext is not "
                "drawn",
            ],
        ),
        # three messages held no ciphertext
        (
            (b"x",),
            1,
            {"messages": 4, "in_part": True},
            [
                "ciphertext 1",
                "What the server held of the image: the first 1 bytes of the one ciphertext. What it saw in plaintext "
                "is not drawn",
            ],
        ),
    ],
)
def test_words_of_the_server_view(
    words: list[str], payloads: tuple[bytes, ...], count: int, options: dict[str, Any], expected: list[str]
) -> None:
    images.server_view(payloads, count, **options)
    assert words == expected


def test_server_view_is_drawn_from_the_bytes() -> None:
    payloads = (b"\x00" * 20_000, b"\x40" * 20_000, b"\xc0" * 100)
    drawn = pixels(images.server_view(payloads, 16))
    tile = images.NOISE_TILE**2
    assert (drawn == 0).all(axis=-1).sum() >= tile
    assert (drawn == 0x40).all(axis=-1).sum() >= tile
    assert 100 <= (drawn == 0xC0).all(axis=-1).sum() < 200
    images.server_view((), 1)
    images.server_view(tuple(bytes([i % 256]) * 50 for i in range(200)), 1)


def test_banner_is_on_every_picture() -> None:
    result = fake_result()
    drawn: list[Callable[[str | None], Image.Image]] = [
        lambda banner: images.grid(result.images, result.record.captions, banner=banner),
        lambda banner: images.steps_strip(result.trajectory, banner=banner),
        lambda banner: images.server_view(result.server_view, 4, banner=banner),
    ]
    for draw in drawn:
        assert red_share(draw(None)) == 0
        assert red_share(draw(SIMULATED)) > 0.02


# Prompts and large pictures

LONG = "an extraordinarily long prompt about a fox in the snow, oil on canvas, at night, in the manner of nobody"


def lines_of(text: str, width: int, most: int) -> list[str]:
    found = images._wrap(text, images.CAPTION_SIZE, width, most)
    assert len(found) <= most
    assert all(images._font(images.CAPTION_SIZE).getlength(line) <= width for line in found)
    return found


def test_captions_are_wrapped_and_cut() -> None:
    assert lines_of("a cat", 160, 3) == ["a cat"]
    assert " ".join(lines_of(LONG, 400, 3)) == LONG
    cut = lines_of(LONG, 160, 3)
    assert len(cut) == 3
    assert cut[-1].endswith("...")
    assert LONG.startswith(" ".join(cut).removesuffix("..."))
    assert lines_of("a\n b\tc", 160, 3) == ["a b c"]
    assert lines_of("", 160, 3) == [""]


@pytest.mark.parametrize("text", ["x" * 1000, "x" * 200_000, "word " * 50_000, "x" * 60 + " y"])
def test_words_that_fit_no_line_are_cut(text: str) -> None:
    found = lines_of(text, 160, 3)
    assert any(line.endswith("...") for line in found)


def test_captions_are_in_the_alphabets_of_europe() -> None:
    """Each letter has a picture of its own, which is not that of an unknown letter."""
    font = images._font(images.CAPTION_SIZE)
    unknown = bytes(font.getmask(chr(0xE000)))
    shapes = {bytes(font.getmask(letter)) for letter in "aéßŁЖω"}
    assert len(shapes) == 6
    assert unknown not in shapes


def test_a_prompt_makes_room_for_itself() -> None:
    tiles = np.full((2, 3, 8, 8), -1.0)
    label, prompt = (images.grid(tiles, captions) for captions in (["0", "1"], [LONG, "a cat"]))
    assert prompt.width > label.width or prompt.height > label.height
    assert prompt.width <= 2 * images.MARGIN + max(images.MIN_WIDTH, 2 * (images.CAPTION_WIDTH + 2 * images.GAP))
    assert prompt.height - label.height == 2 * (images.CAPTION_SIZE + images.LEADING)


@pytest.mark.parametrize("shape", [(3, 64, 64), (3, 512, 512), (3, 96, 512), (1, 600, 200), (3, 1, 1)])
def test_large_pictures_are_whole_in_the_grid_and_small_in_the_denoising(shape: tuple[int, int, int]) -> None:
    picture = images.grid(np.full((1, *shape), -1.0), [LONG])
    black = (pixels(picture) == 0).all(axis=-1).sum()
    assert black >= shape[1] * shape[2]
    strip = pixels(images.steps_strip(np.full((2, 1, *shape), -1.0), heads=[LONG]))
    longest = images.STRIP_TILE if max(shape[1:]) > images.STRIP_TILE else 128
    assert strip.shape[1] < 2 * longest + images.CAPTION_WIDTH + 2 * images.MARGIN + 4 * images.GAP + images.MIN_WIDTH
    share = min(1.0, longest / max(shape[1:]))
    assert (strip == 0).all(axis=-1).sum() >= 2 * int(share * shape[1]) * int(share * shape[2])


def test_colours_are_kept() -> None:
    picture = np.stack([np.full((8, 8), shade) for shade in (1.0, 0.0, -1.0)])[None]
    drawn = pixels(images.grid(picture, ["a cat"]))
    assert (drawn == (255, 128, 0)).all(axis=-1).sum() == 72 * 72
