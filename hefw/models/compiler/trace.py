"""The operators of a module, by torch.export with static shapes, a batch of one image, in float64."""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.export.graph_signature import InputKind

from hefw.core.errors import CompileError
from hefw.models.compiler.check import call_arguments, private_arguments

#: Operators that are kept whole, because the compiler knows them or names them in its messages.
KEPT = [
    "silu",
    "gelu",
    "mish",
    "hardswish",
    "hardsigmoid",
    "hardtanh",
    "relu6",
    "elu",
    "celu",
    "selu",
    "leaky_relu",
    "softplus",
    "logsigmoid",
    "group_norm",
    "layer_norm",
    "batch_norm",
    "instance_norm",
    "rms_norm",
    "linear",
    "scaled_dot_product_attention",
    "softmax",
    "log_softmax",
    "upsample_nearest2d",
    "_upsample_nearest_exact2d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "pixel_shuffle",
    "pixel_unshuffle",
    "avg_pool2d",
    "adaptive_avg_pool2d",
    "reflection_pad1d",
    "reflection_pad2d",
    "replication_pad2d",
    "rsub",
]


class Network(nn.Module):  # type: ignore[misc]
    """A module as a function of samples (batch, *shape), timesteps (batch,) and what is private, in float64.

    That is labels (batch,), conditions (batch, *its shape), both in this order, or neither.
    """

    def __init__(
        self, module: nn.Module, arguments: Mapping[str, Any], *, labelled: bool = False, conditioned: bool = False
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(module).double().requires_grad_(False)
        self.arguments = {
            key: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
            for key, value in call_arguments(module, arguments).items()
        }
        self.private = private_arguments(module, labelled=labelled, conditioned=conditioned)

    def forward(self, x: torch.Tensor, t: torch.Tensor, *private: torch.Tensor) -> torch.Tensor:
        named = dict(zip(self.private.values(), private, strict=True))
        with float64():
            found = self.network(x, t, **(self.arguments | named))
        found = getattr(found, "sample", found)
        while isinstance(found, (tuple, list)) and found:
            found = found[0]
        if not isinstance(found, torch.Tensor):
            raise CompileError(
                f"{type(self.network).__name__} returns a {type(found).__name__}; it must return its prediction, as a "
                "tensor, as the first of a tuple, or as .sample"
            )
        return found


@dataclass(frozen=True)
class Traced:
    """The operators in order; `inputs` tells which placeholder is x, t, y or condition; the others are `constants`."""

    graph: fx.Graph
    inputs: dict[str, str]
    constants: dict[str, torch.Tensor]


def timestep_tensor(timestep: float, images: int = 1) -> torch.Tensor:
    """What the network is given as t: whole numbers where it is one, as schedulers do."""
    kind = torch.int64 if float(timestep).is_integer() else torch.float64
    return torch.full((images,), timestep, dtype=kind)


def trace(
    network: Network, shape: tuple[int, ...], timestep: float, condition: tuple[int, ...] | None = None
) -> Traced:
    """Export a network; CompileError, with the module's path, for what does not come out as a fixed list of operators.

    `shape` is one sample's, `condition` one condition's where the network takes it.
    """
    x = torch.randn(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    private = {
        "y": torch.zeros(1, dtype=torch.int64),
        "condition": torch.zeros(1, *(condition or ()), dtype=torch.float64),
    }
    given = (x, timestep_tensor(timestep), *(private[what] for what in network.private))
    table = {
        operator: rule
        for operator, rule in torch.export.default_decompositions().items()
        if operator.name().removeprefix("aten::").partition(".")[0] not in KEPT
    }
    with _quiet(), _paths(network.network) as running:
        try:
            with torch.no_grad():
                program = torch.export.export(network, given, strict=False)
            running.clear()
            program = program.run_decompositions(table)
        except CompileError:
            raise
        except Exception as error:  # the module's own code runs here, and may raise anything
            raise CompileError(_why(error, running, network.network)) from error
    signature = program.graph_signature
    changed = [*signature.user_inputs_to_mutate.values(), *signature.buffers_to_mutate.values()]
    if changed:
        raise CompileError(
            f"the module changes {changed[0]!r} in place, which on ciphertext would be a second result; write "
            f"{changed[0]} = {changed[0]} + ... instead of an operator that ends in _"
        )
    constants: dict[str, torch.Tensor] = {}
    inputs: dict[str, str] = {}
    users = iter(["x", "t", *network.private])
    for spec in signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            inputs[spec.arg.name] = next(users)
        elif spec.kind is InputKind.CONSTANT_TENSOR:
            constants[spec.arg.name] = program.constants[spec.target]
        else:
            constants[spec.arg.name] = (
                program.constants[spec.target] if spec.persistent is False else program.state_dict[spec.target]
            )
    graph = program.graph
    for node in list(graph.nodes):
        if "_assert" in getattr(node.target, "__name__", "") and not node.users:  # shapes and types are fixed
            graph.erase_node(node)
    graph.eliminate_dead_code()
    return Traced(graph, inputs, constants)


def path_of(node: fx.Node) -> str:
    """The path of the module that computes a node, without the wrapper around it; '' for the model itself."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    return path.removeprefix("network").removeprefix(".")


@contextlib.contextmanager
def _paths(module: nn.Module) -> Iterator[list[str]]:
    """The paths of the modules that are running, the outermost first: after an error, those that did not return."""
    running: list[str] = []

    def enter(path: str) -> Any:
        return lambda *_: running.append(path)

    def leave(*_: Any) -> None:
        running.pop()

    handles = []
    for path, part in module.named_modules():
        handles += [part.register_forward_pre_hook(enter(path)), part.register_forward_hook(leave)]
    try:
        yield running
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Whole numbers become float64, too: `t / 1000` must fit the weights."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own log and warnings about itself: what matters of it is in the message."""
    loggers = [logging.getLogger(name) for name in ("torch._export", "torch.export", "torch.fx", "torch._dynamo")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _why(error: Exception, running: list[str], module: nn.Module) -> str:
    path = running[-1] if running else ""
    where = f"module {path!r} ({type(module.get_submodule(path)).__name__})" if path else type(module).__name__
    text = " ".join(str(error).split("\n\n")[0].split())[:300]
    if "data-dependent" in str(error) or "DataDependent" in type(error).__name__:
        return (
            f"{where} decides by the values of a tensor (if, while, int(), or a result whose size depends on them): "
            "the server does not see them; compute both cases and add them, or drop the condition"
        )
    if "same dtype" in text or "to be the same" in text or "same type" in text:
        return (
            f"{where} mixes float32 and float64 ({text}): networks are compiled in float64; write t.to(x.dtype) "
            "instead of t.float()"
        )
    return f"{where} cannot be exported for a sample of the given shape: {type(error).__name__}: {text}"
