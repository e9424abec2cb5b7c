"""The part of a network that depends on no picture: evaluated in the clear for every step, and for every label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_arg

from hefw.models.compiler.values import Clear, Table


def evaluate(node: fx.Node, values: Callable[[fx.Node], Any], steps: int) -> Clear | Table:
    """A node whose arguments are all Clear or Table: Clear if no label is among them."""
    found = [values(argument) for argument in node.all_input_nodes]
    count = 1 if all(value.fixed for value in found if isinstance(value, (Clear, Table))) else steps
    if any(isinstance(value, Table) for value in found):
        return Table(tuple(_for_every_label(node, values, step) for step in range(count)))
    with torch.no_grad():
        return Clear(tuple(_call(node, _at(values, step)) for step in range(count)))


def _at(values: Callable[[fx.Node], Any], step: int) -> Callable[[fx.Node], Any]:
    return lambda n: values(n).at(step)


def _for_every_label(node: fx.Node, values: Callable[[fx.Node], Any], step: int) -> Any:
    """The node's value for all labels at a step, (classes, *shape)."""
    tables = [n for n in node.all_input_nodes if isinstance(values(n), Table)]

    def one(*chosen: torch.Tensor) -> Any:
        by_node = dict(zip(tables, chosen, strict=True))
        return _call(node, lambda n: by_node[n] if n in by_node else values(n).at(step))

    given: Sequence[Any] = [values(n).at(step) for n in tables]
    with torch.no_grad():
        return torch.vmap(one)(*given)


def _call(node: fx.Node, lookup: Callable[[fx.Node], Any]) -> Any:
    arguments = map_arg(node.args, lookup)
    keywords = map_arg(node.kwargs, lookup)
    assert callable(node.target)
    return node.target(*arguments, **keywords)
