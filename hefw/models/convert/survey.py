"""Where a network cannot be evaluated on ciphertext, and which of these places depend on which."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from hefw.core.errors import CompileError
from hefw.models.compiler.check import call_arguments, check_module, private_arguments
from hefw.models.convert.calls import ACTIVATION, ATTENTION, LAST_AXIS, SOFTMAX, Call, Calls

#: A place where only timestep and label are read, jointly: the label's part then changes with the timestep.
CONDITIONING = "conditioning"
#: Ways in which diffusers lets a timestep multiply, by the attribute that says so.
MULTIPLYING = ("scale_shift", "ada_group", "spatial")


@dataclass(frozen=True)
class Site:
    """A place to be replaced: the number of its call, its module's path, its operator, and what is read there.

    A function that the network itself calls is named by its operator; "#2" is the second call of a place.
    `shape` is one image's, `axis` the channels' in a batch, counted from the end; `follows` has the numbers of the
    activations and attentions whose results are read here.
    """

    number: int
    place: str
    operator: str
    kind: str
    shape: tuple[int, ...]
    axis: int
    follows: frozenset[int] = frozenset()

    @property
    def channels(self) -> int:
        return self.shape[self.axis]

    def __str__(self) -> str:
        return self.place


class Prediction:
    """A network as a function of samples, timesteps and labels, that returns its prediction as a tensor."""

    def __init__(self, module: nn.Module, labelled: bool) -> None:
        self.module = module
        self.arguments = call_arguments(module, {})
        self.label = private_arguments(module, labelled=labelled, conditioned=False).get("y")

    def __call__(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        named = self.arguments if self.label is None else self.arguments | {self.label: y}
        found = self.module(x, t, **named)
        found = getattr(found, "sample", found)
        while isinstance(found, (tuple, list)) and found:
            found = found[0]
        if not isinstance(found, torch.Tensor) or found.shape != x.shape:
            what = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise CompileError(
                f"{type(self.module).__name__} returns {what} for samples of {tuple(x.shape)}; it must return a "
                "prediction of their shape, as a tensor, as the first of a tuple, or as .sample"
            )
        return found


def check_convertible(module: Any, labelled: bool) -> None:
    """CompileError, by the place and with the remedy, for what no conversion makes fit for ciphertext."""
    check_module(module, {}, labelled=labelled)
    for path, part in module.named_modules():
        way = getattr(part, "time_embedding_norm", None)
        if way in MULTIPLYING:
            raise CompileError(
                f"module {path!r} multiplies by the timestep's and the label's embedding (time_embedding_norm={way!r}),"
                " so that all weights would be encoded again at every step; allowed: 'default', which adds it: build "
                "the network with resnet_time_scale_shift='default' and distil it from this one"
            )
        if getattr(part, "is_cross_attention", False) or type(part).__name__ == "CrossAttention":
            raise CompileError(
                f"module {path!r} attends to encoder hidden states: a ciphertext for every token of a private prompt; "
                "allowed: labels (num_class_embeds), or one embedding that is added: use UNet2DModel, or blocks "
                "without CrossAttn"
            )
        if isinstance(part, nn.MultiheadAttention):
            raise CompileError(
                f"module {path!r} is a torch.nn.MultiheadAttention, whose weights cannot be replaced from outside; "
                "allowed: torch.nn.functional.scaled_dot_product_attention, or diffusers' Attention: write it so"
            )


@dataclass(frozen=True)
class _Seen:
    call: Call
    place: str
    encrypted: bool


def survey(module: nn.Module, shape: tuple[int, ...], timesteps: torch.Tensor, classes: int | None) -> list[Site]:
    """All places in order of execution; `shape` is one sample's.

    What is encrypted is found by its gradient to the sample, what is read where by gradients to each result.
    """
    check_convertible(module, classes is not None)
    module = copy.deepcopy(module).eval().requires_grad_(False)
    predict = Prediction(module, classes is not None)
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    y = None if classes is None else torch.arange(2) % classes
    first, last = (t.expand(2) for t in (timesteps[:1], timesteps[-1:]))
    seen = _calls(predict, x, first, y)
    other = {s.call.number: s for s in _calls(predict, x, last, y)}
    sites = []
    for s in seen:
        if s.encrypted:
            sites.append(_site(s, s.call.kind))
        elif s.call.kind == ACTIVATION and _joint(s.call.input, other[s.call.number].call.input):
            sites.append(_site(s, CONDITIONING))
    follows: dict[int, set[int]] = {site.number: set() for site in sites}
    for site in sites:
        if site.kind in (ACTIVATION, ATTENTION, SOFTMAX):
            for reader in _readers(predict, x, first, y, site.number):
                follows.setdefault(reader, set()).add(site.number)
    return [replace(site, follows=frozenset(follows[site.number])) for site in sites]


def _calls(predict: Prediction, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor | None) -> list[_Seen]:
    seen: list[_Seen] = []
    places: Counter[str] = Counter()
    with _paths(predict.module) as running, torch.enable_grad():

        def note(call: Call) -> torch.Tensor:
            path = running[-1] if running else call.operator
            places[path] += 1
            place = path if places[path] == 1 else f"{path}#{places[path]}"
            seen.append(_Seen(call, place, any(tensor.requires_grad for tensor in call.tensors)))
            return call.run()

        with Calls(note):
            noted = predict(x.clone().requires_grad_(), t, y).detach()
    with torch.no_grad():
        plain = predict(x.clone(), t, y)
    if not torch.allclose(noted, plain, rtol=1e-4, atol=1e-5):
        raise CompileError(
            "the module reads what an activation has changed in place (inplace=True), so that it cannot be replaced; "
            "make its activations with inplace=False"
        )
    return seen


def _site(seen: _Seen, kind: str) -> Site:
    call = seen.call
    where = f"module {seen.place!r}"
    if kind == ATTENTION:
        _check_attention(call, where)
    shape = tuple(int(size) for size in call.input.shape)
    last = call.operator in LAST_AXIS or (call.kind == ACTIVATION and len(shape) == 3) or len(shape) == 2
    return Site(call.number, seen.place, call.operator, kind, shape[1:], -1 if last else 1 - len(shape))


def _check_attention(call: Call, where: str) -> None:
    query, key, value = (tensor.shape for tensor in call.tensors[:3])
    if not all(tensor.requires_grad for tensor in call.tensors[:3]) or len(query) != 4 or key != value:
        raise CompileError(
            f"{where}: attention of {tuple(query)} to {tuple(key)} is not supported; allowed: self-attention of a "
            "picture's tokens, (batch, heads, tokens, channels); leave cross-attention out"
        )
    if len(call.tensors) > 3 or call.keywords.get("is_causal"):
        raise CompileError(f"{where}: attention with a mask is not supported; leave the mask out")


def _joint(at_first: torch.Tensor, at_last: torch.Tensor) -> bool:
    """Whether an input (batch of two labels, ...) changes with the label and with the timestep."""
    return not torch.equal(at_first[0], at_first[-1]) and not torch.equal(at_first, at_last)


def _readers(predict: Prediction, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor | None, number: int) -> set[int]:
    """The calls whose arguments depend on the result of call `number`."""
    readers: set[int] = set()

    def follow(call: Call) -> torch.Tensor:
        if any(tensor.requires_grad for tensor in call.tensors):
            readers.add(call.number)
        result = call.run()
        return result.detach().requires_grad_() if call.number == number else result

    with torch.enable_grad(), Calls(follow):
        predict(x, t, y)
    return readers


@contextlib.contextmanager
def _paths(module: nn.Module) -> Iterator[list[str]]:
    """The paths of the modules that are running, the outermost first, without the model itself."""
    running: list[str] = []
    handles = []
    for path, part in module.named_modules():
        if path:
            handles.append(part.register_forward_pre_hook(lambda *_, path=path: running.append(path)))
            handles.append(part.register_forward_hook(lambda *_: _leave(running)))
    try:
        yield running
    finally:
        for handle in handles:
            handle.remove()


def _leave(running: list[str]) -> None:
    running.pop()
