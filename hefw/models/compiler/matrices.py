"""Matrices of linear operators on tensors of one image, by construction or from a basis, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from hefw.core.rows import distinct_ragged, starts
from hefw.core.sparse import SparseMatrix

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Shape = tuple[int, ...]
#: An operator with everything but its data given: tensors -> tensor.
Operator = Callable[[Sequence[torch.Tensor]], torch.Tensor]

#: Entries of a basis and its images that are computed at once.
CHUNK_ENTRIES = 1 << 24


def selection(operator: Operator, shapes: Sequence[Shape]) -> list[SparseMatrix]:
    """The matrices, one a tensor, of an operator that copies entries of its tensors, drops some, and puts in constants.

    The result is their sum, plus the constants.
    """
    sizes = [math.prod(shape) for shape in shapes]
    begins = np.cumsum([0, *sizes]).tolist()
    with torch.no_grad():
        constants = operator([torch.zeros(shape, dtype=torch.float64) for shape in shapes])
        numbered = operator(
            [
                torch.arange(start + 1, start + size + 1, dtype=torch.float64).reshape(shape)
                for start, size, shape in zip(begins[:-1], sizes, shapes, strict=True)
            ]
        )
    source = np.rint((numbered - constants).reshape(-1).numpy()).astype(np.int64) - 1
    found = []
    for start, size in zip(begins[:-1], sizes, strict=True):
        here = (source >= start) & (source < start + size)
        column = source[here] - start
        found.append(
            SparseMatrix.from_rows((len(source), size), starts(here.astype(np.int64)), column, np.ones(len(column)))
        )
    return found


def probed(operator: Operator, shape: Shape) -> SparseMatrix:
    """The matrix of an affine operator on one tensor, from its values on a basis."""
    size = math.prod(shape)
    rows, columns, values = [], [], []
    with torch.no_grad():
        constant = operator([torch.zeros(shape, dtype=torch.float64)])
        count = max(1, CHUNK_ENTRIES // (size + constant.numel()))
        for start in range(0, size, count):
            basis = torch.zeros(min(count, size - start), size, dtype=torch.float64)
            basis[torch.arange(len(basis)), start + torch.arange(len(basis))] = 1
            images = torch.vmap(lambda x: operator([x]) - constant)(basis.reshape(-1, *shape))
            found = images.reshape(len(basis), -1).numpy()
            column, row = np.nonzero(found)
            rows.append(row)
            columns.append(start + column)
            values.append(found[column, row])
    matrix = (constant.numel(), size)
    return SparseMatrix.from_entries(matrix, np.concatenate(rows), np.concatenate(columns), np.concatenate(values))


def convolution(
    weight: torch.Tensor,
    shape: Shape,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> SparseMatrix:
    """The matrix of a 2-d convolution of an image (channels, height, width), by where its kernel lies."""
    covered = _covered(weight, shape, stride, padding, dilation)
    tap, out = np.nonzero(covered)
    kernel = weight.detach().double().numpy().reshape(*weight.shape[:2], -1)
    sizes = (covered.shape[1], shape[1] * shape[2])
    return _placed(kernel, groups, sizes, out, covered[tap, out] - 1, tap)


def transposed_convolution(
    weight: torch.Tensor,
    out_shape: Shape,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> SparseMatrix:
    """The matrix of a 2-d transposed convolution onto an image (channels, height, width)."""
    covered = _covered(weight, out_shape, stride, padding, dilation)
    tap, place = np.nonzero(covered)
    ins, outs = weight.shape[:2]
    kernel = weight.detach().double().numpy().reshape(groups, ins // groups, outs, -1)
    kernel = kernel.swapaxes(1, 2).reshape(groups * outs, ins // groups, -1)
    sizes = (out_shape[1] * out_shape[2], covered.shape[1])
    return _placed(kernel, groups, sizes, covered[tap, place] - 1, place, tap)


def _covered(
    weight: torch.Tensor, shape: Shape, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Indices:
    """(taps of the kernel, its places on the image): the number of the pixel under the tap, from 1; 0 outside."""
    index = torch.arange(1, shape[1] * shape[2] + 1, dtype=torch.float64).reshape(1, 1, *shape[1:])
    columns = functional.unfold(
        index, weight.shape[2:], dilation=tuple(dilation), padding=tuple(padding), stride=tuple(stride)
    )
    return np.asarray(columns[0].numpy().astype(np.int64))


def _placed(
    kernel: Array, groups: int, sizes: tuple[int, int], out: Indices, read: Indices, tap: Indices
) -> SparseMatrix:
    """The matrix in which pixel `out` of every channel reads pixel `read` by weight `tap` of the kernel.

    `kernel` is (output channels, input channels of a group, taps), `sizes` the pixels of output and input. Pixels that
    read alike, but for where they are, have rows alike.
    """
    outs, ins = kernel.shape[:2]
    order = np.lexsort((read, out))
    out, read, tap = out[order], read[order], tap[order]
    start = starts(np.bincount(out, minlength=sizes[0]))
    first = np.append(read, 0)[start[:-1]] * (np.diff(start) > 0)
    alike = distinct_ragged(start, (read - first[out]) * kernel.shape[2] + tap)
    begins = np.arange(outs) // (outs // groups) * ins * sizes[1]  # the first entry that an output channel reads
    lengths, columns, values = [], [], []
    for pixel in alike.first:
        part = slice(start[pixel], start[pixel + 1])
        weights = kernel[:, :, tap[part]].reshape(outs, -1)
        column = (np.arange(ins)[:, None] * sizes[1] + read[part]).reshape(-1)
        channel, entry = np.nonzero(weights)
        lengths.append(np.bincount(channel, minlength=outs))
        columns.append(begins[channel] + column[entry])
        values.append(weights[channel, entry])
    kind = alike.kind * outs + np.arange(outs)[:, None]
    # A row of the first pixel of a kind may lack entries where weights are zero, but all its entries move alike.
    shift = first - first[alike.first][alike.kind]
    return SparseMatrix.from_kinds(
        (outs * sizes[0], groups * ins * sizes[1]),
        starts(np.concatenate(lengths)),
        np.concatenate(columns),
        np.concatenate(values),
        kind.reshape(-1),
        np.broadcast_to(shift, kind.shape).reshape(-1),
    )
