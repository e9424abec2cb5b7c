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


def check_module(module: Any, arguments: Mapping[str, Any], *, labelled: bool) -> None:
    """CompileError unless it is a module of real, finite weights with forward(x, t[, y]) that is done with training."""
    if not isinstance(module, nn.Module):
        raise CompileError(
            f"a {type(module).__name__} was given where a torch.nn.Module is needed; for a saved diffusers model, load "
            "it first (UNet2DModel.from_pretrained) or use `hefw compile FOLDER`"
        )
    _check_forward(module, arguments, labelled)
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
    try:
        sizes = tuple(shape)
    except TypeError:
        sizes = ()
    if not sizes or not all(type(size) is int and size > 0 for size in sizes):
        raise CompileError(
            f"sample_shape {shape!r} is not allowed; allowed: positive integers such as (1, 8, 8), the shape of one "
            "sample "
            "without its batch: a graph has one size, so compile once for each"
        )
    if torch.Size(sizes).numel() > LARGEST_SAMPLE:
        raise CompileError(
            f"sample_shape {sizes} has more than {LARGEST_SAMPLE} entries; compile a latent model instead"
        )
    return sizes


def _check_forward(module: nn.Module, arguments: Mapping[str, Any], labelled: bool) -> None:
    name = type(module).__name__
    if type(module).forward is nn.Module.forward:
        raise CompileError(
            f"{name} has no forward; it must compute the prediction by forward(x, t) or forward(x, t, y)"
        )
    signature = inspect.signature(module.forward)
    wanted = "(x, t, y)" if labelled else "(x, t)"
    missing = [key for key in arguments if key not in signature.parameters]
    if missing:
        raise CompileError(f"{name}.forward{signature} has no argument {missing[0]!r}; arguments are its keywords")
    try:
        signature.bind(0, 0, **call_arguments(module, arguments), **({label_name(module): 0} if labelled else {}))
    except TypeError as error:
        hint = "" if labelled else "; a model of labels needs classes=N"
        raise CompileError(
            f"{name}.forward{signature} cannot be called as forward{wanted}: {error}{hint}; wrap it in a module whose "
            f"forward{wanted} calls it, or give what else it takes by arguments={{...}}"
        ) from None


def label_name(module: nn.Module) -> str:
    """The argument that takes labels: diffusers' `class_labels`, or else the third."""
    names = list(inspect.signature(module.forward).parameters)
    return "class_labels" if "class_labels" in names else names[2] if len(names) > 2 else "y"


def call_arguments(module: nn.Module, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of every call: those given, and no text for a network that is conditioned by nothing but its label."""
    parameter = inspect.signature(module.forward).parameters.get("encoder_hidden_states")
    needed = parameter is not None and parameter.default is inspect.Parameter.empty
    return ({"encoder_hidden_states": None} if needed else {}) | dict(arguments)
