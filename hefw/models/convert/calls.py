"""The calls that ciphertext cannot bear, counted in order of execution, be they made by modules or by functions.

A place in a network is the number of its call: one module may be called for the picture and for the timestep's
embedding (diffusers' `ResnetBlock2D.nonlinearity`), and a plain function has no module at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

ACTIVATION, NORM, ATTENTION, SOFTMAX = "activation", "norm", "attention", "softmax"
#: Operators by the functions that compute them: (name, kind).
OPERATORS: dict[Any, tuple[str, str]] = {
    functional.silu: ("silu", ACTIVATION),
    functional.gelu: ("gelu", ACTIVATION),
    functional.relu: ("relu", ACTIVATION),
    torch.relu: ("relu", ACTIVATION),
    torch.Tensor.relu: ("relu", ACTIVATION),
    functional.mish: ("mish", ACTIVATION),
    functional.elu: ("elu", ACTIVATION),
    functional.leaky_relu: ("leaky_relu", ACTIVATION),
    functional.softplus: ("softplus", ACTIVATION),
    functional.hardswish: ("hardswish", ACTIVATION),
    functional.tanh: ("tanh", ACTIVATION),
    torch.tanh: ("tanh", ACTIVATION),
    torch.Tensor.tanh: ("tanh", ACTIVATION),
    functional.sigmoid: ("sigmoid", ACTIVATION),
    torch.sigmoid: ("sigmoid", ACTIVATION),
    torch.Tensor.sigmoid: ("sigmoid", ACTIVATION),
    functional.group_norm: ("group_norm", NORM),
    functional.instance_norm: ("instance_norm", NORM),
    functional.layer_norm: ("layer_norm", NORM),
    functional.rms_norm: ("rms_norm", NORM),
    functional.scaled_dot_product_attention: ("scaled_dot_product_attention", ATTENTION),
    functional.softmax: ("softmax", SOFTMAX),
    torch.softmax: ("softmax", SOFTMAX),
    torch.Tensor.softmax: ("softmax", SOFTMAX),
}
#: Norms whose channels are the last axis; those of the others are the first after the batch.
LAST_AXIS = ("layer_norm", "rms_norm")


@dataclass(frozen=True)
class Call:
    """One call of an operator: which one, and what it was given."""

    number: int
    operator: str
    kind: str
    function: Callable[..., Any]
    arguments: Sequence[Any]
    keywords: Mapping[str, Any]

    def run(self) -> torch.Tensor:
        """What the network itself computes, and never in place: what was read may be read again."""
        return self.function(*self.arguments, **{k: v for k, v in self.keywords.items() if k != "inplace"})

    @property
    def input(self) -> torch.Tensor:
        """What is read: of an attention, its queries."""
        given = self.arguments[0] if self.arguments else self.keywords.get("input", self.keywords.get("query"))
        assert isinstance(given, torch.Tensor)
        return given

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All tensors among the arguments."""
        given = (*self.arguments, *self.keywords.values())
        return [value for value in given if isinstance(value, torch.Tensor)]

    def elementwise(self, x: torch.Tensor) -> torch.Tensor:
        """An activation's value at other inputs."""
        keywords = {key: value for key, value in self.keywords.items() if key not in ("input", "inplace")}
        return self.function(x, *self.arguments[1:], **keywords)


class Calls(TorchFunctionMode):  # type: ignore[misc]
    """Within it, every call of `OPERATORS` is answered by `handler`."""

    def __init__(self, handler: Callable[[Call], Any]) -> None:
        super().__init__()
        self.handler = handler
        self.count = 0

    def __torch_function__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), keywords: Mapping[str, Any] | None = None
    ) -> Any:
        known = OPERATORS.get(function)
        if known is None:
            return function(*arguments, **(keywords or {}))
        self.count += 1
        operator, kind = known
        return self.handler(Call(self.count, operator, kind, function, arguments, keywords or {}))
