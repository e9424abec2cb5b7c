"""Matrices of linear operators on tensors of one image, by construction or from a basis, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch.nn import functional

from hefw.core.sparse import SparseMatrix

Array = NDArray[np.float64]
Shape = tuple[int, ...]
Matrix: TypeAlias = Any  # a scipy.sparse.csr_array (entries of the output, entries of the input)
#: An operator with everything but its data given: tensors -> tensor.
Operator = Callable[[Sequence[torch.Tensor]], torch.Tensor]

#: Entries of a basis and its images that are computed at once.
CHUNK_ENTRIES = 1 << 24


def identity(size: int) -> Matrix:
    """The identity of so many entries."""
    return sparse.eye_array(size, format="csr")


def to_sparse(matrix: Matrix) -> SparseMatrix:
    """The core's form, by rows and columns; entries that are zero are left out."""
    ordered = matrix.sorted_indices()
    ordered.eliminate_zeros()
    found = ordered.tocoo()
    row, column = (index.astype(np.int64) for index in found.coords)
    return SparseMatrix((matrix.shape[0], matrix.shape[1]), row, column, np.asarray(found.data, np.float64))


def selection(operator: Operator, shapes: Sequence[Shape]) -> Matrix:
    """The matrix of an operator that copies entries of its tensors, drops some, and puts in constants."""
    sizes = [math.prod(shape) for shape in shapes]
    starts = np.cumsum([0, *sizes])
    with torch.no_grad():
        constants = operator([torch.zeros(shape, dtype=torch.float64) for shape in shapes])
        numbered = operator(
            [
                torch.arange(start + 1, start + size + 1, dtype=torch.float64).reshape(shape)
                for start, size, shape in zip(starts[:-1].tolist(), sizes, shapes, strict=True)
            ]
        )
    source = np.rint((numbered - constants).reshape(-1).numpy()).astype(np.int64)
    row = np.flatnonzero(source)
    return sparse.csr_array((np.ones(len(row)), (row, source[row] - 1)), shape=(len(source), int(starts[-1])))


def probed(operator: Operator, shape: Shape) -> Matrix:
    """The matrix of an affine operator on one tensor, from its values on a basis."""
    size = math.prod(shape)
    with torch.no_grad():
        constant = operator([torch.zeros(shape, dtype=torch.float64)])
        per_image = size + constant.numel()
        count = max(1, CHUNK_ENTRIES // per_image)
        blocks = []
        for start in range(0, size, count):
            basis = torch.zeros(min(count, size - start), size, dtype=torch.float64)
            basis[torch.arange(len(basis)), start + torch.arange(len(basis))] = 1
            images = torch.vmap(lambda x: operator([x]) - constant)(basis.reshape(-1, *shape))
            blocks.append(sparse.csr_array(images.reshape(len(basis), -1).numpy()))
    return sparse.csr_array(sparse.vstack(blocks).T)


def convolution(
    weight: torch.Tensor,
    shape: Shape,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Matrix:
    """The matrix of a 2-d convolution of an image (channels, height, width), by where its kernel lies."""
    weight_ = weight.detach().double().numpy()
    outs, ins = weight_.shape[:2]
    pixels = shape[1] * shape[2]
    index = torch.arange(1, pixels + 1, dtype=torch.float64).reshape(1, 1, *shape[1:])
    kernel = weight_.shape[2:]
    columns = functional.unfold(index, kernel, dilation=tuple(dilation), padding=tuple(padding), stride=tuple(stride))
    covered = columns[0].numpy().astype(np.int64)  # (places of the kernel, places of the output): pixel + 1, or 0
    place, out = np.nonzero(covered)
    pixel = covered[place, out] - 1
    per_group = outs // groups
    first = (np.arange(outs) // per_group) * ins  # the first input channel that an output channel sees
    row = np.arange(outs)[:, None, None] * covered.shape[1] + out
    column = (first[:, None, None] + np.arange(ins)[None, :, None]) * pixels + pixel
    values = weight_.reshape(outs, ins, -1)[:, :, place]
    found = sparse.csr_array(
        (values.reshape(-1), (np.broadcast_to(row, values.shape).reshape(-1), column.reshape(-1))),
        shape=(outs * covered.shape[1], shape[0] * pixels),
    )
    found.eliminate_zeros()
    return found


def transposed_convolution(
    weight: torch.Tensor,
    out_shape: Shape,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Matrix:
    """The matrix of a 2-d transposed convolution onto an image (channels, height, width)."""
    return sparse.csr_array(convolution(weight, out_shape, stride, padding, dilation, groups).T)
