"""What takes the place of a call: static norms, polynomials, attention without softmax, additive conditioning.

Each is a module called with what the call was given and with the `Context` of the evaluation; its parameters are
trained. `SPECIFICATIONS` makes an untrained one from a `Specification`, for weights to be loaded into.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from hefw.models.convert.calls import Call

#: Completing the square shifts by b / (2 a), which must stay small.
MINIMUM_QUADRATIC = 0.05


@dataclass
class Context:
    """What replacements know about one evaluation.

    Attributes:
        step: (batch or 1, timesteps), how much of each timestep of the conversion: 1 at one of them on its grid.
        labels: (batch,), or None for a network without.
        blend: 1 for polynomials, 0 for the activations that they replace; between them while training begins.
        read: where polynomials put what they read, or None.
    """

    step: torch.Tensor
    labels: torch.Tensor | None
    blend: float = 1.0
    read: list[torch.Tensor] | None = None


@dataclass(frozen=True)
class Specification:
    """A replacement without its weights: the call's number and place, what replaces it, and its sizes."""

    number: int
    place: str
    operator: str
    kind: str
    sizes: Mapping[str, int] = field(default_factory=dict)


class Replacement(nn.Module, ABC):  # type: ignore[misc]
    """Base: something that computes what a call did."""

    #: Levels that it takes, its affine region included.
    levels = 0

    @abstractmethod
    def forward(self, call: Call, context: Context) -> torch.Tensor:
        """What stands in for the call's value."""


def along(values: torch.Tensor, axis: int, dimensions: int) -> torch.Tensor:
    """(..., channels) shaped to be broadcast with a batch whose channels are at `axis`, counted from the end."""
    return values.reshape(*values.shape, *[1] * (-1 - axis)) if dimensions else values


class StaticNorm(Replacement):
    """A slope per channel, and an intercept per timestep and channel: only biases change with the step."""

    def __init__(self, timesteps: int, channels: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.slope = nn.Parameter(torch.ones(channels))
        self.intercept = nn.Parameter(torch.zeros(timesteps, channels))

    def forward(self, call: Call, context: Context) -> torch.Tensor:
        x = call.input
        intercept = context.step.to(x.dtype) @ self.intercept
        between = [1] * (x.dim() + self.axis - 1)  # axes between the batch and the channels
        intercept = intercept.reshape(len(intercept), *between, -1, *[1] * (-1 - self.axis))
        return x * along(self.slope, self.axis, x.dim()) + intercept


class Polynomial(Replacement):
    """Per channel: `slope z + constant`, or with degree 2 `square z^2 + slope z + constant`."""

    def __init__(self, channels: int, axis: int, degree: int) -> None:
        super().__init__()
        self.axis, self.degree = axis, degree
        self.levels = 2 * (degree > 1)
        self.constant = nn.Parameter(torch.zeros(channels))
        self.slope = nn.Parameter(torch.ones(channels))
        self.raw = nn.Parameter(torch.zeros(channels)) if degree > 1 else None

    @property
    def square(self) -> torch.Tensor:
        """The quadratic coefficients, each at least `MINIMUM_QUADRATIC`."""
        assert self.raw is not None
        return MINIMUM_QUADRATIC + functional.softplus(self.raw)

    def forward(self, call: Call, context: Context) -> torch.Tensor:
        z = call.input
        slope, constant = (along(p, self.axis, z.dim()) for p in (self.slope, self.constant))
        found = slope * z + constant
        if self.raw is not None:
            if context.read is not None:
                context.read.append(z)
            found = found + along(self.square, self.axis, z.dim()) * (z * z)
        return found if context.blend >= 1 else context.blend * found + (1 - context.blend) * call.run()


class Chebyshev(Replacement):
    """A polynomial of higher degree in Chebyshev's basis on an interval, the same for all channels.

    Outside of the interval it explodes: while training, what is read is held inside (and the penalty pulls it there).
    """

    interval: torch.Tensor

    def __init__(self, degree: int) -> None:
        super().__init__()
        self.levels = 2 * (degree - 1).bit_length()
        self.coefficients = nn.Parameter(torch.zeros(degree + 1))
        self.register_buffer("interval", torch.tensor([-1.0, 1.0]))

    def forward(self, call: Call, context: Context) -> torch.Tensor:
        z = call.input
        if context.read is not None:
            context.read.append(z)
        low, high = self.interval.unbind()
        held = torch.minimum(torch.maximum(z, low), high) if self.training else z
        u = (held - (low + high) / 2) * (2 / (high - low))
        # Clenshaw's recurrence
        one, two = torch.zeros_like(u), torch.zeros_like(u)
        for coefficient in self.coefficients.flip(0)[:-1]:
            one, two = 2 * (u * one) - two + coefficient, one
        found = u * one - two + self.coefficients[0]
        return found if context.blend >= 1 else context.blend * found + (1 - context.blend) * call.run()


class NoAttention(Replacement):
    """Nothing is attended to: zero."""

    def forward(self, call: Call, context: Context) -> torch.Tensor:
        values = call.tensors[2] if len(call.tensors) > 2 else call.input
        return values.new_zeros(values.shape)


class MeanAttention(Replacement):
    """The mean of the attention's weights, (heads, tokens, tokens): affine, so it costs no level of its own."""

    def __init__(self, heads: int, tokens: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(heads, tokens, tokens))

    def forward(self, call: Call, context: Context) -> torch.Tensor:
        if len(call.tensors) < 3:  # a softmax alone, whose result is the weights
            weights = self.weights.reshape(call.input.shape[1:])
            return weights.expand(call.input.shape)
        return torch.matmul(self.weights, call.tensors[2])


class KernelAttention(Replacement):
    """A polynomial of the scores in place of their softmax: mean + sum_k c_k score^k, c per head; no division."""

    def __init__(self, heads: int, tokens: int, degree: int) -> None:
        super().__init__()
        self.levels = 4 if degree == 1 else 6
        self.mean = nn.Parameter(torch.zeros(heads, tokens, tokens))
        self.factors = nn.Parameter(torch.zeros(degree, heads))

    def forward(self, call: Call, context: Context) -> torch.Tensor:
        query, key, value = call.tensors[:3]
        size = query.shape[-1] ** -0.5
        scores = (query[..., :, None, :] * key[..., None, :, :]).sum(-1) * size  # entry by entry, as ciphertexts do
        if context.read is not None:
            context.read.append(scores)
        weights = self.mean + self.factors[0][:, None, None] * scores
        if len(self.factors) > 1:
            weights = weights + self.factors[1][:, None, None] * (scores * scores)
        return (weights[..., None] * value[..., None, :, :]).sum(-2)


class AdditiveConditioning(Replacement):
    """A timestep's part plus a label's part: the label then costs one matrix a region, once a request."""

    def __init__(self, timesteps: int, classes: int, channels: int) -> None:
        super().__init__()
        self.timestep = nn.Parameter(torch.zeros(timesteps, channels))
        self.label = nn.Parameter(torch.zeros(classes, channels))

    def forward(self, call: Call, context: Context) -> torch.Tensor:
        assert context.labels is not None
        return context.step.to(self.timestep.dtype) @ self.timestep + functional.embedding(context.labels, self.label)


#: Kinds of replacements by name.
KINDS: dict[str, Callable[..., Any]] = {
    "static norm": StaticNorm,
    "polynomial": Polynomial,
    "chebyshev": Chebyshev,
    "no attention": NoAttention,
    "mean attention": MeanAttention,
    "kernel attention": KernelAttention,
    "additive": AdditiveConditioning,
}


def build(specification: Specification) -> Replacement:
    """An untrained replacement."""
    made: Replacement = KINDS[specification.kind](**specification.sizes)
    return made
