"""OpenFHE keeps evaluation keys in one place for the whole process, by a tag. Here each owner has a tag of its own."""

from __future__ import annotations

import secrets
import threading
from typing import Any

from hefw.backends.openfhe.library import openfhe

#: Held while keys are taken away, and by whoever needs its own to be there: OpenFHE can only clear all tags at once.
LOCK = threading.RLock()


def new_tag() -> str:
    """A tag that no other owner has."""
    return secrets.token_hex(16)


def insert(tag: str, keys: Any) -> None:
    """Add automorphism keys under a tag; those whose index is there already are left as they are."""
    with LOCK:
        openfhe.CryptoContext.InsertEvalAutomorphismKey(keys, tag)


def insert_relinearisation(tag: str, key: Any) -> None:
    """Set the relinearisation key of a tag, if it has none."""
    with LOCK:
        if tag not in openfhe.CryptoContext.GetAllEvalMultKeys():
            openfhe.CryptoContext.InsertEvalMultKey([key], tag)


def forget(tag: str) -> None:
    """Give back all keys of a tag."""
    context = openfhe.CryptoContext
    with LOCK:
        automorphisms, products = context.GetAllEvalAutomorphismKeys(), context.GetAllEvalMultKeys()
        if automorphisms.pop(tag, None) is not None:
            context.ClearEvalAutomorphismKeys()
            for other, keys in automorphisms.items():
                context.InsertEvalAutomorphismKey(keys, other)
        if products.pop(tag, None) is not None:
            openfhe.ClearEvalMultKeys()
            for other, keys in products.items():
                context.InsertEvalMultKey(keys, other)


def tags() -> set[str]:
    """The tags that have keys."""
    context = openfhe.CryptoContext
    with LOCK:
        return set(context.GetAllEvalAutomorphismKeys()) | set(context.GetAllEvalMultKeys())
