"""Where each entry of a tensor sits: (ciphertext index, slot)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.core.errors import LoweringError


@dataclass(frozen=True, eq=False)
class Layout:
    """Features outermost, the padded batch innermost: slot = position * batch + image.

    `positions` (ciphertexts, slots / batch) holds the tensor's feature at each position, or -1 where there is none. A
    rotation by k * batch is then a cyclic shift of positions by k. `period` is the number of positions, a power of two,
    after which the features repeat in each ciphertext.

    With `pairs` two images share each place of the batch: images 2k and 2k + 1 are the real and the imaginary part of
    place k. Where i times a ciphertext costs nothing for i and -i in turn only (`alternating`), the second one is
    multiplied by -i in odd slots; the batch is even there, so that rotations keep each slot's sign.

    With `blocks`, all positions follow each other so many times, each time with a batch of other images:
    slot = (block * width + position) * batch + image. What is the same for all images is then a vector of a short
    period, which is precise at a small scale: few coefficients of its polynomial are rounded. A rotation by k * batch
    shifts positions by k there too, but what leaves one block comes into the next: shifts are not cyclic.

    `cell` are the positions of one channel's grid. Where `stride` is not 0, the layout is that of `spread`: a value is
    the sum of up to `window` partial sums that lie `stride` positions apart.
    """

    features: int
    positions: NDArray[np.int64]
    batch: int
    period: int
    pairs: bool = False
    alternating: bool = False
    cell: int = 1
    stride: int = 0
    window: int = 1
    blocks: int = 1

    @property
    def places(self) -> int:
        """Places for images in a ciphertext."""
        return self.batch * self.blocks

    @property
    def images(self) -> int:
        """The most images that fit."""
        return 2 * self.places if self.pairs else self.places

    @property
    def ciphertexts(self) -> int:
        return int(self.positions.shape[0])

    @property
    def slots(self) -> int:
        """Slots of a ciphertext."""
        return self.cycle * self.batch

    @property
    def width(self) -> int:
        """Positions in one ciphertext, or in each of its blocks."""
        return int(self.positions.shape[1])

    @property
    def cycle(self) -> int:
        """Positions of all blocks: after so many a shift is none."""
        return self.width * self.blocks

    def slot(self, position: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where a place for an image has a position, as arrays of any shapes that fit."""
        block, image = np.divmod(place, self.batch)
        found: NDArray[np.int64] = (block * self.width + position) * self.batch + image
        return found

    @cached_property
    def home(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The ciphertext index and the first position of each feature."""
        cts = np.full(self.features, -1, dtype=np.int64)
        places = np.full(self.features, -1, dtype=np.int64)
        for ct in range(self.ciphertexts - 1, -1, -1):
            where = np.flatnonzero(self.positions[ct] >= 0)[::-1]
            cts[self.positions[ct, where]] = ct
            places[self.positions[ct, where]] = where
        return cts, places

    @cached_property
    def copies(self) -> NDArray[np.int64]:
        """Positions below `period` that hold each feature, (features, copies); only the first where counts differ."""
        if self.ciphertexts > 1:
            return self.home[1][:, None]
        period = self.positions[0, : self.period]
        counts = np.bincount(period[period >= 0], minlength=self.features)
        if counts.min() != counts.max():
            return self.home[1][:, None]
        places = np.argsort(period, kind="stable")[np.count_nonzero(period < 0) :]
        return places.reshape(self.features, -1)

    def paired(self, *, alternating: bool) -> Layout:
        """The same with two images a slot; LoweringError if signs alternate and the batch is odd."""
        if alternating and self.batch % 2:
            raise LoweringError(
                f"two images a slot need an even number of places for images, not {self.batch}: leave pairs out, or "
                "allow a larger ring dimension"
            )
        return replace(self, pairs=True, alternating=alternating)

    def pack(self, values: NDArray[Any]) -> NDArray[Any]:
        """(images, features) with at most `images` images -> (ciphertexts, slots), zero where nothing sits."""
        images, features = values.shape
        if features != self.features or images > self.images:
            raise LoweringError(
                f"values of shape {values.shape} do not fit a layout of {self.features} features, {self.images} images"
            )
        padded = np.zeros(
            (features + 1, self.images), np.result_type(values, np.float64)
        )  # the last row stands for position -1
        padded[:-1, :images] = values.T
        if self.pairs:
            padded = padded[:, ::2] + padded[:, 1::2] * np.tile(self._imaginary, self.blocks)
        apart = padded.reshape(features + 1, self.blocks, self.batch)[self.positions]
        return apart.swapaxes(1, 2).reshape(self.ciphertexts, -1)

    def unpack(self, slots: NDArray[Any], images: int) -> NDArray[np.float64]:
        """(ciphertexts, slots) -> (images, features); the inverse of `pack`."""
        cts, places = self.home
        found = slots.reshape(self.ciphertexts, self.blocks, self.width, self.batch)[cts, :, places]
        if not self.pairs:
            return np.array(found.reshape(self.features, -1).real[:, :images].T, np.float64)
        both = np.stack([found.real, (found / self._imaginary).real], axis=3)
        return both.reshape(self.features, -1)[:, :images].T.copy()

    def spread(self, values: NDArray[np.float64]) -> NDArray[Any]:
        """One (features,) at every position, the same for all images: (ciphertexts, slots)."""
        return np.stack([np.broadcast_to(self.broadcast(values, k), self.slots) for k in range(self.ciphertexts)])

    def broadcast(self, values: NDArray[np.float64], ciphertext: int) -> NDArray[Any] | float:
        """The slots (slots,) of one ciphertext of `spread`, or one number where all agree: cheaper to encode."""
        positions = np.append(values, 0.0)[self.positions[ciphertext]]  # position -1 is zero
        if not self.pairs and (positions == positions[0]).all():
            return float(positions[0])
        slots = np.tile(np.repeat(positions, self.batch), self.blocks)
        return slots * np.tile(1 + self._imaginary, self.cycle) if self.pairs else slots

    @property
    def _imaginary(self) -> NDArray[np.complex128]:
        """What the second image of each place (batch,) is multiplied by."""
        return np.where(np.arange(self.batch) % 2, -1j, 1j) if self.alternating else np.full(self.batch, 1j)


def next_power_of_two(n: int) -> int:
    """The smallest power of two that is at least n (n >= 1)."""
    return 1 << max(0, n - 1).bit_length()


def periodic(order: NDArray[np.int64], batch: int, slots: int, blocks: int = 1) -> Layout:
    """A layout that repeats `order` through every slot, or through those of each of so many blocks.

    `order` (places,) is the feature at each place or -1. Its length is padded to a power of two; where that exceeds
    slots / batch / blocks, it is split over as many ciphertexts as it fills.
    """
    width = slots // (batch * blocks)
    if width * batch * blocks != slots or width < 1:
        raise LoweringError(f"a batch of {batch * blocks} does not divide {slots} slots")
    places = next_power_of_two(len(order))
    if places > width:
        places = -(-len(order) // width) * width
    padded = np.full(places, -1, dtype=np.int64)
    padded[: len(order)] = order
    features = int(order.max()) + 1
    if places > width:
        return Layout(features, padded.reshape(-1, width), batch, width, blocks=blocks)
    positions = np.tile(padded, width // places)[None, :]
    return Layout(features, positions, batch, places if blocks == 1 else width, blocks=blocks)


def spread(order: NDArray[np.int64], cell: int, batch: int, slots: int, rows: int, window: int) -> Layout:
    """A layout with each channel in one of so many rows, repeated there as often as there is room for.

    `order` (channels * cell,) is the feature at each place or -1, `cell` places to a channel. All slots are divided
    into `rows`; the channels of a row take turns. The last cells of a row hold nothing: a value can be summed there
    from partial sums in the `window` next cells of its channel, with nothing of another row among them. LoweringError
    if there is no room for that.
    """
    width = slots // batch
    length, channels = width // rows, len(order) // cell
    each = next_power_of_two(-(-channels // rows))
    filled = length // cell - (window - 1) * each
    if width * batch != slots or length * rows != width or channels * cell != len(order) or filled < each:
        raise LoweringError(f"{channels} channels of {cell} do not spread over {rows} rows of {length} positions")
    channel = np.arange(rows)[:, None] * each + np.arange(filled) % each
    padded = np.full((rows * each, cell), -1, dtype=np.int64)
    padded[:channels] = order.reshape(channels, cell)
    positions = np.full((rows, length), -1, dtype=np.int64)
    positions[:, : filled * cell] = padded[channel].reshape(rows, -1)
    features = int(order.max()) + 1
    return Layout(features, positions.reshape(1, -1), batch, width, cell=cell, stride=each * cell, window=window)


def grid_order(shape: tuple[int, ...], grid: tuple[int, int]) -> NDArray[np.int64] | None:
    """A tensor's features in their order on a grid of (height, width) positions, or None if they do not fit it.

    The grid is innermost, so that a shift in space is one shift of positions for all channels. A tensor (channels,
    height, width) of the grid's resolution keeps its order. A finer one has its s x s cells as further channels (space
    to depth). Of a coarser one, s * s channels share one grid: a strided convolution then has few distinct shifts
    (multiplexed packing; Lee et al. 2022). A tensor without space, (channels,), is repeated over the whole grid.
    """
    rows, columns = grid
    if len(shape) == 1:
        return np.repeat(np.arange(shape[0], dtype=np.int64), rows * columns)
    if len(shape) != 3:
        return None
    channels, height, width = shape
    index = np.arange(channels * height * width, dtype=np.int64).reshape(shape)
    if height % rows == 0 and height // rows * columns == width:
        s = height // rows
        return index.reshape(channels, rows, s, columns, s).transpose(0, 2, 4, 1, 3).reshape(-1)
    if rows % height == 0 and rows // height * width == columns:
        s = rows // height
        groups = -(-channels // s**2)
        padded = np.full((groups * s**2, height, width), -1, dtype=np.int64)
        padded[:channels] = index
        return padded.reshape(groups, s, s, height, width).transpose(0, 3, 1, 4, 2).reshape(-1)
    return None
