"""Registers the built-in strategies."""

from __future__ import annotations

from hefw.hookspecs import Entry, hookimpl


@hookimpl
def hefw_strategies() -> list[Entry]:
    return [Entry("full", "hefw.strategies.full:Full", "every entry of the latent is encrypted")]
