"""The graph of `digits`: layers as matrices, the time embedding as biases, the scheduler's update as a scalar."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from hefw.core.graph import Affine, Graph, Input, LinearTerm, Node, Polynomial
from hefw.core.sparse import SparseMatrix
from hefw.models.digits.unet import PATCH, DigitsUNet
from hefw.models.schedules import LinearUpdate
from hefw.models.update_terms import append_update, calibration, check_updates, network_input

Array = NDArray[np.float64]
Shape = tuple[int, int, int]


def matrix_of(function: Callable[[torch.Tensor], torch.Tensor], shape: Shape) -> SparseMatrix:
    """The matrix of a linear function of (batch, channels, height, width) tensors, from a basis in float64."""
    size = int(np.prod(shape))
    basis = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    with torch.no_grad():
        columns = function(basis)
    return SparseMatrix.from_dense(columns.reshape(size, -1).T.contiguous().numpy())


def digits_graph(model: DigitsUNet, updates: Sequence[LinearUpdate], noise: float = 1.0) -> Graph:
    """One denoising step of `model` with the scheduler's update, for the steps of `updates`; x_T is noise * N(0, 1).

    The input `latent` is the picture itself, (1, height, width); `label` is one-hot. The output is v + (f / a) x: the
    key holder multiplies it by the public a and has x_{t-1}, so that the update costs no level and re-encodes nothing.
    A multistep scheduler's history is further inputs, `latent-1`, `prediction-1` and so on, zero at the first step; the
    prediction is then an output, too. SchedulerError for a scheduler that adds noise.
    """
    model = copy.deepcopy(model).double().eval()
    return _Builder(model, updates, noise).graph()


class _Builder:
    def __init__(self, model: DigitsUNet, updates: Sequence[LinearUpdate], noise: float) -> None:
        check_updates(updates)
        self.model = model
        self.updates = updates
        self.noise = noise
        size = model.config.sample_size
        self.image: Shape = (1, size, size)
        self.grid = (size // PATCH, size // PATCH)
        self.nodes: dict[str, Node] = {}
        with torch.no_grad():
            self.time = [[b.numpy() for b in model.time_biases(_whole(u.timestep))] for u in updates]
            self.tables = [table.detach().numpy() for table in model.label_tables()]

    def graph(self) -> Graph:
        m, classes = self.model, self.tables[0].shape[0]
        rows, columns = self.grid
        upper, lower = m.config.channels, 2 * m.config.channels
        high: Shape = (upper, rows, columns)
        low: Shape = (lower, rows // 2, columns // 2)
        self.nodes["latent"] = Input("latent", self.image)
        self.nodes["label"] = Input("label", (classes,), once=True)
        first = matrix_of(lambda x: _linear(m.inp)(functional.pixel_unshuffle(x, PATCH)), self.image)
        self.stage(0, high, [LinearTerm(network_input(self.nodes, self.updates), first)], [m.inp])
        self.stage(1, low, [LinearTerm("a0", matrix_of(_linear(m.down), high))], [m.down])
        residual = LinearTerm("z1", SparseMatrix.diagonal(np.ones(int(np.prod(low)))))
        self.stage(2, low, [residual, LinearTerm("a1", matrix_of(_linear(m.mid), low))], [m.mid])
        up = LinearTerm("a2", matrix_of(_linear(m.up), low))
        skip = LinearTerm("a0", matrix_of(_linear(m.skip), high))
        self.stage(3, high, [up, skip], [m.up, m.skip])

        last = matrix_of(lambda a: functional.pixel_shuffle(_linear(m.out)(a), PATCH), high)
        bias = functional.pixel_shuffle(_bias(m.out)[None, :, None, None].expand(1, -1, rows, columns), PATCH)
        outputs = append_update(self.nodes, self.updates, [LinearTerm("a3", last)], bias.reshape(1, -1).numpy())
        timesteps = tuple(u.timestep for u in self.updates)
        return Graph(self.nodes, outputs, timesteps, calibration(self.nodes, self.noise), {"model": "digits"})

    def stage(self, k: int, shape: Shape, terms: list[LinearTerm], layers: list[nn.Module]) -> None:
        """z_k = terms + T_k(t) + L_k[y] and a_k = z_k + a z_k^2."""
        channels, rows, columns = shape
        labels = np.repeat(self.tables[k].T, rows * columns, axis=0)  # (features, classes)
        constant = sum((_bias(layer).numpy() for layer in layers), np.zeros(channels))
        bias = np.stack([np.repeat(constant + time[k], rows * columns) for time in self.time])
        terms = [*terms, LinearTerm("label", SparseMatrix.from_dense(labels))]
        self.nodes[f"z{k}"] = Affine(f"z{k}", shape, tuple(terms), bias)
        with torch.no_grad():
            a = np.repeat(self.model.activations[k].coefficients.numpy(), rows * columns)
        self.nodes[f"a{k}"] = Polynomial(f"a{k}", shape, f"z{k}", np.stack([0 * a, 0 * a + 1, a]))


def _whole(timestep: float) -> int | float:
    return int(timestep) if timestep.is_integer() else timestep


def _linear(layer: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """A convolution without its bias."""
    if isinstance(layer, nn.ConvTranspose2d):
        return lambda x: functional.conv_transpose2d(x, layer.weight, None, layer.stride, layer.padding)
    assert isinstance(layer, nn.Conv2d)
    return lambda x: functional.conv2d(x, layer.weight, None, layer.stride, layer.padding)


def _bias(layer: nn.Module) -> torch.Tensor:
    """A convolution's bias, (channels,)."""
    assert isinstance(layer.bias, torch.Tensor)
    return layer.bias.detach()
