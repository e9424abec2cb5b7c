"""Pictures of a run: labelled grids, the denoising, and the bytes that the server held.

Images come as arrays (..., channels, height, width) with 1 or 3 channels, black -1 and white 1; values beyond are
clipped, values that are not finite are drawn in magenta so that a failed run cannot be taken for a dark picture.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]

TILE = 72  # least side of a drawn image, pixels
GAP = 8
MARGIN = 16
MIN_WIDTH = 360
MAX_IMAGES = 256
MAX_PIXELS = 16_000_000
MAX_STRIP_IMAGES = 8
MAX_COLUMNS = 12
NOISE_TILE = 96
INK, PAPER = (17, 17, 17), (255, 255, 255)
ALARM = (176, 0, 32)
NOT_FINITE = (255, 0, 255)


def grid(
    images: NDArray[np.float64],
    labels: Sequence[int],
    *,
    title: str = "Images drawn on ciphertext",
    banner: str | None = None,
) -> Image.Image:
    """Images (count, channels, height, width) in a near-square grid, each with its label below.

    Beyond 256 images, or 16 million pixels, only the first ones are drawn, and the title says so.
    """
    images = _checked(images, 4)
    if len(labels) != len(images):
        raise ValueError(f"{len(labels)} labels for {len(images)} images: expected one label an image")
    shown = min(len(images), MAX_IMAGES, max(1, MAX_PIXELS // math.prod(images.shape[2:])))
    if shown < len(images):
        title += f" (first {shown} of {len(images)})"
    columns = _columns(shown)
    tiles = [_rgb(image) for image in images[:shown]]
    rows = [tiles[start : start + columns] for start in range(0, shown, columns)]
    captions = [str(label) for label in labels[:shown]]
    return _page(title, _table(rows, [captions[start : start + columns] for start in range(0, shown, columns)]), banner)


def steps_strip(
    trajectory: NDArray[np.float64],
    *,
    steps: int | None = None,
    labels: Sequence[int] | None = None,
    title: str = "The denoising, from noise to picture",
    banner: str | None = None,
) -> Image.Image:
    """The denoising of the first 8 images at most: a row an image, a column for what was decrypted of each message.

    Args:
        trajectory: (messages + 1, count, channels, height, width), x_T first. Beyond 12 columns, some are left out
            evenly.
        steps: of the schedule, a multiple of the messages; by default there is a message for each. Each column says
            after which step it was decrypted.
        labels: written before the rows, where given.
    """
    trajectory = _checked(trajectory, 5)
    messages = len(trajectory) - 1
    every = 1 if steps is None else steps // messages
    if every > 1:
        title += f" (decrypted {'once, at the end' if messages == 1 else f'after every {every} steps'})"
    columns = np.unique(np.linspace(0, messages, min(messages + 1, MAX_COLUMNS)).round().astype(int))
    count = min(trajectory.shape[1], MAX_STRIP_IMAGES)
    rows = [[_rgb(trajectory[column, row]) for column in columns] for row in range(count)]
    captions = [["noise" if column == 0 else f"step {every * column}" for column in columns]]
    heads = None if labels is None else [str(label) for label in labels[:count]]
    return _page(title, _table(rows, captions, heads=heads, captions_first=True), banner)


def server_view(payloads: tuple[bytes, ...], count: int, *, banner: str | None = None) -> Image.Image:
    """What the server held of `count` images: the first bytes of each message's payload, one grey pixel a byte.

    A tile a message, side by side; beyond 48 messages, some are left out evenly.
    """
    shown = np.unique(np.linspace(0, len(payloads) - 1, min(len(payloads), 4 * MAX_COLUMNS)).round().astype(int))
    tiles, captions = [], []
    for message in shown:
        held = np.frombuffer(payloads[message], dtype=np.uint8)[: NOISE_TILE**2]
        tile = np.full(NOISE_TILE**2, 255, dtype=np.uint8)
        tile[: len(held)] = held
        tiles.append(np.repeat(tile.reshape(NOISE_TILE, NOISE_TILE, 1), 3, axis=2))
        captions.append(f"message {message + 1}")
    width = _columns(len(tiles))
    rows = [tiles[start : start + width] for start in range(0, len(tiles), width)]
    lines = [captions[start : start + width] for start in range(0, len(tiles), width)]
    noun = "image" if count == 1 else f"{count} images"
    size = min(NOISE_TILE**2, max((len(payload) for payload in payloads), default=0))
    each = "the one message" if len(payloads) == 1 else "each message"
    return _page(f"What the server held of the {noun}: the first {size:,} bytes of {each}", _table(rows, lines), banner)


def _checked(images: Any, dimensions: int) -> NDArray[np.float64]:
    array = np.asarray(images, dtype=np.float64)
    if array.ndim != dimensions or array.shape[-3] not in (1, 3) or 0 in array.shape:
        want = (
            "(count, channels, height, width)" if dimensions == 4 else "(messages + 1, count, channels, height, width)"
        )
        raise ValueError(f"images of shape {array.shape}: expected {want} with 1 or 3 channels")
    return array


def _columns(count: int) -> int:
    """The widest divisor of count near its square root, so that no row is left ragged where that is possible."""
    root = math.ceil(math.sqrt(count)) or 1
    return next((columns for columns in range(root, min(2 * root, count) + 1) if count % columns == 0), root)


def _rgb(image: NDArray[np.float64]) -> Pixels:
    """One image (channels, height, width) -> pixels (height * k, width * k, 3), k whole, no smoothing."""
    finite = np.isfinite(image).all(axis=0)
    grey = np.clip((np.where(finite, image, 0) + 1) * 127.5, 0, 255).round().astype(np.uint8)
    pixels: Pixels = np.ascontiguousarray(np.moveaxis(np.broadcast_to(grey, (3, *grey.shape[1:])), 0, -1))
    pixels[~finite] = NOT_FINITE
    factor = max(1, math.ceil(TILE / max(image.shape[1:])))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


@functools.cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _wrap(text: str, size: int, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font(size).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _table(
    rows: list[list[Pixels]],
    captions: list[list[str]],
    *,
    heads: list[str] | None = None,
    captions_first: bool = False,
) -> Image.Image:
    """Tiles of one size, with a line of captions under every row (or once, above all), and heads before the rows."""
    if not rows:
        return Image.new("RGB", (1, 1), PAPER)
    height, width = rows[0][0].shape[:2]
    caption_size, head_size = 15, 18
    line = caption_size + 6
    indent = GAP + math.ceil(max(_font(head_size).getlength(head) for head in heads)) if heads else 0
    below = 0 if captions_first else line
    top = line if captions_first else 0
    columns = max(map(len, rows))
    size = (indent + columns * (width + GAP) - GAP, top + len(rows) * (height + below + GAP) - GAP)
    table = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(table)
    for i, row in enumerate(rows):
        y = top + i * (height + below + GAP)
        if heads:
            draw.text((0, y + height / 2), heads[i], INK, _font(head_size), anchor="lm")
        for j, tile in enumerate(row):
            table.paste(Image.fromarray(tile), (indent + j * (width + GAP), y))
    for i, texts in enumerate(captions):
        y = line // 2 if captions_first else i * (height + below + GAP) + height + line // 2
        for j, text in enumerate(texts):
            x = indent + j * (width + GAP) + width / 2
            draw.text((x, y), text, INK, _font(caption_size), anchor="mm")
    return table


def _page(title: str, body: Image.Image, banner: str | None) -> Image.Image:
    """A body under its title, and under the banner that says SIMULATED or INSECURE."""
    width = max(body.width, MIN_WIDTH)
    blocks = [(_wrap(banner, 20, width), 20, PAPER, ALARM)] if banner else []
    blocks.append((_wrap(title, 18, width), 18, INK, PAPER))
    heights = [len(lines) * (size + 6) + MARGIN for lines, size, _, _ in blocks]
    page = Image.new("RGB", (width + 2 * MARGIN, sum(heights) + body.height + MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    y = 0
    for (lines, size, ink, paper), height in zip(blocks, heights, strict=True):
        draw.rectangle((0, y, page.width, y + height - 1), fill=paper)
        for i, text in enumerate(lines):
            draw.text((MARGIN, y + MARGIN / 2 + i * (size + 6)), text, ink, _font(size))
        y += height
    page.paste(body, ((page.width - body.width) // 2, y))
    return page
