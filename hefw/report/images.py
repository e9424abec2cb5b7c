"""Pictures of a run: captioned grids, the denoising, and the bytes that the server held.

Images come as arrays (..., channels, height, width) with 1 or 3 channels, black -1 and white 1; values beyond are
clipped, values that are not finite are drawn in magenta so that a failed run cannot be taken for a dark picture.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]

TILE = 72  # least side of a drawn image, pixels
STRIP_TILE = 160  # largest side of an image in the denoising, pixels
GAP = 8
MARGIN = 16
MIN_WIDTH = 360
MAX_IMAGES = 256
MAX_PIXELS = 16_000_000
MAX_STRIP_IMAGES = 8
MAX_COLUMNS = 12
NOISE_TILE = 96
CAPTION_WIDTH = 160  # of a caption whose tile is narrower, pixels
CAPTION_LINES = 3
TITLE_SIZE, BANNER_SIZE, CAPTION_SIZE, HEAD_SIZE = 17, 19, 14, 16  # pixels
LEADING = 6
INK, PAPER = (17, 17, 17), (255, 255, 255)
ALARM = (176, 0, 32)
NOT_FINITE = (255, 0, 255)
ELLIPSIS = "..."


def grid(
    images: NDArray[np.float64],
    captions: Sequence[str | int],
    *,
    title: str = "Images drawn on ciphertext",
    banner: str | None = None,
) -> Image.Image:
    """Images (count, channels, height, width) in a near-square grid, each with its caption below: a label or a prompt.

    Beyond 256 images, or 16 million pixels, only the first ones are drawn, and the title says so. A long caption is
    wrapped, and cut off after three lines.
    """
    images = _checked(images, 4)
    if len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions for {len(images)} images: expected one an image")
    shown = min(len(images), MAX_IMAGES, max(1, MAX_PIXELS // math.prod(images.shape[2:])))
    if shown < len(images):
        title += f" (first {shown} of {len(images)})"
    columns = _columns(shown)
    tiles = [_rgb(image) for image in images[:shown]]
    rows = [tiles[start : start + columns] for start in range(0, shown, columns)]
    texts = [str(caption) for caption in captions[:shown]]
    return _page(title, _table(rows, [texts[start : start + columns] for start in range(0, shown, columns)]), banner)


def steps_strip(
    trajectory: NDArray[np.float64],
    *,
    after: Sequence[int] | None = None,
    every: int = 1,
    unit: str = "step",
    start: str = "noise",
    heads: Sequence[str | int] | None = None,
    title: str = "The denoising, from noise to picture",
    banner: str | None = None,
) -> Image.Image:
    """The denoising of the first 8 images at most: a row an image, a column a moment. Large images are made smaller.

    Args:
        trajectory: (moments, count, channels, height, width). Beyond 12 columns, some are left out evenly.
        after: steps (or evaluations) that were done at each moment, ascending; 0, 1, 2, ... by default.
        every: steps between two decryptions.
        unit: what `after` counts: 'step' or 'evaluation'.
        start: caption of the moment after 0 steps.
        heads: written before the rows, where given.
    """
    trajectory = _checked(trajectory, 5)
    moments = range(len(trajectory)) if after is None else after
    if len(moments) != len(trajectory):
        raise ValueError(f"{len(moments)} numbers of steps for {len(trajectory)} moments: expected one a moment")
    if every > 1:
        title += f" (decrypted {'once, at the end' if every >= moments[-1] else f'after every {every} {unit}s'})"
    columns = np.unique(np.linspace(0, len(moments) - 1, min(len(moments), MAX_COLUMNS)).round().astype(int))
    count = min(trajectory.shape[1], MAX_STRIP_IMAGES)
    rows = [[_rgb(trajectory[column, row], STRIP_TILE) for column in columns] for row in range(count)]
    captions = [[f"{unit} {moments[column]}" if moments[column] else start for column in columns]]
    texts = None if heads is None else [str(head) for head in heads[:count]]
    return _page(title, _table(rows, captions, heads=texts, captions_first=True), banner)


def server_view(
    payloads: tuple[bytes, ...],
    count: int,
    *,
    messages: int | None = None,
    in_part: bool = False,
    banner: str | None = None,
) -> Image.Image:
    """What the server held of `count` images: the first bytes of each message's ciphertext, one grey pixel a byte.

    A tile a message, side by side; beyond 48 of them, some are left out evenly. Where there were more `messages`, the
    others held no ciphertext. `in_part`: the title says that the server saw something in plaintext, too.
    """
    shown = np.unique(np.linspace(0, len(payloads) - 1, min(len(payloads), 4 * MAX_COLUMNS)).round().astype(int))
    name = "message" if messages in (None, len(payloads)) else "ciphertext"
    tiles, captions = [], []
    for message in shown:
        held = np.frombuffer(payloads[message], dtype=np.uint8)[: NOISE_TILE**2]
        tile = np.full(NOISE_TILE**2, 255, dtype=np.uint8)
        tile[: len(held)] = held
        tiles.append(np.repeat(tile.reshape(NOISE_TILE, NOISE_TILE, 1), 3, axis=2))
        captions.append(f"{name} {message + 1}")
    width = _columns(len(tiles))
    rows = [tiles[start : start + width] for start in range(0, len(tiles), width)]
    lines = [captions[start : start + width] for start in range(0, len(tiles), width)]
    noun = "image" if count == 1 else f"{count} images"
    size = min(NOISE_TILE**2, max((len(payload) for payload in payloads), default=0))
    each = f"the one {name}" if len(payloads) == 1 else f"each {name}"
    title = f"What the server held of the {noun}: the first {size:,} bytes of {each}"
    title += ". What it saw in plaintext is not drawn" if in_part else ""
    return _page(title, _table(rows, lines), banner)


def _checked(images: Any, dimensions: int) -> NDArray[np.float64]:
    array = np.asarray(images, dtype=np.float64)
    if array.ndim != dimensions or array.shape[-3] not in (1, 3) or 0 in array.shape:
        want = "(count, channels, height, width)" if dimensions == 4 else "(moments, count, channels, height, width)"
        raise ValueError(f"images of shape {array.shape}: expected {want} with 1 or 3 channels")
    return array


def _columns(count: int) -> int:
    """The widest divisor of count near its square root, so that no row is left ragged where that is possible."""
    root = math.ceil(math.sqrt(count)) or 1
    return next((columns for columns in range(root, min(2 * root, count) + 1) if count % columns == 0), root)


def _rgb(image: NDArray[np.float64], most: int | None = None) -> Pixels:
    """One image (channels, height, width) -> pixels (height * k, width * k, 3), k whole, no smoothing.

    With `most`, a larger image is scaled down to that many pixels.
    """
    finite = np.isfinite(image).all(axis=0)
    grey = np.clip((np.where(finite, image, 0) + 1) * 127.5, 0, 255).round().astype(np.uint8)
    pixels: Pixels = np.array(np.moveaxis(np.broadcast_to(grey, (3, *grey.shape[1:])), 0, -1), order="C")
    pixels[~finite] = NOT_FINITE
    if most is not None and max(image.shape[1:]) > most:
        smaller = Image.fromarray(pixels)
        smaller.thumbnail((most, most), Image.Resampling.LANCZOS)
        return np.array(smaller)
    factor = max(1, math.ceil(TILE / max(image.shape[1:])))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


@functools.cache
def _font(size: int) -> Any:
    """Pillow's own font has no accents; matplotlib's has most alphabets."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _wrap(text: str, size: int, width: float, most: int | None = None) -> list[str]:
    """Lines of a width in pixels; with `most` no more than so many, the last one then ends in an ellipsis."""
    if most is not None:
        text = text[: int(most * width)]  # more characters than pixels are not drawn
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font(size).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    if most is None:
        return lines
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1] + ELLIPSIS]
    return [_cut(line, size, width) for line in lines]


def _cut(text: str, size: int, width: float) -> str:
    """A line that fits, if need be with an ellipsis for its end."""
    if _font(size).getlength(text) <= width:
        return text
    text = text.removesuffix(ELLIPSIS)
    while text and _font(size).getlength(text + ELLIPSIS) > width:
        text = text[:-1]
    return text.rstrip() + ELLIPSIS


def _widest(texts: Sequence[str], size: int) -> int:
    return min(
        CAPTION_WIDTH, math.ceil(max((_font(size).getlength(text[:CAPTION_WIDTH]) for text in texts), default=0))
    )


def _table(
    rows: list[list[Pixels]],
    captions: list[list[str]],
    *,
    heads: list[str] | None = None,
    captions_first: bool = False,
) -> Image.Image:
    """Tiles of one size, with captions under every row (or once, above all), and heads before the rows."""
    if not rows:
        return Image.new("RGB", (1, 1), PAPER)
    height, width = rows[0][0].shape[:2]
    cell = max(width, _widest([text for texts in captions for text in texts], CAPTION_SIZE) + GAP)
    wrapped = [[_wrap(text, CAPTION_SIZE, cell - GAP // 2, CAPTION_LINES) for text in texts] for texts in captions]
    line = CAPTION_SIZE + LEADING
    block = line * max(len(lines) for texts in wrapped for lines in texts)
    indent = GAP + _widest(heads, HEAD_SIZE) if heads else 0
    below, top = (0, block) if captions_first else (block, 0)
    columns = max(map(len, rows))
    size = (indent + columns * (cell + GAP) - GAP, top + len(rows) * (height + below + GAP) - GAP)
    table = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(table)
    for i, row in enumerate(rows):
        y = top + i * (height + below + GAP)
        if heads:
            leading = HEAD_SIZE + LEADING
            texts = _wrap(heads[i], HEAD_SIZE, indent - GAP, max(1, height // leading))
            for k, text in enumerate(texts):
                draw.text(
                    (0, y + height / 2 + (k - (len(texts) - 1) / 2) * leading), text, INK, _font(HEAD_SIZE), anchor="lm"
                )
        for j, tile in enumerate(row):
            table.paste(Image.fromarray(tile), (indent + j * (cell + GAP) + (cell - width) // 2, y))
    for i, texts_of_row in enumerate(wrapped):
        y = 0 if captions_first else i * (height + below + GAP) + height
        for j, texts in enumerate(texts_of_row):
            for k, text in enumerate(texts):
                middle = (indent + j * (cell + GAP) + cell / 2, y + k * line + line // 2)
                draw.text(middle, text, INK, _font(CAPTION_SIZE), anchor="mm")
    return table


def _page(title: str, body: Image.Image, banner: str | None) -> Image.Image:
    """A body under its title, and under the banner that says SIMULATED or INSECURE."""
    width = max(body.width, MIN_WIDTH)
    blocks = [(_wrap(banner, BANNER_SIZE, width), BANNER_SIZE, PAPER, ALARM)] if banner else []
    blocks.append((_wrap(title, TITLE_SIZE, width), TITLE_SIZE, INK, PAPER))
    heights = [len(lines) * (size + LEADING) + MARGIN for lines, size, _, _ in blocks]
    page = Image.new("RGB", (width + 2 * MARGIN, sum(heights) + body.height + MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    y = 0
    for (lines, size, ink, paper), height in zip(blocks, heights, strict=True):
        draw.rectangle((0, y, page.width, y + height - 1), fill=paper)
        for i, text in enumerate(lines):
            draw.text((MARGIN, y + MARGIN / 2 + i * (size + LEADING)), text, ink, _font(size))
        y += height
    page.paste(body, ((page.width - body.width) // 2, y))
    return page
