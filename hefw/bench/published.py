"""HE-Diffusion's update step as published (arXiv 2403.05794 and its code), anew on TenSEAL's own classes.

A baseline to be measured against: no strategy, registered nowhere, offered to nobody. The published system is one
process. At every step its UNet gets the latent x_t in plaintext; then it selects, encrypts, computes x_{t-1} =
f x_t + a on the encrypted entries (f a number, a a plaintext tensor of noise predictions), decrypts and merges.

Wherever this differs from the published code it is faster: the selection computes its cost once and sorts instead of
searching, and what has one ciphertext an entry is one `CKKSTensor`, and merged without a loop.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import tenseal as ts
import torch
from numpy.typing import NDArray
from torch.nn.functional import conv2d, pad

Array = NDArray[np.float64]

RING_DIMENSION = 8192
#: log2(QP) = 218, all that 128-bit security leaves at this ring dimension.
PRIME_BITS = (31, 26, 26, 26, 26, 26, 26, 31)
SCALE = 2.0**26
THRESHOLD = 0.01
PARTS = ("select", "encrypt", "update", "decrypt", "merge")

HIGH_PASS = torch.tensor([[-1.0, 2.0, -1.0], [2.0, -4.0, 2.0], [-1.0, 2.0, -1.0]])
SMALL_MEAN = torch.full((3, 3), 1 / 9)
LARGE_MEAN = torch.full((15, 15), 1 / 225)


@dataclass(frozen=True)
class Step:
    """One update step of a latent.

    Attributes:
        seconds: wall time of each of `PARTS`, for the whole latent.
        latent: x_{t-1} (channels, height, width); NaN where an extrapolated step computed nothing.
        encrypted_elements: entries that are encrypted, in the whole latent.
        measured_elements: entries that were encrypted while the clock ran.
        ciphertexts: of the whole latent.
        extrapolated: fewer entries were measured than are encrypted, and what encryption, update, decryption and
            merging of the measured ones took was multiplied by the ratio.
    """

    seconds: dict[str, float]
    latent: Array
    encrypted_elements: int
    measured_elements: int
    ciphertexts: int
    extrapolated: bool


def select(latent: torch.Tensor, threshold: float = THRESHOLD) -> torch.Tensor:
    """The min-distortion selection of a latent (channels, height, width): True where an entry is encrypted.

    The distortion of an entry is its magnitude times its HILL cost. Entries go to plaintext in ascending order of
    distortion until the sum of theirs reaches `threshold` (0 to 1) times the sum of all. Height and width: at least 8.
    """
    distortion = (latent.abs() * _cost(latent)).flatten()
    ascending, order = torch.sort(distortion, stable=True)
    reached = torch.cumsum(ascending, 0, dtype=torch.float64)
    before = torch.cat([torch.zeros(1, dtype=torch.float64), reached[:-1]])
    selection = torch.ones_like(distortion, dtype=torch.bool)
    selection[order[before < threshold * reached[-1]]] = False
    return selection.reshape(latent.shape)


def _cost(latent: torch.Tensor) -> torch.Tensor:
    """HILL: high-pass filter, magnitude, small mean, reciprocal, large mean."""
    smooth = _filtered(_filtered(latent[None], HIGH_PASS).abs(), SMALL_MEAN)
    return _filtered(torch.where(smooth == 0, 0.0, 1 / smooth), LARGE_MEAN)[0]


def _filtered(planes: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Every plane becomes the sum of all planes (1, channels, height, width), filtered, with mirrored borders."""
    channels, border = planes.shape[1], kernel.shape[0] // 2
    mirrored = pad(planes, [border] * 4, mode="reflect")
    return conv2d(mirrored, kernel.expand(channels, channels, *kernel.shape))


class Published:
    """The three published ways, with one key. Making one generates Galois keys, as published; no way needs them."""

    def __init__(self) -> None:
        self._context = ts.context(ts.SCHEME_TYPE.CKKS, RING_DIMENSION, coeff_mod_bit_sizes=list(PRIME_BITS))
        self._context.global_scale = SCALE
        self._context.generate_galois_keys()

    def full(self, latent: Array, factor: float, addend: Array, measured: int | None = None) -> Step:
        """factor * latent + addend with every entry in a ciphertext of its own: the paper's baseline.

        Only the first `measured` entries are computed, where that is given, and times are extrapolated.
        """
        return self._one_by_one(latent, factor, addend, None, measured)

    def partial(
        self, latent: Array, factor: float, addend: Array, measured: int | None = None, threshold: float = THRESHOLD
    ) -> Step:
        """As `full` for the entries that `select` selects; the others are updated in plaintext."""
        return self._one_by_one(latent, factor, addend, threshold, measured)

    def sparse(self, latent: Array, factor: float, addend: Array, threshold: float = THRESHOLD) -> Step:
        """The selected entries as a COO list: values in the slots of one chunked vector, indices in plaintext."""
        x, a = _tensor(latent), _tensor(addend)
        clock = _Clock()
        with clock.part("select"):
            selection = select(x, threshold)
            places, values, remaining = selection.nonzero(), x[selection], x.masked_fill(selection, 0.0)
        with clock.part("encrypt"):
            encrypted = ts.ckks_vector(self._context, values.numpy())
        with clock.part("update"):
            merged = factor * remaining + a
            updated = factor * encrypted + a[selection].numpy()
        with clock.part("decrypt"):
            decrypted = updated.decrypt()
        with clock.part("merge"):
            for value, place in zip(decrypted, places.numpy(), strict=True):
                merged[tuple(place)] = value
        count, ciphertexts = len(values), len(encrypted.ciphertext())
        return Step(clock.seconds, _array(merged), count, count, ciphertexts, extrapolated=False)

    def _one_by_one(
        self, latent: Array, factor: float, addend: Array, threshold: float | None, measured: int | None
    ) -> Step:
        x, a = _tensor(latent), _tensor(addend)
        clock = _Clock()
        if threshold is None:
            selection = torch.ones_like(x, dtype=torch.bool)
        else:
            with clock.part("select"):
                selection = select(x, threshold)
        places = selection.nonzero()
        count = len(places)
        places = places[:measured]
        index = tuple(places.T)
        ratio = count / len(places)
        values, terms = x[index][None].numpy(), a[index][None].numpy()
        with clock.part("encrypt", ratio):
            encrypted = ts.ckks_tensor(self._context, values)
        with clock.part("update", ratio):
            updated = factor * encrypted + terms
        with clock.part("update"):
            merged = torch.where(selection, torch.nan, factor * x + a)
        with clock.part("decrypt", ratio):
            decrypted = updated.decrypt().tolist()
        with clock.part("merge", ratio):
            merged[index] = torch.tensor(decrypted)[0]
        return Step(clock.seconds, _array(merged), count, len(places), count, extrapolated=len(places) < count)


class _Clock:
    """Seconds by part."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def part(self, name: str, ratio: float = 1.0) -> Iterator[None]:
        """Adds the time of the block, times `ratio`, to one part."""
        started = time.perf_counter()
        yield
        self.seconds[name] += ratio * (time.perf_counter() - started)


def _tensor(values: Array) -> torch.Tensor:
    """In single precision, as published."""
    return torch.from_numpy(values).to(torch.float32)


def _array(values: torch.Tensor) -> Array:
    array: Array = values.numpy().astype(np.float64)
    return array
