"""What can be said against a module before it is run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hefw.core.errors import CompileError

#: Modules that compute something else while training.
TRAINING = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
LARGEST_SAMPLE = 1 << 20


def check_module(module: Any, arguments: Mapping[str, Any], *, labelled: bool, conditioned: bool = False) -> None:
    """CompileError unless it is a module of real, finite weights, with the forward wanted, done with training."""
    if not isinstance(module, nn.Module):
        raise CompileError(
            f"a {type(module).__name__} was given where a torch.nn.Module is needed; for a saved diffusers model, load "
            "it first (UNet2DModel.from_pretrained) or use `hefw compile FOLDER`"
        )
    _check_forward(module, arguments, labelled, conditioned)
    for path, part in module.named_modules():
        idle = isinstance(part, nn.modules.dropout._DropoutNd) and not part.p
        if isinstance(part, TRAINING) and part.training and not idle:
            raise CompileError(
                f"module {path or type(part).__name__!r} ({type(part).__name__}) is in training mode, in which its "
                "results depend on the batch or on chance; call eval() on the model first"
            )
    for kind, tensors in (("parameter", module.named_parameters()), ("buffer", module.named_buffers())):
        for path, tensor in tensors:
            if tensor.is_complex():
                raise CompileError(
                    f"{kind} {path!r} is complex ({tensor.dtype}); slots hold real numbers: keep its real and "
                    "imaginary "
                    "part as two channels"
                )
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise CompileError(
                    f"{kind} {path!r} has values that are not finite (NaN or infinite): the training diverged, or the "
                    "file "
                    "is damaged; load other weights"
                )


def check_sample_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """(channels, height, width) or another shape of one sample; CompileError unless it is fixed."""
    return _check_shape("sample_shape", shape, "such as (1, 8, 8), the shape of one sample")


def check_condition(shape: Sequence[int] | None) -> tuple[int, ...] | None:
    """The shape of one condition; CompileError unless it is fixed."""
    return None if shape is None else _check_shape("condition", shape, "such as (64,), the shape of one embedding")


def _check_shape(name: str, shape: Sequence[int], example: str) -> tuple[int, ...]:
    try:
        sizes = tuple(shape)
    except TypeError:
        sizes = ()
    if not sizes or not all(type(size) is int and size > 0 for size in sizes):
        raise CompileError(
            f"{name} {shape!r} is not allowed; allowed: positive integers {example} without its batch: a graph has one "
            "size, so compile once for each"
        )
    if torch.Size(sizes).numel() > LARGEST_SAMPLE:
        raise CompileError(f"{name} {sizes} has more than {LARGEST_SAMPLE} entries; compile a latent model instead")
    return sizes


def _check_forward(module: nn.Module, arguments: Mapping[str, Any], labelled: bool, conditioned: bool) -> None:
    name = type(module).__name__
    if type(module).forward is nn.Module.forward:
        raise CompileError(
            f"{name} has no forward; it must compute the prediction by forward(x, t), forward(x, t, y) or "
            "forward(x, t, condition)"
        )
    signature = inspect.signature(module.forward)
    wanted = f"({', '.join(['x', 't', *['y'] * labelled, *['condition'] * conditioned])})"
    private = private_arguments(module, labelled=labelled, conditioned=conditioned)
    missing = [key for key in arguments if key not in signature.parameters]
    if missing:
        raise CompileError(f"{name}.forward{signature} has no argument {missing[0]!r}; arguments are its keywords")
    try:
        signature.bind(0, 0, **(call_arguments(module, arguments) | dict.fromkeys(private.values(), 0)))
    except TypeError as error:
        hint = "" if private else "; a model of labels needs classes=N, one of embeddings condition=(size,)"
        raise CompileError(
            f"{name}.forward{signature} cannot be called as forward{wanted}: {error}{hint}; wrap it in a module whose "
            f"forward{wanted} calls it, or give what else it takes by arguments={{...}}"
        ) from None


def private_arguments(module: nn.Module, *, labelled: bool, conditioned: bool) -> dict[str, str]:
    """The arguments that take the label ("y") and the condition: those of their names, or else the next from the third.

    A label's name is diffusers' `class_labels`, a condition's `condition`.
    """
    names = list(inspect.signature(module.forward).parameters)
    free = iter(name for name in names[2:] if name not in ("class_labels", "condition"))
    found: dict[str, str] = {}
    for what, name, asked in (("y", "class_labels", labelled), ("condition", "condition", conditioned)):
        if asked:
            found[what] = name if name in names else next(free, what)
    return found


def call_arguments(module: nn.Module, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of every call: those given, and no text for a network that is conditioned by nothing but its label."""
    parameter = inspect.signature(module.forward).parameters.get("encoder_hidden_states")
    needed = parameter is not None and parameter.default is inspect.Parameter.empty
    return ({"encoder_hidden_states": None} if needed else {}) | dict(arguments)
